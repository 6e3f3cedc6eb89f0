"""Exact dot products of int8 vectors: Booth multiples of eight lanes in one adder tree, then the sum over the block."""

import numpy as np
from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import BLOCK
from hwgen.rtl.adder_heap import add_columns

VLENS = (8, 16, 32, 64, 128, 256)
SUM_BITS = 20
_GROUP, _PARTIAL_BITS = 8, 19
_EXCESS = 256 * (1 + 4 + 16 + 64)
"""What the inverted sign bits of one product's four multiples add; subtracted once a block."""


class DotProduct(wiring.Component):
    """Sums of x[i] * w[i] over each block of a word, 2 cycles after its (last) word; one word a cycle, never stalls.

    With `vlen` below 32 a block is several words. Inside, equal bits of all groups of eight lanes lie side by side in
    one signal, so that the logic is described once for all groups.

    Parameters: `vlen` (8, 16, 32, 64, 128, 256), lanes.

    Members
    -------
    x, w: In(8 * vlen)
        int8 elements, lane 0 in the low bits.
    totals: Out(20 * blocks)
        int20 sums, block 0 in the low bits.
    valid, end: In(1), only with `vlen` below 32
        The word counts; it is the last of its block.
    """

    LATENCY = 2

    def __init__(self, *, vlen: int):
        if vlen not in VLENS:
            raise ValueError(f"VLEN must be 8, 16, 32, 64, 128 or 256, not {vlen!r}")
        self.vlen, self.blocks = vlen, max(1, vlen // BLOCK)
        marks = {"valid": In(1), "end": In(1)} if vlen < BLOCK else {}
        super().__init__({
            "x": In(8 * vlen), "w": In(8 * vlen), "totals": Out(SUM_BITS * self.blocks), **marks,
        })

    @staticmethod
    def model(x, w):
        """The exact sums: int64 [...] of int8 arrays [..., n]."""
        return np.sum(np.asarray(x, np.int64) * np.asarray(w, np.int64), -1)

    def elaborate(self, platform):
        m = Module()
        columns = [[] for _ in range(_PARTIAL_BITS)]
        for lane in range(_GROUP):
            self._multiples(m, self._planes(m, self.x, lane), self._planes(m, self.w, lane), columns)
        planes = []
        for j, total in enumerate(add_columns(m, columns, _PARTIAL_BITS)):
            planes.append(Signal(self.vlen // _GROUP, reset_less=True, name=f"partial_{j}"))
            m.d.sync += planes[j].eq(total)
        groups = min(self.vlen, BLOCK) // _GROUP
        for block in range(self.blocks):
            partials = [Cat(plane[block * groups + g] for plane in planes) for g in range(groups)]
            word = sum(partials) + (-_EXCESS * groups * _GROUP & (1 << SUM_BITS) - 1)
            m.d.comb += self.totals.word_select(block, SUM_BITS).eq(self._total(m, word, block))
        return m

    def _planes(self, m, elements, lane):
        """Bit j of the `lane`th element of every group, for j = 0..7."""
        planes = []
        for j in range(8):
            plane = Signal(self.vlen // _GROUP)
            m.d.comb += plane.eq(Cat(elements[8 * i + j] for i in range(lane, self.vlen, _GROUP)))
            planes.append(plane)
        return planes

    def _multiples(self, m, x, w, columns):
        """Adds the bits of x * w + _EXCESS to `columns`: 0, +-x or +-2x for every two bits of w.

        A multiple's sign bit is inverted, so that it needs no extension; a negative one is the complement and 1 more.
        """
        zero = C(0, len(x[0]))
        for digit in range(4):
            high, middle, low = w[2 * digit + 1], w[2 * digit], w[2 * digit - 1] if digit else zero
            one, two, negative = Signal.like(high), Signal.like(high), Signal.like(high)
            m.d.comb += [
                one.eq(middle ^ low), two.eq((high & ~middle & ~low) | (~high & middle & low)),
                negative.eq(high & ~(middle & low)),
            ]
            columns[2 * digit].append((1.5, negative))
            signed = []
            for bit in [zero, *x, x[7]]:
                signed.append(Signal.like(high))
                m.d.comb += signed[-1].eq(bit ^ high)
            for j in range(9):
                selected = Signal.like(high)
                bit = (one & signed[j + 1]) | (two & signed[j])
                m.d.comb += selected.eq(~bit if j == 8 else bit)
                columns[2 * digit + j].append((3, selected))

    def _total(self, m, word, block):
        total = Signal(SUM_BITS, reset_less=True, name=f"total_{block}")
        if self.vlen >= BLOCK:
            m.d.sync += total.eq(word[:SUM_BITS])
            return total
        valid, end, fresh = Signal(), Signal(reset_less=True), Signal(init=1)
        m.d.sync += [valid.eq(self.valid), end.eq(self.end)]
        with m.If(valid):
            m.d.sync += [total.eq((Mux(fresh, 0, total) + word)[:SUM_BITS]), fresh.eq(end)]
        return total
