"""The vector unit's operations on integer vectors, one function an instruction; int64 arrays holding int32 values."""

import numpy as np

from hwgen.arithmetic import tables
from hwgen.arithmetic.fixed import bit_length, fits32, round_half_up, saturate16, wrap32

SHIFT_MAX = 63
"""Right shifts of products are limited to 0..63; below 0 they count as 0."""


def shift_saturate(product, shift):
    """Product (|p| < 2^50) / 2^shift, rounded half up, limited to int16; shift is limited to 0..63."""
    shift = np.clip(shift, 0, SHIFT_MAX)
    # |p| < 2^50, so any shift beyond 51 rounds to 0
    return saturate16(round_half_up(product, np.minimum(shift, 55)))


def add(a, b):
    """a + b modulo 2^32 and whether any element overflowed."""
    total = np.asarray(a, np.int64) + np.asarray(b, np.int64)
    return wrap32(total), bool(np.any(~fits32(total)))


def mul(a, b, shift):
    """a (int32) * b (int16) / 2^shift, rounded half up, saturated to int16."""
    return shift_saturate(np.asarray(a, np.int64) * np.asarray(b, np.int64), shift)


def scale(a, register, shift):
    """a * mantissa / 2^(exponent + shift) with (mantissa, exponent) = register, saturated to int16."""
    mantissa, exponent = register
    return shift_saturate(np.asarray(a, np.int64) * mantissa, exponent + shift)


def rope(a, table, shift):
    """Rotation of adjacent pairs: a [..., 2m] int32, table [..., 2m] = [cos0, sin0, cos1, sin1, ...] in Q1.14.

    even = a0 * cos - a1 * sin, odd = a1 * cos + a0 * sin, each / 2^shift, rounded half up, saturated to int16.
    """
    a, table = np.asarray(a, np.int64), np.asarray(table, np.int64)
    even, odd, cos, sin = a[..., 0::2], a[..., 1::2], table[..., 0::2], table[..., 1::2]
    turned = np.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    return shift_saturate(turned.reshape(*turned.shape[:-2], -1), shift)


def silu(a, shift):
    """a * sigmoid(a) for Q19.12 `a`; the product has 28 fraction bits before the shift; saturated to int16."""
    return shift_saturate(np.asarray(a, np.int64) * tables.sigmoid(a), shift)


def norm_shift(x):
    """k = max(0, bit_length(max|x|) - 15): the right shift that makes squares of x fit."""
    return np.maximum(0, bit_length(np.asarray(x)).max(-1) - 15)


def norm_register(x, k, epsilon):
    """(mantissa, exponent) of 1 / sqrt(sum x^2 + epsilon): S = sum (x >> k)^2 + rhu(epsilon, 2k), at least 1."""
    x = np.asarray(x, np.int64)
    k = np.asarray(k, np.int64)
    total = ((x >> k[..., None]) ** 2).sum(-1) + round_half_up(epsilon, 2 * k)
    mantissa, exponent = tables.rsqrt(np.maximum(total, 1))
    return mantissa, exponent + k


def softmax_numerators(scores, maximum):
    """p_t = 2^(s_t - m) as unsigned Q0.15 for Q19.12 scores in the log2 domain; maximum >= every score."""
    return tables.exp2_negative(np.asarray(maximum, np.int64) - np.asarray(scores, np.int64))


def argmax(values):
    """(maximum, its lowest index)."""
    index = int(np.argmax(values))
    return int(values[index]), index
