"""MX words: how blocks of 32 lie in memory words of VLEN elements (ARCHITECTURE.md, section 3)."""

import numpy as np

from hwgen.arithmetic.mx import BLOCK, LIMBS_MAX, Mx
from hwgen.arithmetic.mxfp4 import encode
from hwgen.errors import HwgenError

HIGH_LIMB, LOW_LIMB = 129, 121
"""Scale codes of a two-limb table: 64 * hi shifts to 256 * hi, 64 * lo to lo."""


def scale_bytes(vlen: int) -> int:
    """Scale bytes in a word."""
    return max(1, vlen // BLOCK)


def word_bytes(vlen: int) -> int:
    """Bytes of a word."""
    return vlen + scale_bytes(vlen)


def rom_word_bytes(vlen: int, weights: str) -> int:
    """Bytes of a weight-ROM word: one MX word, for MXFP4 with the scales of two words of 4-bit codes."""
    return word_bytes(vlen) + (scale_bytes(vlen) if weights == "mxfp4" else 0)


def vector_words(length: int, vlen: int, bias: bool = False) -> int:
    """Words of a row of `length` elements; with `bias`, whole blocks and then one word for the bias block."""
    if not bias:
        return -(-length // vlen)
    unit = max(vlen, BLOCK)
    return -(-length // unit) * unit // vlen + 1


def pack_rows(matrix: Mx, length: int, vlen: int, bias: bool = False) -> np.ndarray:
    """uint8 [rows * words, word_bytes] of an MX matrix of `length` columns (and a bias block after them)."""
    blocks = -(-length // BLOCK)
    body = _words(matrix.elements[:, :blocks], matrix.scales[:, :blocks], vlen)
    if bias:
        extra = _words(matrix.elements[:, blocks:], matrix.scales[:, blocks:], vlen)[:, :1]
        body = np.concatenate([body, extra], 1)
    else:
        body = body[:, : vector_words(length, vlen)]
    return np.ascontiguousarray(body).reshape(-1, word_bytes(vlen))


def pack_codes(words: np.ndarray, vlen: int) -> np.ndarray:
    """uint8 ROM words [ceil(n / 2), rom_word_bytes] of MX words [n, word_bytes] of MXFP4 elements.

    Codes of the first word, then of the second, even elements in the low bits of a byte; then the scales of both.
    """
    words = np.pad(words, ((0, len(words) % 2), (0, 0)))
    codes = encode(words[:, :vlen].view(np.int8))
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1, vlen)
    return np.concatenate([packed, words[:, vlen:].reshape(len(packed), -1)], 1)


def _words(elements, scales, vlen):
    """uint8 [rows, words, word_bytes] of whole blocks [rows, blocks, 32], padded to whole words."""
    rows, blocks = scales.shape
    elements = np.asarray(elements).view(np.uint8).reshape(rows, -1)
    if vlen >= BLOCK:
        pad = -blocks % (vlen // BLOCK)
        elements = np.pad(elements, ((0, 0), (0, pad * BLOCK))).reshape(rows, -1, vlen)
        scales = np.pad(scales, ((0, 0), (0, pad))).reshape(rows, -1, vlen // BLOCK)
    else:
        elements = elements.reshape(rows, -1, vlen)
        scales = np.repeat(scales, BLOCK // vlen, 1)[..., None]
    return np.concatenate([elements, scales], -1)


def pack_table(values: np.ndarray, vlen: int) -> np.ndarray:
    """uint8 [rows * words * 2, word_bytes] of int16 tables [rows, n] in two limbs: 256 * hi + lo, lo in -128..127."""
    values = np.asarray(values, np.int64)
    if (worst := values.max(initial=0)) > LIMBS_MAX:
        raise HwgenError(f"Numbers of a table must be at most {LIMBS_MAX}, not {worst}: quantise the model again")
    values = np.pad(values, ((0, 0), (0, -values.shape[1] % vlen))).reshape(values.shape[0], -1, vlen)
    low = ((values + 128) & 255) - 128
    limbs = np.stack([(values - low) >> 8, low], 2).astype(np.int8).view(np.uint8)
    codes = np.broadcast_to(np.array([HIGH_LIMB, LOW_LIMB], np.uint8)[:, None], (2, scale_bytes(vlen)))
    words = np.concatenate([limbs, np.broadcast_to(codes, (*limbs.shape[:3], scale_bytes(vlen)))], -1)
    return np.ascontiguousarray(words).reshape(-1, word_bytes(vlen))


def table_words(n: int, vlen: int) -> int:
    """Words of one row of a two-limb table."""
    return -(-n // vlen) * 2
