"""Queue of the matrix unit's results: gives out credits for rows and adds addresses on the way out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import VMEM_BITS
from hwgen.rtl.starts import push_bits


def result_layout(streams: int) -> data.StructLayout:
    """A word for vector memory; `last` of its instruction, which then tells `push` that it is complete."""
    return data.StructLayout({"data": 32, "addr": VMEM_BITS, "last": 1, "push": push_bits(streams)})


def destination_layout(streams: int) -> data.StructLayout:
    """Where an instruction's results go, and whom it tells."""
    return data.StructLayout({"dst": VMEM_BITS, "push": push_bits(streams)})


class ResultQueue(wiring.Component):
    """Holds up to `depth` results and the destinations of up to `instructions` instructions.

    Parameters: `depth` (1 or more): one credit each; `instructions` (1 or more), `streams` in flight.

    Members
    -------
    start: In(stream of destination_layout)
        Every instruction, before its first result.
    credit: Out(1), take: In(1)
        Room for one more row; a row has set out (only with `credit`). A credit returns in the cycle in which its
        result leaves: `credit` depends combinationally on `result.ready`.
    put: In(1), data: In(32), last: In(1)
        A result, of a row that has set out; it is the last of its instruction.
    result: Out(stream of result_layout)
        In order, one cycle after `put` at the earliest; addr = dst + index of the row.
    """

    def __init__(self, *, depth: int, instructions: int, streams: int = 1):
        if depth < 1 or instructions < 1:
            raise ValueError(f"Depths must be 1 or more, not {depth!r} and {instructions!r}")
        self.depth, self.instructions = depth, instructions
        self._destination = destination_layout(streams)
        super().__init__({
            "start": In(stream.Signature(self._destination)), "credit": Out(1), "take": In(1),
            "put": In(1), "data": In(32), "last": In(1), "result": Out(stream.Signature(result_layout(streams))),
        })

    def elaborate(self, platform):
        m = Module()
        leave = Signal()
        m.d.comb += leave.eq(self.result.valid & self.result.ready)
        self._credits(m, leave)
        data, last = self._results(m, leave)
        head = self._destinations(m, leave, last)
        m.d.comb += [
            self.result.p.data.eq(data), self.result.p.last.eq(last),
            self.result.p.addr.eq(head.dst), self.result.p.push.eq(head.push),
        ]
        return m

    def _credits(self, m, leave):
        credits = Signal(range(self.depth + 1), init=self.depth)
        m.d.comb += self.credit.eq((credits != 0) | leave)
        with m.If(self.take & ~leave):
            m.d.sync += credits.eq(credits - 1)
        with m.If(leave & ~self.take):
            m.d.sync += credits.eq(credits + 1)

    def _results(self, m, leave):
        """A ring of registers; both places are one-hot."""
        write, read = Signal(self.depth, init=1), Signal(self.depth, init=1)
        count = Signal(range(self.depth + 1))
        words = [Signal(33, reset_less=True, name=f"word_{i}") for i in range(self.depth)]
        m.d.sync += count.eq(count + self.put - leave)
        m.d.comb += self.result.valid.eq(count != 0)
        with m.If(self.put):
            m.d.sync += write.eq(write.rotate_left(1))
        with m.If(leave):
            m.d.sync += read.eq(read.rotate_left(1))
        for i, word in enumerate(words):
            with m.If(self.put & write[i]):
                m.d.sync += word.eq(Cat(self.data, self.last))
        shown = 0
        for i, word in enumerate(words):
            shown = shown | (word & read[i].replicate(33))
        return shown[:32], shown[32]

    def _destinations(self, m, leave, last):
        """A shift queue whose head counts its address up."""
        entries = [Signal(self._destination, reset_less=True, name=f"entry_{i}") for i in range(self.instructions)]
        used = Signal(self.instructions + 1, init=1)  # one-hot count
        finish, accept = Signal(), Signal()
        m.d.comb += [
            self.start.ready.eq(~used[-1]), accept.eq(self.start.valid & self.start.ready),
            finish.eq(leave & last),
        ]
        with m.If(accept & ~finish):
            m.d.sync += used.eq(used << 1)
        with m.If(finish & ~accept):
            m.d.sync += used.eq(used >> 1)
        with m.If(leave):
            m.d.sync += entries[0].dst.eq(entries[0].dst + 1)
        for i, entry in enumerate(entries):
            with m.If(finish & (i + 1 < self.instructions)):
                m.d.sync += entry.eq(entries[min(i + 1, self.instructions - 1)])
            with m.If(accept & Mux(finish, used[i + 1], used[i])):
                m.d.sync += entry.eq(self.start.payload)
        return entries[0]
