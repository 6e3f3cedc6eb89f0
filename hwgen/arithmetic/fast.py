"""`mx.matmul` for many vectors, matrices and batches at the speed of float32 products, bit for bit the same.

A block sum times a power of two has at most 20 significant bits, so float32 holds it exactly, and floor(sum + 1/2) is
the half-up shift. Where values could leave 32 bits the exact integer rule is used instead.
"""

import numpy as np

from hwgen.arithmetic.mx import BLOCK, SCALE_BIAS, Mx, accumulate, shift_block

_CHUNK = 1 << 22
_BLOCK_MAX = BLOCK * 127 * 127


class Operand:
    """One side of a product: an Mx [..., rows, blocks, 32] and its values in float32, prepared once."""

    def __init__(self, tensor: Mx):
        self.tensor = tensor
        scale = np.ldexp(np.float32(1), tensor.scales.astype(np.int32) - SCALE_BIAS)
        with np.errstate(over="ignore"):
            values = tensor.elements * scale[..., None]
        # [..., blocks, rows, 32]: each block is one matrix
        self.values = np.ascontiguousarray(np.moveaxis(values, -2, -3))
        self.top = int(tensor.scales.max(initial=0)) - SCALE_BIAS
        # 127 elements * 2^120 is below float32's 2^128
        self.finite = self.top <= 120

    @property
    def rows(self) -> int:
        return self.values.shape[-2]


def product(x: Operand, w: Operand):
    """Every row of x with every row of w, in Q19.12, leading axes broadcast together.

    Returns (int64 array holding int32 values [..., x rows, w rows], overflow: None, or bool of that shape).
    """
    turned = w.values.swapaxes(-1, -2)
    lead = np.broadcast_shapes(x.values.shape[:-3], w.values.shape[:-3])
    step = max(1, _CHUNK // max(1, w.rows * w.values.shape[-3] * int(np.prod(lead))))
    exponent = x.top + w.top
    bounded = x.finite and w.finite and exponent < 31 and x.values.shape[-3] * _BLOCK_MAX * 2.0**exponent < 1 << 31
    parts = []
    for start in range(0, x.rows, step):
        rows = slice(start, start + step)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.matmul(x.values[..., rows, :], turned)
            sums += np.float32(0.5)
            np.floor(sums, out=sums)
            total = sums.sum(-3, dtype=np.float64) if sums.shape[-3] > 1 else sums[..., 0, :, :].astype(np.float64)
        if bounded or (_fits(sums) and _fits(total)):
            parts.append((total.astype(np.int64), None))
        else:
            parts.append(_exact(x.tensor.elements[..., rows, :, :], x.tensor.scales[..., rows, :], w.tensor))
    if all(overflow is None for _, overflow in parts):
        return np.concatenate([value for value, _ in parts], -2), None
    flags = [np.zeros(value.shape, bool) if overflow is None else overflow for value, overflow in parts]
    return np.concatenate([value for value, _ in parts], -2), np.concatenate(flags, -2)


def _fits(values) -> bool:
    # False for NaN too
    return bool(values.max(initial=0) < 1 << 31 and values.min(initial=0) >= -(1 << 31))


def _exact(elements, scales, w: Mx):
    a, b = (np.moveaxis(e, -2, -3).astype(np.float32) for e in (elements, w.elements))
    codes = _per_block(scales)[..., :, None] + _per_block(w.scales)[..., None, :]
    dots = np.matmul(a, b.swapaxes(-1, -2)).astype(np.int64)
    return accumulate(*shift_block(dots, codes - 2 * SCALE_BIAS), axis=-3)


def _per_block(scales):
    return np.swapaxes(scales.astype(np.int64), -1, -2)
