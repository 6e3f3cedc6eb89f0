"""Address of a table row: base + index * stride, added bit by bit."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ADDRESS_BITS, STRIDE_BITS = 24, 16


class IndexedBase(wiring.Component):
    """base + index * stride modulo 2^24, two bits of the index a cycle.

    `ready` rises 1 + ceil(bit length of the index / 2) cycles after `start` and lasts until the next `start`.

    Parameters: `index_bits`.
    Members: `start` (one cycle) samples `base`, `stride` and `index`; `sum` is the result while `ready`.
    """

    def __init__(self, *, index_bits: int):
        if index_bits < 1:
            raise ValueError(f"Index width must be 1 or more, not {index_bits!r}")
        self.index_bits = index_bits
        super().__init__({
            "start": In(1), "base": In(ADDRESS_BITS), "stride": In(STRIDE_BITS), "index": In(index_bits),
            "ready": Out(1), "sum": Out(ADDRESS_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        stride, left = Signal(ADDRESS_BITS, reset_less=True), Signal(self.index_bits)
        total = Signal(ADDRESS_BITS, reset_less=True)
        m.d.comb += [self.ready.eq(left == 0), self.sum.eq(total)]
        m.d.sync += [
            left.eq(left >> 2),
            stride.eq(stride << 2),
            total.eq(total + Mux(left[0], stride, 0) + Mux(left[1], stride << 1, 0)),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.index), stride.eq(self.stride), total.eq(self.base)]
        return m
