"""Laws of the parts of a link's ends: the input buffer and the credit counter."""

from amaranth.hdl import Assert, Assume, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hwgen.rtl.flit_buffer import FlitBuffer
from hwgen.rtl.link import CreditCounter
from verify.link_watch import LinkWatch


class BufferLaws(wiring.Component):
    """An input buffer against a sender with credits: what comes out is what went in, each once, in order.

    One flit of any value that comes at any time is watched: after as many pops as flits were ahead of it, it is the
    head, unchanged.
    """

    def __init__(self, *, flit_bits: int, depth: int):
        self.flit_bits, self.depth = flit_bits, depth
        super().__init__({"valid": In(1), "flit": In(flit_bits + 1), "take": In(1), "pick": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = FlitBuffer(flit_bits=self.flit_bits, depth=self.depth)
        m.submodules.watch = watch = LinkWatch(credits=self.depth)
        m.d.comb += [
            buffer.w_valid.eq(self.valid), buffer.w_data.eq(self.flit[:-1]), buffer.w_last.eq(self.flit[-1]),
            buffer.pop.eq(self.take & buffer.r_valid), watch.valid.eq(self.valid), watch.credit.eq(buffer.pop),
        ]
        watched, ahead, kept = Signal(), Signal(range(self.depth + 1)), Signal(self.flit_bits + 1)
        with m.If(~watched & self.pick & self.valid):
            m.d.sync += [watched.eq(1), kept.eq(self.flit), ahead.eq(watch.held - buffer.pop)]
        with m.Elif(watched & buffer.pop):
            m.d.sync += [ahead.eq(ahead - 1), watched.eq(ahead != 0)]
        found = (buffer.r_data == kept[:-1]) & (buffer.r_last == kept[-1])
        m.d.comb += Assume(ResetSignal() | watch.sender)
        m.d.sync += [
            Assert(ResetSignal() | ~watched | (ahead != 0) | (buffer.r_valid & found), "the watched flit is lost"),
            Assert(ResetSignal() | (buffer.r_valid == (watch.held != 0)), "the buffer holds another number of flits"),
            Assert(ResetSignal() | ~buffer.overflow, "the buffer overflows"),
        ]
        return m


class CreditLaws(wiring.Component):
    """A credit counter against a receiver that gives back what it has: the count is always exact."""

    def __init__(self, *, credits: int):
        self.credits = credits
        super().__init__({"send": In(1), "credit": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.counter = counter = CreditCounter(credits=self.credits)
        m.submodules.watch = watch = LinkWatch(credits=self.credits)
        m.d.comb += [
            counter.send.eq(self.send & counter.some), counter.credit.eq(self.credit),
            watch.valid.eq(counter.send), watch.credit.eq(self.credit),
        ]
        m.d.comb += Assume(ResetSignal() | watch.receiver)
        exact = [counter.more_than[k] == (self.credits - watch.held > k) for k in range(self.credits)]
        for law in exact:
            m.d.sync += Assert(ResetSignal() | law, "the count of credits is wrong")
        m.d.sync += [
            Assert(ResetSignal() | watch.sender, "a flit is sent without a credit"),
            Assert(ResetSignal() | ~counter.fault, "the counter sees a credit too many"),
        ]
        return m
