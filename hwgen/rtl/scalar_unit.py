"""Scalar registers of the vector unit, and the finish of reductions that fill them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import SCALAR_REGISTERS
from hwgen.rtl.bits import bit_length
from hwgen.rtl.function_table import FRACTION_BITS, SCALAR_ROWS, FunctionTable
from hwgen.rtl.vector_reducer import TOTAL_BITS

REGISTER = data.StructLayout({"mantissa": signed(32), "exponent": 8})
_MAGNITUDE = 15
"""MAXABS: magnitudes of more bits are shifted to this many before they are squared."""
_EXPONENT = 16
"""Exponent of the inverse (root) of 1 with mantissas of 16 bit."""


class ScalarUnit(wiring.Component):
    """Eight registers (mantissa, exponent), the logarithm of MAXABS, and the tables behind SUMSQ and EXP.

    Members
    -------
    read: In(3), value: Out(REGISTER)
        Combinational.
    target: In(3)
        Register of the request in this cycle.
    put_maximum, put_bits: In(1), maximum: In(signed(32)), bits: In(32)
        Writes (maximum, 0) or (0, k) at the end of the cycle.
    put_inverse, is_root: In(1), total: In(48), k: In(8), id: In(2)
        Starts (mantissa, exponent) of total^-1, or of total^-1/2 with k added to the exponent; a total of 0 counts as
        1. The register is written at the end of the cycle of `done`, 3 cycles later; one request a cycle.
    done: Out(1), done_id: Out(2)
    """

    def __init__(self):
        super().__init__({
            "read": In(3), "value": Out(REGISTER), "target": In(3),
            "put_maximum": In(1), "put_bits": In(1), "maximum": In(signed(32)), "bits": In(32),
            "put_inverse": In(1), "is_root": In(1), "total": In(TOTAL_BITS), "k": In(8), "id": In(2),
            "done": Out(1), "done_id": Out(2),
        })

    def elaborate(self, platform):
        m = Module()
        registers = [Signal(REGISTER, name=f"register_{i}", reset_less=True) for i in range(SCALAR_REGISTERS)]
        with m.Switch(self.read):
            for i, register in enumerate(registers):
                with m.Case(i):
                    m.d.comb += self.value.eq(register)
        mantissa, exponent, target = self._inverse(m)
        length = bit_length(self.bits[_MAGNITUDE:])
        for i, register in enumerate(registers):
            with m.If(self.done & (target == i)):
                m.d.sync += [register.mantissa.eq(mantissa), register.exponent.eq(exponent)]
            with m.If(self.put_maximum & (self.target == i)):
                m.d.sync += [register.mantissa.eq(self.maximum), register.exponent.eq(0)]
            with m.If(self.put_bits & (self.target == i)):
                m.d.sync += [register.mantissa.eq(0), register.exponent.eq(length)]
        return m

    def _inverse(self, m):
        """Four stages: shift by 32, 16, 8; shift by 4, 2, 1 and scale; look up; interpolate and write."""
        coarse, coarse_top = _normalised(m, self.total, TOTAL_BITS - 1, (32, 16, 8))
        total, top = Signal(TOTAL_BITS, reset_less=True), Signal(6, reset_less=True)
        m.d.sync += [total.eq(coarse), top.eq(coarse_top)]
        fine, fine_top = _normalised(m, total, top, (4, 2, 1))
        valid, target, done_id, k, is_root = self.put_inverse, self.target, self.id, self.k, self.is_root
        kept = []
        for i in range(3):
            later = [Signal(name=f"valid_{i}")] + [
                Signal(width, name=f"{name}_{i}", reset_less=True)
                for name, width in (("target", 3), ("id", 2), ("k", 8), ("is_root", 1))
            ]
            m.d.sync += [a.eq(b) for a, b in zip(later, (valid, target, done_id, k, is_root), strict=True)]
            valid, target, done_id, k, is_root = later
            kept.append(later)
        exponents = [Signal(8, name=f"exponent_{i}", reset_less=True) for i in range(2)]
        *_, k, is_root = kept[0]
        bits = fine[TOTAL_BITS - 16 : TOTAL_BITS - 1]
        index = Signal(16, reset_less=True)
        m.d.sync += [
            exponents[0].eq(_EXPONENT + Mux(is_root, (fine_top >> 1) + k, fine_top)),
            index.eq(Mux(is_root, Cat(bits[1:], fine_top[0], 0), Cat(bits, 1))),
            exponents[1].eq(exponents[0]),
        ]
        m.submodules.table = table = FunctionTable(rows=SCALAR_ROWS)
        m.d.comb += [
            table.fraction.eq(index[:FRACTION_BITS]), table.row.eq(index[FRACTION_BITS:]),
            self.done.eq(kept[2][0]), self.done_id.eq(kept[2][2]),
        ]
        return table.value, exponents[1], kept[2][1]


def _normalised(m, value, top, steps):
    """`value` shifted left while its upper bits are zero, and `top` lowered by as much."""
    half_gone = Const(0)
    for step in steps:
        empty = Signal(name=f"empty_{step}")
        moved, lowered = Signal(len(value), name=f"moved_{step}"), Signal(6, name=f"top_{step}")
        # of 48 bits, 32 + 16 would leave nothing: so a value of 0 ends at top = 0 too
        allowed = ~half_gone if step == 16 else Const(1)
        m.d.comb += [
            empty.eq(~value[len(value) - step :].any() & allowed),
            moved.eq(Mux(empty, value << step, value)), lowered.eq(Mux(empty, top - step, top)),
        ]
        half_gone, value, top = empty, moved, lowered
    return value, top
