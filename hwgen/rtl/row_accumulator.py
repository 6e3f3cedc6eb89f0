"""Sum of a row's words modulo 2^32, with an exact overflow check."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import accumulate
from hwgen.rtl.block_shift import VALUE_BITS, value_shape

WORD_BITS = 12
"""Bits of the number of words in a row: the guard bits of the exact sum."""


class RowAccumulator(wiring.Component):
    """Adds one word a cycle; `total` is complete in the cycle of the row's last word.

    Parameters: `blocks`, int32 values in a word's sum (a power of two).

    Members
    -------
    value: In(signed), half: In(1)
        The word is worth value + half; 0 in a cycle without one.
    valid: In(1)
        There is a word.
    overflowed, last: In(1)
        One of its blocks was no int32; it is the last of its row. 0 in a cycle without one.
    total: Out(32)
        The running sum including this cycle's word, combinational.
    overflow: Out(1)
        Pulses two cycles after `overflowed`, or after the end of a row whose exact sum is no int32.
    """

    def __init__(self, *, blocks: int):
        shape = value_shape(blocks)
        self.blocks = blocks
        super().__init__({
            "value": In(shape), "half": In(1), "valid": In(1), "overflowed": In(1), "last": In(1),
            "total": Out(VALUE_BITS), "overflow": Out(1),
        })

    @staticmethod
    def model(values, overflows):
        """(int32 sums, overflow) over the last axis, as `hwgen.arithmetic.mx.accumulate`."""
        return accumulate(values, overflows)

    def elaborate(self, platform):
        m = Module()
        # the carry chain covers the low 32 bits; what leaves it goes to `high` one cycle later
        low, fresh = Signal(VALUE_BITS, reset_less=True), Signal(init=1)
        wide = Signal(VALUE_BITS + 2)
        m.d.comb += [
            wide.eq(Cat(self.half, Mux(fresh, 0, low)) + Cat(self.half, self.value[:VALUE_BITS])),
            self.total.eq(wide[1 : 1 + VALUE_BITS]),
        ]
        upper = self.value[VALUE_BITS:].as_signed()
        step, restart = Signal(signed(len(upper) + 1), reset_less=True), Signal(reset_less=True)
        ended, overflowed, overflow = Signal(), Signal(), Signal()
        m.d.sync += [
            low.eq(self.total), step.eq(upper + wide[-1]), restart.eq(fresh), ended.eq(self.last),
            overflowed.eq(self.overflowed),
        ]
        with m.If(self.valid):
            m.d.sync += fresh.eq(self.last)

        high = Signal(signed(WORD_BITS + len(upper)), reset_less=True)
        exact = Signal.like(high)
        m.d.comb += exact.eq(Mux(restart, 0, high) + step)
        fits = exact == low[-1].replicate(len(high)).as_signed()
        m.d.sync += [high.eq(exact), overflow.eq(overflowed | (ended & ~fits))]
        m.d.comb += self.overflow.eq(overflow)
        return m
