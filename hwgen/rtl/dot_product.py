"""Exact dot product of int8 vectors: Booth rows of all lanes in shared adder trees, one carry chain a few lanes."""

import numpy as np
from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import BLOCK

SUM_BITS = 20
GROUP = 4
"""Lanes that share a first-stage register: the longest path still stays below the second stage's."""


def booth_rows(x, w):
    """Statements and five unsigned rows whose sum is x * w + 21760, for two int8 signals; `w` is recoded.

    Rows are radix-4 multiples of x with inverted sign bits, so that no row needs sign extension: the sum of the
    inverted bits' weights, 256 * (1 + 4 + 16 + 64), is subtracted once for a whole tree. The +1 of a negative multiple
    lies in the gap below the next row.
    """
    once, twice = x.as_signed(), Cat(C(0, 1), x)
    statements, rows, negative = [], [], C(0, 1)
    for digit in range(4):
        high, middle, low = w[2 * digit + 1], w[2 * digit], w[2 * digit - 1] if digit else C(0, 1)
        one, two = middle ^ low, (high & ~middle & ~low) | (~high & middle & low)
        multiple = Signal(9)
        statements.append(multiple.eq(
            ((Cat(once, x[7]) & one.replicate(9)) | (twice & two.replicate(9))) ^ high.replicate(9)))
        row = Cat(multiple[:8], ~multiple[8])
        rows.append(Cat(C(0, 2 * digit - 2), negative, C(0, 1), row) if digit else row)
        negative = high
    rows.append(Cat(C(0, 6), negative))
    return statements, rows


class DotProduct(wiring.Component):
    """sum of x[i] * w[i] over the words of a block, 2 cycles after its last word; one word a cycle, never stalls.

    Parameters: `lanes` (8, 16, 32). With 32 lanes a word is a block.

    Members
    -------
    x, w: In(8 * lanes)
        int8 elements, lane 0 in the low bits.
    total: Out(signed 20 bit)
    valid, end: In(1), below 32 lanes only
        The word counts; it is the last of its block.
    """

    LATENCY = 2

    def __init__(self, *, lanes: int):
        if lanes not in (8, 16, 32):
            raise ValueError(f"Lanes must be 8, 16 or 32, not {lanes!r}")
        self.lanes = lanes
        marks = {"valid": In(1), "end": In(1)} if lanes < BLOCK else {}
        super().__init__({"x": In(8 * lanes), "w": In(8 * lanes), "total": Out(signed(SUM_BITS)), **marks})

    @staticmethod
    def model(x, w):
        """The exact sums: int64 [...] of int8 arrays [..., lanes]."""
        return np.sum(np.asarray(x, np.int64) * np.asarray(w, np.int64), -1)

    def elaborate(self, platform):
        m = Module()
        partial = [self._group(m, first) for first in range(0, self.lanes, GROUP)]
        offset = -21760 * self.lanes & (1 << SUM_BITS) - 1
        total = Signal(SUM_BITS, reset_less=True)
        word = sum(partial) + offset
        if self.lanes == BLOCK:
            m.d.sync += total.eq(word[:SUM_BITS])
        else:
            valid, end, fresh = Signal(), Signal(reset_less=True), Signal(init=1)
            m.d.sync += [valid.eq(self.valid), end.eq(self.end)]
            with m.If(valid):
                m.d.sync += [total.eq((Mux(fresh, 0, total) + word)[:SUM_BITS]), fresh.eq(end)]
        m.d.comb += self.total.eq(total)
        return m

    def _group(self, m, first):
        rows = []
        for lane in range(first, first + GROUP):
            statements, more = booth_rows(self.x.word_select(lane, 8), self.w.word_select(lane, 8))
            m.d.comb += statements
            rows += more
        partial = Signal(18, reset_less=True, name=f"partial_{first}")
        m.d.sync += partial.eq(sum(rows))
        return partial
