"""Reads a span of vector memory and hands it out flit by flit."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.packet import check_flit_bits, check_lanes


class RowReader(wiring.Component):
    """Span of n words from a row start, as flits in order.

    A flit is ready in the cycle after its last row was read and one can be taken every cycle, where a row has the
    words of a flit or more; else one in the cycles its rows take. Reads at most one flit ahead. Whole
    flits are read: where a flit needs several rows, up to all of them, even if the span ends before.

    Parameters: `flit_bits`, `lanes` (words a row), `row_bits` (of a row address).

    Members
    -------
    start, row, less_one : begin with n - 1 = `less_one` words at `row`, while idle or in the cycle of the last `take`.
    flit, ready, take : the next flit; `last_flit` tells with `take` that the rest of its row is not wanted.
    r_en, r_addr, r_ready, r_data : read port; the row is on `r_data` in the cycle after `r_en & r_ready` only.
    complete : pulses in the cycle after the last row was read.
    """

    def __init__(self, *, flit_bits: int, lanes: int, row_bits: int):
        check_flit_bits(flit_bits)
        check_lanes(lanes)
        self.flit_bits, self.lanes, self.row_bits = flit_bits, lanes, row_bits
        super().__init__({
            "start": In(1), "row": In(row_bits), "less_one": In(16),
            "flit": Out(flit_bits), "ready": Out(1), "take": In(1), "last_flit": In(1),
            "r_en": Out(1), "r_addr": Out(row_bits), "r_ready": In(1), "r_data": In(32 * lanes), "complete": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        words = self.flit_bits // 32
        group, parts = max(1, words // self.lanes), max(1, self.lanes // words)
        fetching, granted, fresh, finish = Signal(), Signal(), Signal(), Signal()
        rows_left = Signal(16, reset_less=True)
        issued = Signal(range(group + 1))
        part = Signal(range(parts))
        m.d.comb += [
            self.ready.eq(issued == group),
            finish.eq(self.take & ((part == parts - 1) | self.last_flit)),
            self.r_en.eq(fetching & (~self.ready | finish)),
            granted.eq(self.r_en & self.r_ready),
        ]
        m.d.sync += [
            fresh.eq(granted), issued.eq(Mux(finish, 0, issued) + granted),
            self.complete.eq(granted & (rows_left == 0)),
        ]
        with m.If(self.take):
            m.d.sync += part.eq(Mux(finish, 0, part + 1))
        with m.If(granted):
            m.d.sync += [self.r_addr.eq(self.r_addr + 1), rows_left.eq(rows_left - 1), fetching.eq(rows_left != 0)]
        with m.If(self.start):
            span = self.less_one >> max(words, self.lanes).bit_length() - 1
            m.d.sync += [
                fetching.eq(1), self.r_addr.eq(self.row), part.eq(0),
                rows_left.eq((span << group.bit_length() - 1) | group - 1),
            ]
        held = [Signal(32 * self.lanes, reset_less=True, name=f"held{i}") for i in range(group)]
        for i, row in enumerate(held):
            with m.If(fresh & (issued == i + 1)):
                m.d.sync += row.eq(self.r_data)
        newest = Mux(fresh, self.r_data, held[-1])
        m.d.comb += self.flit.eq(Cat(*held[:-1], newest).word_select(part, self.flit_bits))
        return m
