"""The host port's network interface: messages of one or two words out, words of arriving packets in."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import KIND_BITS
from hwgen.noc.network import bits_for
from hwgen.rtl.link import Link
from hwgen.rtl.link_output import LinkOutput
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.packet_input import PacketInput
from hwgen.rtl.starts import stream_bits

KINDS = {"result": 0, "logits": 1, "last_logits": 2, "done": 3, "counters": 4}
"""Messages to the host, by the header's `addr`."""


class HostSender(wiring.Component):
    """Sends one message at a time into the network: to one tile, or the same to all.

    A message to all tiles is one multicast packet (two of one word each, `addr` counting the words, where the buffers
    hold no packet of two words) or, without multicast, a packet for each tile, row by row. One flit a cycle while
    there is credit; the first one a cycle after the message was taken.

    Parameters: `packet`, the network's format.

    Members
    -------
    valid: In(1), ready: Out(1)
        A message passes in the cycle in which both are high.
    to_all: In(1), x: In, y: In, ctr: In, addr: In
        Destination (x and y are ignored with `to_all`) and arrival counter.
    two: In(1), words: In(64)
        Two words instead of one; the first is in the low bits.
    link: Out(Link)
    """

    def __init__(self, *, packet: PacketFormat):
        self.packet = packet
        self.multicast = packet.multicast and packet.width * packet.height > 1
        super().__init__({
            "valid": In(1), "ready": Out(1), "to_all": In(1), "x": In(range(packet.width)),
            "y": In(range(packet.height)), "ctr": In(packet.counters.bits), "addr": In(packet.address_bits),
            "two": In(1), "words": In(64), "link": Out(Link(packet.flit_bits, packet.virtual_channels)),
        })

    def elaborate(self, platform):
        m = Module()
        packet, header_flits = self.packet, self.packet.header_flits
        m.submodules.channels = channels = LinkOutput(classes=packet.classes, buffer_flits=packet.buffer_flits)
        active = Signal()
        second = Signal()  # the second packet of a multicast whose two words had to be split
        held = {name: Signal.like(getattr(self, name), reset_less=True, name=f"held_{name}")
                for name in ("to_all", "x", "y", "ctr", "addr", "two", "words")}
        flit = Signal(range(header_flits + 2))
        two_flits, split, to_rectangle, leave = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            to_rectangle.eq(held["to_all"] & self.multicast),
            split.eq(to_rectangle & held["two"] & (packet.max_multicast_words == 1)),
            two_flits.eq(held["two"] & ~split & (packet.words_per_flit == 1)),
            leave.eq(active & channels.some),
            channels.first.eq(flit == 0), channels.multicast.eq(to_rectangle), channels.send.eq(leave),
            channels.credit.eq(self.link.credit),
            self.ready.eq(~active),
            self.link.valid.eq(leave),
            self.link.last.eq(flit == Mux(two_flits, header_flits + 1, header_flits)),
        ]
        if packet.virtual_channels > 1:
            m.d.comb += self.link.vc.eq(channels.channel)
        header = self._header(held, to_rectangle, two_flits, held["addr"] + second, split)
        words = held["words"]
        payload = words if packet.words_per_flit > 1 else Mux(second | (flit > header_flits), words[32:], words[:32])
        flits = [header[i * packet.flit_bits:(i + 1) * packet.flit_bits] for i in range(header_flits)]
        m.d.comb += self.link.data.eq(Array([*flits, payload, payload])[flit])

        with m.If(self.valid & self.ready):
            m.d.sync += [active.eq(1), second.eq(0), flit.eq(0)]
            m.d.sync += [held[name].eq(getattr(self, name)) for name in held]
            with m.If(self.to_all):
                m.d.sync += [held["x"].eq(0), held["y"].eq(0)]
        with m.If(leave):
            m.d.sync += flit.eq(flit + 1)
            with m.If(self.link.last):
                m.d.sync += flit.eq(0)
                self._next_packet(m, active, second, split, held)
        return m

    def _header(self, held, to_rectangle, two_flits, addr, split):
        packet = self.packet
        values = {
            "x0": held["x"], "x1": Mux(to_rectangle, packet.width - 1, held["x"]),
            "y0": held["y"], "y1": Mux(to_rectangle, packet.height - 1, held["y"]),
            "host": Const(0, 1), "flits": Mux(to_rectangle, packet.header_flits + two_flits, 0),
            "route": Const(0, 5), "ctr": held["ctr"], "last": held["two"] & ~split, "addr": addr,
        }
        return Cat(_fit(values[name], bits) for name, (_, bits) in packet.fields.items())

    def _next_packet(self, m, active, second, split, held):
        """After the last flit: the other half of a split message, the next tile, or the end."""
        packet = self.packet
        x, y = held["x"], held["y"]
        m.d.sync += active.eq(0)
        with m.If(split & ~second):
            m.d.sync += [active.eq(1), second.eq(1)]
        if not self.multicast:
            with m.If(held["to_all"] & ~((x == packet.width - 1) & (y == packet.height - 1))):
                m.d.sync += [active.eq(1), x.eq(x + 1)]
                with m.If(x == packet.width - 1):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]


class HostReceiver(wiring.Component):
    """Takes what arrives for the host, a word a cycle from the second cycle after a flit has come; it never blocks.

    Words of packets in different channels may mix.

    Parameters: `packet`, the network's format.

    Members
    -------
    link: In(Link)
    valid: Out(1), word: Out(32), index: Out(3), last: Out(1)
        A payload word, its number in the packet modulo 8, and whether it is the packet's last.
    before: Out(32)
        The word before it in the packet.
    kind: Out(3), stream: Out, overflow: Out(1), fault: Out(1)
        From the header of the packet the word belongs to: the address is kind + 8 * stream; `fault` is also
        high when an input buffer overflows.
    """

    def __init__(self, *, packet: PacketFormat):
        self.packet = packet
        super().__init__({
            "link": In(Link(packet.flit_bits, packet.virtual_channels)),
            "valid": Out(1), "word": Out(32), "before": Out(32), "index": Out(3), "last": Out(1),
            "kind": Out(KIND_BITS), "stream": Out(stream_bits(packet.streams)), "overflow": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        packet = self.packet
        m.submodules.flits = flits = PacketInput(packet=packet)
        wiring.connect(m, flits.link, wiring.flipped(self.link))
        number, before = flits.by_channel(3, "number"), flits.by_channel(32, "before")
        lane, flit_done = Signal(bits_for(packet.words_per_flit - 1)), Signal()
        m.d.comb += [
            flit_done.eq(lane == flits.words_less_one),
            flits.pop.eq(flits.valid & (~flits.payload | flit_done)),
            self.valid.eq(flits.valid & flits.payload),
            self.word.eq(flits.data.word_select(lane, 32)),
            self.before.eq(before),
            self.index.eq(number),
            self.last.eq(flits.last & flit_done),
            self.kind.eq(flits.addr), self.stream.eq(flits.addr[KIND_BITS:]),
            self.overflow.eq(self.valid & flits.ctr[0]),
            self.fault.eq((self.valid & flits.ctr[1]) | flits.overflow),
        ]
        with m.If(self.valid):
            m.d.sync += [lane.eq(Mux(flit_done, 0, lane + 1)), number.eq(number + 1), before.eq(self.word)]
        with m.Elif(flits.valid):
            m.d.sync += number.eq(0)
        return m


def _fit(value, bits):
    """`value` cut or extended to `bits` (which may be 0)."""
    return Cat(value, Const(0, bits))[:bits]
