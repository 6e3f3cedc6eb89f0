"""Collects the matrix unit's results into rows of the vector memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hwgen.isa import VMEM_BITS
from hwgen.rtl.result_queue import result_layout
from hwgen.rtl.starts import push_bits

LANES = (1, 2, 4, 8, 16)


class RowWriter(wiring.Component):
    """Writes a row once its last lane or the instruction's last result has come; one result a cycle while granted.

    A row is offered one cycle after the result that completes it; meanwhile the next result is taken if the row is
    granted. Results of an instruction have consecutive addresses, so that a row never ends otherwise.

    Parameters: `lanes` (1, 2, 4, 8, 16), words of a row; `streams` in flight.

    Members
    -------
    result: In(stream of result_layout)
    w_en: Out(1), w_addr: Out(20 - log2 lanes), w_data: Out(32 * lanes), w_mask: Out(lanes)
        Write request, held until granted; row address; words that are written.
    w_ready: In(1)
        The request is granted: the memory takes it this cycle.
    done: Out(push_bits)
        The instruction's `push`, for one cycle, one cycle after the grant of its last row.
    """

    def __init__(self, *, lanes: int, streams: int = 1):
        if lanes not in LANES:
            raise ValueError(f"Lanes must be 1, 2, 4, 8 or 16, not {lanes!r}")
        self.lanes, self._push_bits = lanes, push_bits(streams)
        super().__init__({
            "result": In(stream.Signature(result_layout(streams))),
            "w_en": Out(1), "w_addr": Out(VMEM_BITS - exact_log2(lanes)), "w_data": Out(32 * lanes),
            "w_mask": Out(lanes), "w_ready": In(1), "done": Out(self._push_bits),
        })

    def elaborate(self, platform):
        m = Module()
        result, depth = self.result.payload, exact_log2(self.lanes)
        complete, push, mask = Signal(), Signal(self._push_bits, reset_less=True), Signal(self.lanes)
        row = Signal(VMEM_BITS - depth, reset_less=True)
        words = [Signal(32, reset_less=True, name=f"word_{i}") for i in range(self.lanes)]
        here = Signal(self.lanes)
        granted, accept = Signal(), Signal()
        m.d.comb += [
            self.w_en.eq(complete), self.w_addr.eq(row), self.w_data.eq(Cat(words)), self.w_mask.eq(mask),
            granted.eq(complete & self.w_ready), self.result.ready.eq(~complete | self.w_ready),
            accept.eq(self.result.valid & self.result.ready), here.eq(1 << result.addr[:depth]),
        ]
        done = Signal(self._push_bits)
        m.d.sync += done.eq(push & granted.replicate(len(push)))
        m.d.comb += self.done.eq(done)
        with m.If(granted):
            m.d.sync += [complete.eq(0), mask.eq(0)]
        with m.If(accept):
            m.d.sync += [
                complete.eq(result.last | here[-1]), mask.eq(Mux(complete, 0, mask) | here),
                row.eq(result.addr[depth:]), push.eq(result.push & result.last.replicate(len(push))),
            ]
            for lane, word in enumerate(words):
                with m.If(here[lane]):
                    m.d.sync += word.eq(result.data)
        return m
