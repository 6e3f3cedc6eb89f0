"""Function tables with linear interpolation, as constant logic."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hwgen.arithmetic import tables

FRACTION_BITS = 10
BASE_BITS, STEP_BITS = 17, 14
_BEYOND = 64
"""First row of the sigmoid's tail in `ELEMENT_ROWS`."""
_TAIL = 6


def _rows(table):
    return tuple(zip(table.base, table.step, strict=True))


ELEMENT_ROWS = (
    _rows(tables.EXP2) + _rows(tables.SIGMOID) + tuple((65536 - (tables.SIGMOID_TAIL >> i), 0) for i in range(_TAIL))
)
"""exp2 (rows 0..31), sigmoid of 0..8 (32..63), its tail by whole number (64: 8, ..., 69: 13 and more)."""

SCALAR_ROWS = _rows(tables.RSQRT) + _rows(tables.RECIPROCAL)
"""rsqrt (rows 0..31), reciprocal (32..63)."""


class FunctionTable(wiring.Component):
    """base + round_half_up(step * fraction, 10) of a table row. Latency 1 cycle, one look-up a cycle.

    The row is looked up in the first cycle; `value` is combinational from registers in the second.

    Parameters: `rows`, pairs (base, step) of integers.
    Members: `row`, `fraction` (10 bit) in; `value` (17 bit unsigned) out.
    """

    def __init__(self, *, rows: tuple[tuple[int, int], ...]):
        for base, step in rows:
            if not (0 <= base < 1 << BASE_BITS and -(1 << STEP_BITS - 1) <= step < 1 << STEP_BITS - 1):
                rule = f"{BASE_BITS}-bit base and {STEP_BITS}-bit step"
                raise ValueError(f"Table row must be {rule}, not {(base, step)!r}")
        self.rows = rows
        super().__init__({"row": In(bits_for(len(rows) - 1)), "fraction": In(FRACTION_BITS), "value": Out(BASE_BITS)})

    def elaborate(self, platform):
        m = Module()
        base, step = Signal(BASE_BITS, reset_less=True), Signal(signed(STEP_BITS), reset_less=True)
        fraction = Signal(FRACTION_BITS, reset_less=True)
        m.d.sync += fraction.eq(self.fraction)
        # a tree of two-way choices: simulators run a wide parallel case far slower
        entries = [Const(b | (s & (1 << STEP_BITS) - 1) << BASE_BITS, BASE_BITS + STEP_BITS) for b, s in self.rows]
        m.d.sync += Cat(base, step).eq(_choose(entries, self.row))
        product = Signal(signed(STEP_BITS + FRACTION_BITS + 1))
        m.d.comb += [
            product.eq(step * fraction + (1 << FRACTION_BITS - 1)),
            self.value.eq(base + (product >> FRACTION_BITS)),
        ]
        return m


def _choose(entries, index):
    """entries[index] by halves; an index beyond the entries gives any of them."""
    for bit in index:
        entries = [Mux(bit, *reversed(pair)) if len(pair) == 2 else pair[0]
                   for pair in (entries[i : i + 2] for i in range(0, len(entries), 2))]
    return entries[0]


def exp2_index(distance):
    """(row, fraction, whole) for 2^-(distance / 4096) of an unsigned 32-bit distance; shifts of 31 stand for more."""
    whole = Mux(distance[17:].any(), 31, distance[12:17])
    return distance[7:12], distance[:7] << FRACTION_BITS - 7, whole


def sigmoid_index(size):
    """(row, fraction) for sigmoid of an unsigned 32-bit Q19.12 `size`."""
    far = size[16:].any() | (size[12:16] >= 8 + _TAIL - 1)
    tail = Mux(far, _TAIL - 1, size[12:15])
    return Mux(size[15:].any(), _BEYOND + tail, SIGMOID_FIRST + size[10:15]), size[:FRACTION_BITS]


SIGMOID_FIRST = 32
