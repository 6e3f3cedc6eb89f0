"""One lane of the vector unit: operands, function table, multiplier, rounding shifter."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.function_table import ELEMENT_ROWS, FRACTION_BITS, FunctionTable, exp2_index, sigmoid_index

FACTOR_BITS = 17
_LOW = 8
"""The multiplier is cut behind this bit of the factor, so each half fits one cycle."""


class Operands(enum.Enum, shape=3):
    """What enters the multiplier: a * b, a * mantissa, (a >> k)^2, a * cos, partner * sin."""

    PRODUCT, SCALE, SQUARE, COSINE, SINE = range(5)


class Result(enum.Enum, shape=3):
    """Source of the result: a, a + b, the shifted product as int16, the plain product, or exp2 with its code."""

    COPY, SUM, SHIFTED, SQUARE, EXP = range(5)


class VectorLane(wiring.Component):
    """Datapath of one lane; all timing comes from outside.

    Stages (one cycle each): capture, P (choose operands, or index the table), T1, T2 (table), M1, M2 (multiply), S
    (shift or direct result). COPY and SUM go from P to the result, products skip T1 and T2.

    Members, by the cycle in which they count
    -----------------------------------------
    word: In(32), load_a, load_b: In(1)
        Capture registers `a`, `b` (outputs, for the partner lane).
    P: operands, load_p (operands enter M1), mantissa: In(signed(32)), k: In(5), other: In(signed(32)), cos, sin:
        In(signed(17)), minus (negates the sine), is_exp (else SILU)
    T2: load_t (the table's value enters M1), is_exp_t
    M2: load_product, accumulate
    P or S: source: In(Result), amount: In(6), live, low_fill (a lane that is not live yields -2^31, else 0)
    result: Out(32)
        One cycle later. EXP: p in bits 0..15, its code (b at P) in bits 16..23.
    overflow: Out(1)
        With `result`: the sum of a live lane was no int32.
    """

    def __init__(self):
        super().__init__({
            "word": In(signed(32)), "load_a": In(1), "load_b": In(1),
            "a": Out(signed(32)), "b": Out(signed(32)), "x": Out(signed(32)),
            "operands": In(Operands), "load_p": In(1), "mantissa": In(signed(32)), "k": In(5),
            "other": In(signed(32)), "cos": In(signed(FACTOR_BITS)), "sin": In(signed(FACTOR_BITS)), "minus": In(1),
            "is_exp": In(1), "load_t": In(1), "is_exp_t": In(1), "load_product": In(1), "accumulate": In(1),
            "source": In(Result), "amount": In(6), "live": In(1), "low_fill": In(1),
            "result": Out(32), "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        for load, register in ((self.load_a, self.a), (self.load_b, self.b)):
            with m.If(load):
                m.d.sync += register.eq(self.word)
        factor = Signal(signed(FACTOR_BITS), reset_less=True)
        code, whole = self._operands(m, factor)
        product = self._multiply(m, factor)
        self._result(m, product, code, whole)
        return m

    def _operands(self, m, factor):
        """Fill `x` and `factor`; returns the code and whole shift of EXP, at stage S."""
        x, m_next = Signal(signed(32)), Signal(signed(FACTOR_BITS))
        m.d.comb += [x.eq(self.a), m_next.eq(self.b)]
        with m.Switch(self.operands):
            with m.Case(Operands.SCALE):
                m.d.comb += m_next.eq(self.mantissa)
            with m.Case(Operands.SQUARE):
                m.d.comb += [x.eq(self.a >> self.k), m_next.eq(self.a >> self.k)]
            with m.Case(Operands.COSINE):
                m.d.comb += m_next.eq(self.cos)
            with m.Case(Operands.SINE):
                m.d.comb += [x.eq(self.other), m_next.eq(Mux(self.minus, -self.sin, self.sin))]
        value, late = self._table(m)
        code, whole = late[:8], late[8:13]
        with m.If(self.load_p):
            m.d.sync += [self.x.eq(x), factor.eq(m_next)]
        with m.If(self.load_t):
            # EXP multiplies by one: it uses only the shifter behind
            m.d.sync += [self.x.eq(Mux(self.is_exp_t, 1, late)), factor.eq(value)]
        for _ in range(3):
            following = Signal(13, reset_less=True)
            m.d.sync += following.eq(Cat(code, whole))
            code, whole = following[:8], following[8:]
        return code, whole

    def _table(self, m):
        """(factor, what was sent along) at stage T2: `a` of SILU, or code and whole shift of EXP."""
        m.submodules.table = table = FunctionTable(rows=ELEMENT_ROWS)
        distance, size = Signal(32), Signal(32)
        m.d.comb += [distance.eq(self.mantissa - self.a), size.eq(Mux(self.a < 0, -self.a, self.a))]
        exp_row, exp_fraction, whole = exp2_index(distance)
        row, fraction = sigmoid_index(size)
        row_p, fraction_p = Signal.like(table.row, reset_less=True), Signal(FRACTION_BITS, reset_less=True)
        sent, late = Signal(signed(32), reset_less=True), Signal(signed(32), reset_less=True)
        m.d.sync += [
            row_p.eq(Mux(self.is_exp, exp_row, row)),
            fraction_p.eq(Mux(self.is_exp, exp_fraction, fraction)),
            sent.eq(Mux(self.is_exp, Cat(self.b[:8], whole), self.a)),
            late.eq(sent),
        ]
        m.d.comb += [table.row.eq(row_p), table.fraction.eq(fraction_p)]
        value = Mux(late < 0, 65536 - table.value, Mux(table.value[16], 65535, table.value))
        return Mux(self.is_exp_t, table.value, value), late

    def _multiply(self, m, factor):
        low = Signal(signed(32 + _LOW + 1), reset_less=True)
        high = Signal(signed(32 + FACTOR_BITS - _LOW), reset_less=True)
        product = Signal(signed(50), reset_less=True)
        m.d.sync += [low.eq(self.x * factor[:_LOW]), high.eq(self.x * factor[_LOW:].as_signed())]
        with m.If(self.load_product):
            m.d.sync += product.eq(low + (high << _LOW) + Mux(self.accumulate, product, 0))
        return product

    def _result(self, m, product, code, whole):
        total = Signal(signed(33))
        m.d.comb += total.eq(self.a + Mux(self.source == Result.SUM, self.b, 0))
        # one extra bit below keeps the half; saturating before rounding keeps the increment short
        shifted, clipped = Signal(signed(51)), Signal(signed(18))
        amount = Mux(self.source == Result.EXP, whole, self.amount)
        m.d.comb += shifted.eq(Cat(0, product).as_signed() >> amount)
        fits = (shifted[17:] == 0) | shifted[17:].all()
        m.d.comb += clipped.eq(Mux(fits, shifted, Mux(shifted[-1], -(1 << 17), (1 << 17) - 1)))
        rounded, short = Signal(signed(18)), Signal(signed(16))
        is_short = rounded[15:].all() | ~rounded[15:].any()
        m.d.comb += [
            rounded.eq((clipped + 1) >> 1),
            short.eq(Mux(is_short, rounded, Mux(rounded[-1], -(1 << 15), (1 << 15) - 1))),
        ]
        value = Signal(32)
        with m.Switch(self.source):
            with m.Case(Result.SHIFTED):
                m.d.comb += value.eq(short)
            with m.Case(Result.SQUARE):
                m.d.comb += value.eq(product)
            with m.Case(Result.EXP):
                m.d.comb += value.eq(Cat(rounded[:16], code))
            with m.Default():
                m.d.comb += value.eq(total)
        result, overflow = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            result.eq(Mux(self.live, value, Mux(self.low_fill, 1 << 31, 0))),
            overflow.eq(self.live & (self.source == Result.SUM) & (total[32] ^ total[31])),
        ]
        m.d.comb += [self.result.eq(result), self.overflow.eq(overflow)]
        return m
