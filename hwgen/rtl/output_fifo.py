"""FIFO control around an external synchronous memory, for the chip's output stream."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class OutputFifo(wiring.Component):
    """First in, first out, over a memory with one synchronous read and one write port outside the component.

    A word can be taken three cycles after it was put; one word a cycle. The memory's held read data is the output
    register, so the FIFO holds `depth` words and one more at the output.

    Members
    -------
    put: In(1), word: In(32)
        Stores a word; only allowed while `level` < depth.
    output: Out(stream of 32 bit)
    level: Out
        Words in the memory, without the one at the output.
    empty: Out(1)
        Nothing in the memory and nothing at the output.
    write_en, write_addr, write_data, read_en, read_addr, read_data
        The memory: read data one cycle after `read_en`, held while `read_en` is low.
    """

    def __init__(self, *, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"FIFO depth must be a power of two of at least 2, not {depth!r}")
        self.depth = depth
        address = range(depth)
        super().__init__(
            {
                "put": In(1), "word": In(32), "output": Out(stream.Signature(32)),
                "level": Out(range(depth + 1)), "empty": Out(1),
                "write_en": Out(1), "write_addr": Out(address), "write_data": Out(32),
                "read_en": Out(1), "read_addr": Out(address), "read_data": In(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        head, tail = Signal(range(self.depth)), Signal(range(self.depth))
        m.d.comb += [
            self.write_en.eq(self.put),
            self.write_addr.eq(tail),
            self.write_data.eq(self.word),
            self.read_en.eq((self.level != 0) & (~self.output.valid | self.output.ready)),
            self.read_addr.eq(head),
            self.output.payload.eq(self.read_data),
            self.empty.eq((self.level == 0) & ~self.output.valid),
        ]
        m.d.sync += [
            tail.eq(tail + self.put),
            head.eq(head + self.read_en),
            self.level.eq(self.level + self.put - self.read_en),
            self.output.valid.eq(self.read_en | (self.output.valid & ~self.output.ready)),
        ]
        return m
