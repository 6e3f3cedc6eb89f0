"""Fixed-point primitives: rounding shifts, saturation, wrapping. Inputs and results are int64 arrays."""

import numpy as np

Q_FRACTION = 12
"""Fraction bits of the residual stream and of every matrix product (Q19.12)."""


def wrap32(value):
    """`value` modulo 2^32 as a signed 32-bit number."""
    value = np.asarray(value, np.int64)
    return ((value + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def fits32(value):
    """True where `value` is a signed 32-bit number."""
    value = np.asarray(value, np.int64)
    return (value >= -(1 << 31)) & (value < (1 << 31))


def saturate16(value):
    """`value` limited to -32768..32767."""
    return np.clip(np.asarray(value, np.int64), -(1 << 15), (1 << 15) - 1)


def round_half_up(value, shift):
    """floor(value / 2^shift + 1/2) for shift >= 0, value * 2^-shift for shift < 0. |value| < 2^62."""
    value, shift = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    right = np.clip(shift, 0, 62)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return ((value + half) >> right) << np.clip(-shift, 0, 62)


def round_half_even(value, shift):
    """value / 2^shift rounded to nearest, ties to even, for shift >= 0; value * 2^-shift below. |value| < 2^61."""
    value, shift = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    right = np.clip(shift, 0, 62)
    floor = value >> right
    twice = (value - (floor << right)) << 1
    one = np.int64(1) << right
    up = (twice > one) | ((twice == one) & ((floor & 1) == 1))
    return (floor + np.where(right > 0, up, 0)) << np.clip(-shift, 0, 62)


def bit_length(value):
    """Number of bits of |value|: 0 for 0, 1 for 1, 2 for 2..3, ... 32 for -2^31. |value| < 2^53."""
    return np.frexp(np.abs(np.asarray(value, np.int64)).astype(np.float64))[1].astype(np.int64)
