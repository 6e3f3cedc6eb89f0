"""Block sum to Q19.12: a shift by the two scale codes, with rounding and overflow."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import SCALE_BIAS, shift_block
from hwgen.rtl.dot_product import SUM_BITS

VALUE_BITS = 32
_RANGE = 63
"""Largest shift kept, counted from a right shift by 20 = 0; everything from 52 on leaves no bit of the value."""


class BlockShift(wiring.Component):
    """dot * 2^(x_scale + w_scale - 254): right shifts round half up, left shifts wrap; one a cycle, never stalls.

    Parameters: `ahead`, the cycles by which the scale codes come before `dot` (1 or more).

    Members
    -------
    x_scale, w_scale: In(8)
        E8M0 codes.
    dot: In(signed 20 bit)
        `ahead` cycles later.
    value: Out(signed 32 bit), half: Out(1)
        One cycle after `dot`; the block value is value + half, left to the accumulator's carry input.
    overflow: Out(1)
        With `value`: the exact shifted sum is no int32.
    """

    def __init__(self, *, ahead: int):
        if ahead < 1:
            raise ValueError(f"Cycles ahead must be 1 or more, not {ahead!r}")
        self.ahead = ahead
        super().__init__({
            "x_scale": In(8), "w_scale": In(8), "dot": In(signed(SUM_BITS)),
            "value": Out(signed(VALUE_BITS)), "half": Out(1), "overflow": Out(1),
        })

    @staticmethod
    def model(dot, x_scale, w_scale):
        """(int32 block value, overflow) of arrays, as `hwgen.arithmetic.mx.shift_block`."""
        return shift_block(dot, x_scale + w_scale - 2 * SCALE_BIAS)

    def elaborate(self, platform):
        m = Module()
        places = Signal(signed(10))
        m.d.comb += places.eq(self.x_scale + self.w_scale - (2 * SCALE_BIAS - SUM_BITS))
        kept = Mux(places < 0, 0, Mux(places > _RANGE, _RANGE, places[:6]))
        for stage in range(self.ahead):
            register = Signal(6, reset_less=True, name=f"places_{stage}")
            m.d.sync += register.eq(kept)
            kept = register
        wide = (self.dot << kept)[SUM_BITS - 1 : SUM_BITS + VALUE_BITS]
        value, half = Signal(signed(VALUE_BITS), reset_less=True), Signal(reset_less=True)
        overflow = Signal(reset_less=True)
        m.d.sync += [Cat(half, value).eq(wide), overflow.eq(self._overflow(kept))]
        m.d.comb += [self.value.eq(value), self.half.eq(half), self.overflow.eq(overflow)]
        return m

    def _overflow(self, places):
        """A bit that leaves the top differs from the sign; below bit 0 come zeros."""
        sign = self.dot[-1]
        differs = [sign, *(bit ^ sign for bit in self.dot[:-1])]
        # bit i (0 for the zeros) passes bit 31 from a left shift by 32 - i on
        return Cat(bit & (places >= SUM_BITS + 32 - i) for i, bit in enumerate(differs)).any()
