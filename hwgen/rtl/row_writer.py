"""Collector of the matrix unit's results into rows of the vector memory."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

RESULT = StructLayout({"data": 32, "addr": 16, "last": 1, "push": 3})


class RowWriter(wiring.Component):
    """Result words, gathered into memory rows.

    Takes one word a cycle as long as writes are granted at least once every `lanes` words. A row is written when it is
    complete, when the next word lies in another row, or after the last word of an instruction; at the earliest two
    cycles after its last word.

    Parameters
    ----------
    lanes : words of 32 bits in a memory row: 1, 2, 4, 8 or 16.

    Members
    -------
    result : stream of words; `addr` is a word address.
    w_en, w_addr (row), w_data, w_mask (a bit a word) : write request, held until `w_ready`.
    done : push bits of an instruction, in the cycle that writes its last row.
    """

    def __init__(self, *, lanes: int):
        if lanes not in (1, 2, 4, 8, 16):
            raise ValueError(f"Lanes must be 1, 2, 4, 8 or 16, not {lanes!r}")
        self.lanes = lanes
        super().__init__({
            "result": In(stream.Signature(RESULT)),
            "w_en": Out(1), "w_addr": Out(16), "w_data": Out(32 * lanes), "w_mask": Out(lanes), "w_ready": In(1),
            "done": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        lane_bits = (self.lanes - 1).bit_length()
        row, lane = self.result.p.addr[lane_bits:], self.result.p.addr[:lane_bits]

        words = Array(Signal(32, name=f"word{i}", reset_less=True) for i in range(self.lanes))
        mask = Signal(self.lanes)
        open_row = Signal(16, reset_less=True)
        held, closed, last = Signal(), Signal(), Signal()
        push, out_push, out_last = Signal(3), Signal(3), Signal()

        leave, enter = Signal(), Signal()
        free = ~self.w_en | self.w_ready
        m.d.comb += [
            leave.eq(held & free & (closed | (self.result.valid & (row != open_row)))),
            self.result.ready.eq(~held | leave | (~closed & (row == open_row))),
            enter.eq(self.result.valid & self.result.ready),
            self.done.eq(out_push & (self.w_en & self.w_ready & out_last).replicate(3)),
        ]
        with m.If(self.w_ready):
            m.d.sync += self.w_en.eq(0)
        with m.If(leave):
            m.d.sync += [
                self.w_en.eq(1), self.w_addr.eq(open_row), self.w_data.eq(Cat(*words)), self.w_mask.eq(mask),
                out_push.eq(push), out_last.eq(last), held.eq(0), closed.eq(0), last.eq(0),
            ]
        with m.If(enter):
            fresh = ~held | leave
            here = Signal(self.lanes)
            m.d.comb += here.eq(1 << lane if lane_bits else 1)
            m.d.sync += [
                words[lane if lane_bits else 0].eq(self.result.p.data), open_row.eq(row), held.eq(1),
                mask.eq(here | (mask & ~fresh.replicate(self.lanes))), last.eq(self.result.p.last),
                push.eq(self.result.p.push), closed.eq(self.result.p.last | here[self.lanes - 1]),
            ]
        return m
