"""Microscaling (OCP MX v1.0) MXFP4 blocks: the MXINT8 blocks whose elements are E2M1 numbers, times 16.

An E2M1 number is 0, 0.5, 1, 1.5, 2, 3, 4 or 6 with a sign, under an E8M0 scale 2^(floor(log2 max|v|) - 2). Sixteen
times that is an int8; as an MXINT8 element (worth element * 2^-6) it has four times the OCP scale, which is just the
scale of the block in MXINT8. So `Mx` holds either format, all arithmetic on it is the same, and only memories know the
4-bit codes.
"""

import numpy as np

from hwgen.arithmetic.mx import SCALE_BIAS, SCALE_MAX, Mx, blocked

FORMATS = ("mxint8", "mxfp4")
"""Of weights."""
ELEMENTS = (0, 8, 16, 24, 32, 48, 64, 96)
"""16 * E2M1 number, by the lower three bits of its code; bit 3 is the sign."""
SCALE_STEP = 2
"""Our scale code less the OCP code, but for all-zero blocks: both codes are 0."""


def quantize_mxfp4(values) -> Mx:
    """MXFP4 of float32 values [..., n] as `Mx`: ties to even codes, saturating at 6, no negative zero."""
    values = np.asarray(values)
    blocks = blocked(values.astype(np.float64))
    _, exponent = np.frexp(np.abs(blocks).max(-1))
    code = np.where(blocks.any(-1), np.clip(exponent - 1 + SCALE_BIAS, SCALE_STEP, SCALE_MAX), 0)
    # twice the E2M1 number: the codes' numbers are whole, and 1, 2 or 4 apart
    doubled = np.ldexp(blocks, (SCALE_BIAS + SCALE_STEP + 1 - code)[..., None])
    step = np.exp2(np.maximum(np.frexp(doubled)[1] - 2, 0))
    elements = 8 * np.clip(np.rint(doubled / step) * step, -12, 12).astype(np.int8)
    return Mx(elements, code.astype(np.uint8), values.shape[-1])


def is_mxfp4(elements) -> bool:
    """Whether int8 `elements` are all sixteen times an E2M1 number."""
    return np.array_equal(decode(encode(elements)), elements)


def encode(elements) -> np.ndarray:
    """Codes uint8 0..15 of int8 elements; 0 for what is no E2M1 number."""
    return _CODES[np.asarray(elements, np.int8).view(np.uint8)]


def decode(codes) -> np.ndarray:
    """int8 elements of codes 0..15."""
    return _ELEMENTS[codes]


_ELEMENTS = np.array([*ELEMENTS, *(-e for e in ELEMENTS)], np.int8)
_CODES = np.zeros(256, np.uint8)
_CODES[_ELEMENTS.view(np.uint8)[::-1]] = np.arange(16)[::-1]  # from the last on, so that zero is code 0, not 8
