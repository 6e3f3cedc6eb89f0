"""Block sums to Q19.12: shifts by the two scale codes, with rounding and overflow, added over a word."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hwgen.arithmetic.mx import SCALE_BIAS, shift_block
from hwgen.rtl.dot_product import SUM_BITS

VALUE_BITS = 32
_FAR = 63
"""Largest shift kept, counted from a right shift by 20 = 0; everything from 52 on leaves no bit of the value."""


def value_shape(blocks: int):
    """Sum of `blocks` int32 values, with the sign also above bit 31."""
    return signed(VALUE_BITS + max(1, exact_log2(blocks)))


class BlockShift(wiring.Component):
    """Sum over the blocks of dot * 2^(x_scale + w_scale - 254), each rounded half up or wrapped; one word a cycle.

    Parameters: `blocks` of a word (a power of two); `ahead`, the cycles by which the scale codes come before the sums
    (1 or more).

    Members
    -------
    x_scales, w_scales: In(8 * blocks)
        E8M0 codes.
    valid: In(1), dots: In(20 * blocks)
        Block sums, `ahead` cycles later; a word that does not count is worth 0.
    value: Out(signed), half: Out(1)
        One cycle later; the word is worth value + half, left to the accumulator's carry input.
    overflow: Out(1)
        With `value`: a shifted sum is no int32.
    """

    def __init__(self, *, blocks: int, ahead: int):
        if blocks < 1 or blocks & blocks - 1:
            raise ValueError(f"Blocks must be a power of two, not {blocks!r}")
        if ahead < 1:
            raise ValueError(f"Cycles ahead must be 1 or more, not {ahead!r}")
        self.blocks, self.ahead = blocks, ahead
        super().__init__({
            "x_scales": In(8 * blocks), "w_scales": In(8 * blocks), "valid": In(1), "dots": In(SUM_BITS * blocks),
            "value": Out(value_shape(blocks)), "half": Out(1), "overflow": Out(1),
        })

    @staticmethod
    def model(dot, codes):
        """(int32 block values, overflow) of block sums and x_scale + w_scale, as `hwgen.arithmetic.mx.shift_block`."""
        return shift_block(dot, codes - 2 * SCALE_BIAS)

    def elaborate(self, platform):
        m = Module()
        values, halves, overflows = [], [], []
        for i in range(self.blocks):
            dot = self.dots.word_select(i, SUM_BITS).as_signed()
            places = self._places(m, i)
            shifted = Signal(VALUE_BITS + 1, name=f"shifted_{i}")
            m.d.comb += shifted.eq((dot << places)[SUM_BITS - 1 : SUM_BITS + VALUE_BITS])
            shifted = shifted & self.valid.replicate(VALUE_BITS + 1)
            halves.append(shifted[0])
            values.append(shifted[1:].as_signed())
            overflows.append(self._overflow(dot, places))
        value, half = Signal(value_shape(self.blocks), reset_less=True), Signal(reset_less=True)
        overflow = Signal()
        m.d.sync += [
            value.eq(sum([*values, *halves[1:]])), half.eq(halves[0]),
            overflow.eq(Cat(overflows).any() & self.valid),
        ]
        m.d.comb += [self.value.eq(value), self.half.eq(half), self.overflow.eq(overflow)]
        return m

    def _places(self, m, block):
        """Left shift by scale codes + 20, limited to 0..63; the result's bit 0 is at bit 20."""
        places = Signal(signed(10), name=f"places_{block}")
        codes = self.x_scales.word_select(block, 8) + self.w_scales.word_select(block, 8)
        m.d.comb += places.eq(codes - (2 * SCALE_BIAS - SUM_BITS))
        kept = Mux(places < 0, 0, Mux(places > _FAR, _FAR, places[:6]))
        for stage in range(self.ahead):
            register = Signal(6, reset_less=True, name=f"places_{block}_{stage}")
            m.d.sync += register.eq(kept)
            kept = register
        return kept

    @staticmethod
    def _overflow(dot, places):
        """A bit that leaves the top differs from the sign; below bit 0 come zeros."""
        sign = dot[-1]
        differs = [sign, *(bit ^ sign for bit in dot[:-1])]
        # bit i (0 for the zeros) passes bit 31 from a left shift by 32 - i on
        return Cat(bit & (places >= SUM_BITS + 32 - i) for i, bit in enumerate(differs)).any()
