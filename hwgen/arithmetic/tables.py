"""Function tables: 32 segments with linear interpolation, shared by the reference and the vector unit.

Each table holds 33 knots; segment i interpolates between knots i and i + 1 with a rounded product. The arrays
`EXP2`, `SIGMOID`, `RSQRT`, `RECIPROCAL` are what the hardware holds.
"""

from dataclasses import dataclass

import numpy as np

from hwgen.arithmetic.fixed import bit_length, round_half_up

SEGMENTS = 32


@dataclass(frozen=True)
class Table:
    """Knots at the start of each segment, step to its end, and the number of fraction bits inside a segment."""

    base: tuple[int, ...]
    step: tuple[int, ...]
    fraction_bits: int

    def __call__(self, index):
        """Value at `index` = segment << fraction_bits | fraction."""
        index = np.asarray(index, np.int64)
        segment, fraction = index >> self.fraction_bits, index & ((1 << self.fraction_bits) - 1)
        return np.array(self.base)[segment] + round_half_up(np.array(self.step)[segment] * fraction, self.fraction_bits)


def _table(knots, fraction_bits, limit):
    """Table over 33 knots per run of segments; a run of 17 knots twice is allowed for RSQRT's two octaves."""
    base, step = [], []
    for run in knots:
        values = [min(round(v), limit) for v in run]
        base += values[:-1]
        step += [b - a for a, b in zip(values, values[1:], strict=False)]
    return Table(tuple(base), tuple(step), fraction_bits)


EXP2 = _table([[2.0 ** (15 - i / 32) for i in range(33)]], 7, 1 << 15)
"""2^-f in Q0.15 for f = index / 4096 in [0, 1)."""

SIGMOID = _table([[65536 / (1 + np.exp(-i / 4)) for i in range(33)]], 10, 65535)
"""1 / (1 + 2.718^-a) in Q0.16 for a = index / 4096 in [0, 8)."""

RSQRT = _table([[65536 / np.sqrt(o * (1 + i / 16)) for i in range(17)] for o in (1, 2)], 10, 65535)
"""z^-1/2 in Q0.16; index bit 14 picks z in [1, 2) or [2, 4), the lower 14 bits are the mantissa."""

RECIPROCAL = _table([[65536 / (1 + i / 32) for i in range(33)]], 10, 65535)
"""1 / z in Q0.16 for z in [1, 2), index = 15-bit mantissa."""

SIGMOID_TAIL = 22
"""65536 * (1 - sigmoid(8)), halved per unit beyond 8."""


def exp2_negative(distance):
    """p = 2^-(distance / 4096) as unsigned Q0.15 (0..32768), distance >= 0."""
    distance = np.asarray(distance, np.int64)
    whole = distance >> 12
    p = round_half_up(EXP2(distance & 4095), np.minimum(whole, 17))
    return np.where(whole >= 17, 0, p)


def sigmoid(a):
    """sigmoid of Q19.12 `a` as unsigned Q0.16, 0..65535."""
    a = np.asarray(a, np.int64)
    size = np.abs(a)
    inside = SIGMOID(np.minimum(size, (1 << 15) - 1))
    tail = SIGMOID_TAIL >> np.clip((size >> 12) - 8, 0, 31)
    positive = np.where(size < (1 << 15), inside, 65536 - tail)
    return np.minimum(np.where(a < 0, 65536 - positive, positive), 65535)


def rsqrt(s):
    """(mantissa, exponent) with s^-1/2 ~ mantissa * 2^-exponent, mantissa 32768..65535, for integers 1 <= s < 2^53."""
    s = np.asarray(s, np.int64)
    top = bit_length(s) - 1
    mantissa = np.where(top <= 14, s << np.maximum(14 - top, 0), s >> np.maximum(top - 14, 0)) & 0x3FFF
    return RSQRT((top & 1) << 14 | mantissa), 16 + (top >> 1)


def reciprocal(d):
    """(mantissa, exponent) with 1/d ~ mantissa * 2^-exponent, mantissa 32768..65535, for integers 1 <= d < 2^32."""
    d = np.asarray(d, np.int64)
    top = bit_length(d) - 1
    mantissa = np.where(top <= 15, d << np.maximum(15 - top, 0), d >> np.maximum(top - 15, 0)) & 0x7FFF
    return RECIPROCAL(mantissa), 16 + top
