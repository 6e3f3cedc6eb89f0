"""Sum of a row's block values modulo 2^32, with an exact overflow check."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import accumulate
from hwgen.rtl.block_shift import VALUE_BITS

WORD_BITS = 12
"""Bits of the number of words in a row: the guard bits of the exact sum."""


class RowAccumulator(wiring.Component):
    """Adds the `blocks` values of every valid cycle; `total` is complete in the cycle of the row's last word.

    Parameters: `blocks`, values a cycle (1 or more).

    Members
    -------
    valid, last: In(1)
        The values count; they are the last of their row.
    values: In(blocks x 32 bit), halves, overflows: In(blocks)
        Block value i is values[i] + halves[i]; its flag is overflows[i].
    total: Out(32)
        The running sum including this cycle's values, combinational.
    overflow: Out(1)
        Pulses two cycles after a valid value with its flag set, or after the end of a row whose exact sum is no int32.
    """

    def __init__(self, *, blocks: int):
        if blocks < 1:
            raise ValueError(f"Blocks must be 1 or more, not {blocks!r}")
        self.blocks = blocks
        super().__init__({
            "valid": In(1), "last": In(1), "values": In(VALUE_BITS * blocks), "halves": In(blocks),
            "overflows": In(blocks), "total": Out(VALUE_BITS), "overflow": Out(1),
        })

    @staticmethod
    def model(values, overflows):
        """(int32 sums, overflow) over the last axis, as `hwgen.arithmetic.mx.accumulate`."""
        return accumulate(values, overflows)

    def elaborate(self, platform):
        m = Module()
        values = [self.values.word_select(i, VALUE_BITS) for i in range(self.blocks)]
        low = Signal(VALUE_BITS, reset_less=True)
        fresh = Signal(init=1)
        with m.If(self.valid):
            m.d.sync += fresh.eq(self.last)
        # the sum of the unsigned low words; what it carries beyond them, less the values' signs, goes to `high`
        total = Mux(fresh, 0, low) + sum(values) + sum(self.halves)
        wide = Signal(VALUE_BITS + (2 * self.blocks).bit_length())
        m.d.comb += [wide.eq(total), self.total.eq(wide[:VALUE_BITS])]
        with m.If(self.valid):
            m.d.sync += low.eq(wide[:VALUE_BITS])

        bits = (2 * self.blocks).bit_length() + 1
        step = Signal(signed(bits), reset_less=True)
        stepped, restart, ended, flagged = Signal(), Signal(reset_less=True), Signal(), Signal()
        signs = sum(value[-1] for value in values)
        m.d.sync += [
            step.eq(wide[VALUE_BITS:] - signs), restart.eq(fresh), stepped.eq(self.valid),
            ended.eq(self.valid & self.last), flagged.eq(self.valid & self.overflows.any()),
        ]
        high = Signal(signed(WORD_BITS + bits), reset_less=True)
        exact = Signal(signed(WORD_BITS + bits))
        m.d.comb += exact.eq(Mux(restart, 0, high) + step)
        with m.If(stepped):
            m.d.sync += high.eq(exact)
        overflow = Signal()
        m.d.sync += overflow.eq(flagged | (ended & (exact != low[-1].replicate(len(exact)).as_signed())))
        m.d.comb += self.overflow.eq(overflow)
        return m
