"""Microscaling (OCP MX v1.0) MXINT8 blocks and the matrix product over them.

A block is 32 int8 elements, each worth element * 2^-6, under one E8M0 scale code c worth 2^(c - 127). Elements
round to nearest even and are limited to -127..127, so -128 never occurs; an all-zero block has code 0. Tails are
padded with zeros.
"""

from dataclasses import dataclass

import numpy as np

from hwgen.arithmetic.fixed import bit_length, fits32, round_half_even, round_half_up, wrap32

BLOCK = 32
SCALE_BIAS = 127
ELEMENT_FRACTION = 6
SCALE_MAX = 254
LIMBS_MAX = 127 * 256 + 127
"""Largest int16 that two elements hold as 256 * high + low, as a table in weight ROM has it."""


@dataclass(frozen=True)
class Mx:
    """MXINT8 tensor: `elements` int8 [..., blocks, 32], `scales` uint8 [..., blocks]; the last axis had `length`."""

    elements: np.ndarray
    scales: np.ndarray
    length: int

    @property
    def blocks(self) -> int:
        return self.scales.shape[-1]

    def __getitem__(self, key) -> "Mx":
        return Mx(self.elements[key], self.scales[key], self.length)

    def to_float(self) -> np.ndarray:
        """float64 values [..., length]."""
        scale = np.ldexp(1.0, self.scales.astype(np.int64) - SCALE_BIAS - ELEMENT_FRACTION)
        values = self.elements.astype(np.float64) * scale[..., None]
        return values.reshape(*self.scales.shape[:-1], -1)[..., : self.length]


def blocked(values):
    """`values` [..., n] padded with zeros to [..., ceil(n / 32), 32]."""
    pad = -values.shape[-1] % BLOCK
    if pad:
        values = np.concatenate([values, np.zeros((*values.shape[:-1], pad), values.dtype)], -1)
    return values.reshape(*values.shape[:-1], -1, BLOCK)


def quantize_float(values) -> Mx:
    """MXINT8 of float values [..., n]: block scale 2^floor(log2 max|v|), ties to even, -128 becomes -127."""
    values = np.asarray(values)
    blocks = blocked(values.astype(np.float64))
    _, exponent = np.frexp(np.abs(blocks).max(-1))
    zero = ~blocks.any(-1)
    code = np.where(zero, 0, np.clip(exponent - 1 + SCALE_BIAS, 0, SCALE_MAX))
    scaled = np.ldexp(blocks, (ELEMENT_FRACTION + SCALE_BIAS - code)[..., None])
    elements = np.clip(np.rint(scaled), -127, 127).astype(np.int8)
    return Mx(elements, code.astype(np.uint8), values.shape[-1])


def quantize_int(values, fraction) -> Mx:
    """MXINT8 of integers [..., n] that are worth value * 2^-fraction; the same rule as `quantize_float`."""
    values = np.asarray(values, np.int64)
    blocks = blocked(values)
    top = bit_length(blocks).max(-1)
    code = np.where(top == 0, 0, np.clip(top - 1 - fraction + SCALE_BIAS, 0, SCALE_MAX))
    # element = value * 2^(6 - fraction - (code - 127))
    shift = fraction + code - SCALE_BIAS - ELEMENT_FRACTION
    elements = np.clip(round_half_even(blocks, shift[..., None]), -127, 127)
    return Mx(np.where((top == 0)[..., None], 0, elements).astype(np.int8), code.astype(np.uint8), values.shape[-1])


def quantize_weighted(p, codes) -> Mx:
    """MXINT8 of p * 2^(code - 127) along positions: p unsigned Q0.15 [..., n] in 0..32768, codes E8M0 [..., n].

    Block code = max(0, max over p > 0 of (bit_length(p) + code) - 16); element = p * 2^(code - block - 9), ties to
    even. A block with no p > 0 has code 0 and zero elements.
    """
    p, codes = np.asarray(p, np.int64), np.asarray(codes, np.int64)
    length = p.shape[-1]
    codes = blocked(np.broadcast_to(codes, p.shape))
    p = blocked(p)
    reach = np.where(p > 0, bit_length(p) + codes, 0).max(-1)
    block = np.maximum(reach - 16, 0)
    elements = np.clip(round_half_even(p, block[..., None] + 9 - codes), -127, 127)
    return Mx(elements.astype(np.int8), block.astype(np.uint8), length)


def shift_block(dot, shift):
    """Block sum `dot` (20-bit signed) * 2^shift in Q19.12: right shifts round half up, left shifts wrap.

    Returns (int32 value, overflow), overflow where the exact left-shifted value is no int32.
    """
    exact = round_half_up(dot, -np.clip(shift, -33, 33))
    return wrap32(exact), ~fits32(exact)


def accumulate(shifted, overflow, axis=-1):
    """Sum of block values modulo 2^32 and the overflow flag (any block overflowed, or the exact sum is no int32)."""
    total = np.sum(shifted, axis, dtype=np.int64)
    return wrap32(total), np.any(overflow, axis) | ~fits32(total)


def block_dots(x: Mx, w: Mx) -> np.ndarray:
    """Exact block sums [..., rows, blocks] of vectors x [..., blocks, 32] with the rows of w [rows, blocks, 32]."""
    # |sum| <= 32 * 127^2 < 2^24, so a float32 product is exact
    lead = x.elements.shape[:-2]
    a = x.elements.reshape(-1, x.blocks, BLOCK).transpose(1, 0, 2).astype(np.float32)
    b = w.elements.transpose(1, 2, 0).astype(np.float32)
    dots = np.matmul(a, b).transpose(1, 2, 0)
    return dots.reshape(*lead, w.elements.shape[0], x.blocks).astype(np.int64)


def matmul(x: Mx, w: Mx):
    """Rows of `w` times vectors `x`, in Q19.12: (int64 holding int32 values [..., rows], overflow bool [..., rows])."""
    codes = x.scales.astype(np.int64)[..., None, :] + w.scales.astype(np.int64)
    return accumulate(*shift_block(block_dots(x, w), codes - 2 * SCALE_BIAS))
