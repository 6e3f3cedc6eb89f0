"""Sender's end of a link: credits by virtual channel, and the channel of every packet."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.noc.network import ChannelClass
from hwgen.rtl.bits import tree
from hwgen.rtl.link import CreditCounter


class LinkOutput(wiring.Component):
    """Chooses a packet's class, in it the channel with most credits, and keeps the packet there from first to last.

    Where unicast packets have two classes, a shift register that is the same in every sender draws one for each
    packet. All is combinational; a credit that comes back can be spent in the next cycle.

    Parameters: `classes` of channels (see `hwgen.noc.network`), `buffer_flits` (credits of a channel).

    Members
    -------
    first, multicast : the next flit is a packet's first; the packet goes to several nodes (looked at with `first`).
    channel, some, send : the next flit's channel; there is a credit in it; the flit leaves (only while `some`).
    credit : of the link. fault : as CreditCounter tells it, of any channel.
    """

    def __init__(self, *, classes: tuple[ChannelClass, ...], buffer_flits: int):
        self.classes, self.buffer_flits = classes, buffer_flits
        self.virtual_channels = sum(len(c.channels) for c in classes)
        super().__init__({
            "first": In(1), "multicast": In(1), "channel": Out(range(self.virtual_channels)), "some": Out(1),
            "send": In(1), "credit": In(self.virtual_channels), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        counters = [CreditCounter(credits=self.buffer_flits) for _ in range(self.virtual_channels)]
        for i, counter in enumerate(counters):
            m.submodules[f"credits{i}"] = counter
            m.d.comb += [counter.credit.eq(self.credit[i]), counter.send.eq(self.send & (self.channel == i))]
            with m.If(self.channel == i):
                m.d.comb += self.some.eq(counter.some)
        m.d.comb += self.fault.eq(Cat(counter.fault for counter in counters).any())
        if self.virtual_channels > 1:
            taken = Signal.like(self.channel)
            chosen = self._choice(m, counters)
            m.d.comb += self.channel.eq(Mux(self.first, chosen, taken))
            m.d.sync += taken.eq(self.channel)
        return m

    def _choice(self, m, counters):
        """The channel of a packet that begins now."""
        unicast = [self._emptiest(c.channels, counters) for c in self.classes if c.unicast]
        multicast = [self._emptiest(c.channels, counters) for c in self.classes if c.multicast and not c.unicast]
        chosen = unicast[0]
        if len(unicast) == 2:
            chosen = Mux(self._coin(m), *unicast)
        return Mux(self.multicast, multicast[0], chosen) if multicast else chosen

    def _coin(self, m):
        """A bit that changes as if by chance from packet to packet: x^7 + x^6 + 1."""
        register = Signal(7, init=1)
        with m.If(self.send & self.first):
            m.d.sync += register.eq(Cat(register[6] ^ register[5], register[:-1]))
        return register[6]

    @staticmethod
    def _emptiest(channels, counters):
        """Of some channels the one with most credits, the first of equals: counts are rows of ones."""
        def better(one, other):
            (a, ones), (b, others) = one, other
            more = (others & ~ones).any()
            return Mux(more, b, a), ones | others

        return tree(better, [(channel, counters[channel].more_than) for channel in channels])[0]
