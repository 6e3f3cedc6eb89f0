"""Link between two routers, or a router and what hangs on it, and the credit count its sender keeps."""

from amaranth.hdl import Assert, Cat, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.noc.network import bits_for
from hwgen.rtl.flit_count import FlitCount
from hwgen.rtl.packet import check_flit_bits, check_virtual_channels


class Link(wiring.Signature):
    """One direction of a link, seen from the sender.

    A flit passes in every cycle with `valid`; there is no ready. `last` marks the last flit of a packet. With several
    virtual channels `vc` is the number of the flit's channel; flits of packets in different channels may mix. The
    receiver has a buffer for each channel and answers with one cycle of the channel's bit of `credit` for each flit
    that has left its buffer; the sender starts with as many credits of each channel as a buffer has flits and sends
    only while it has one.

    Parameters: `flit_bits`, `virtual_channels`.
    """

    def __init__(self, flit_bits: int, virtual_channels: int = 1):
        check_flit_bits(flit_bits)
        check_virtual_channels(virtual_channels)
        self.flit_bits, self.virtual_channels = flit_bits, virtual_channels
        channel = {"vc": Out(bits_for(virtual_channels - 1))} if virtual_channels > 1 else {}
        super().__init__({
            "valid": Out(1), "data": Out(flit_bits), "last": Out(1), **channel, "credit": In(virtual_channels),
        })


class LinkRegister(wiring.Component):
    """A stage of registers on a link: flits and credits each take a cycle more, none is lost.

    Between two buffers a credit comes back two cycles after its flit was sent, and two more for each stage. Buffers
    of 2 + 2 * stages flits let a packet pass without a bubble; with fewer, all still arrives.

    Parameters: `flit_bits`, `virtual_channels`. Members: `source` from the sender, `sink` to the receiver.
    """

    def __init__(self, *, flit_bits: int, virtual_channels: int = 1):
        self.flit_bits, self.virtual_channels = flit_bits, virtual_channels
        link = Link(flit_bits, virtual_channels)
        super().__init__({"source": In(link), "sink": Out(link)})

    def elaborate(self, platform):
        m = Module()
        channel = {"vc"} if self.virtual_channels > 1 else set()
        for name in ("data", "last", *channel):
            register = Signal.like(getattr(self.source, name), name=f"next_{name}", reset_less=True)
            m.d.sync += register.eq(getattr(self.source, name))
            m.d.comb += getattr(self.sink, name).eq(register)
        m.d.sync += [self.sink.valid.eq(self.source.valid), self.source.credit.eq(self.sink.credit)]
        return m


class CreditCounter(wiring.Component):
    """Credits of one link. A credit that comes back can be spent in the next cycle.

    Parameters: `credits`, the receiver's buffer depth in flits.
    Members: `send` (only while `some`) and `credit` take one off and add one; `more_than` has bit k set while there are
    more than k credits; `some` is its bit 0; `fault` is high from the cycle after a credit came back that was not out,
    until the count is right again.
    """

    def __init__(self, *, credits: int):
        if credits < 1:
            raise ValueError(f"Credits must be 1 or more, not {credits!r}")
        self.credits = credits
        super().__init__({
            "send": In(1), "credit": In(1), "more_than": Out(credits), "some": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.count = count = FlitCount(limit=self.credits + 1, first=self.credits)
        m.d.comb += [
            count.less.eq(self.send), count.more.eq(self.credit), self.some.eq(count.any),
            Cat(self.more_than, self.fault).eq(count.more_than),
        ]
        m.d.sync += Assert(ResetSignal() | ~self.send | self.some, "a flit is sent without a credit")
        return m
