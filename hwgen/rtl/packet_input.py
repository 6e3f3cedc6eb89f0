"""Receiver's end of a link: a buffer for each virtual channel, and one flit at a time with what its header says."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.bits import or_tree
from hwgen.rtl.flit_buffer import FlitBuffer, one_hot_mux
from hwgen.rtl.link import Link
from hwgen.rtl.packet import PacketFormat


class PacketInput(wiring.Component):
    """Offers the flits of a link in turn: one stays until it is popped, then the next channel that has one follows.

    A flit that comes in one cycle is offered in the next at the earliest. Flits of one channel stay in order; those of
    packets in several channels mix. What a header says is kept for each channel.

    Parameters: `packet`, the network's format.

    Members
    -------
    link : from the router.
    valid, data, last, pop : the flit offered; `pop` removes it (only while `valid`).
    channel : its virtual channel.
    payload : it is not a header flit. Then hold:
    ctr, addr, words_less_one : fields of its packet's header; words in the flit, less one.
    advance : with `pop` of a payload flit, `addr` of the packet grows by a flit's words.
    overflow : pulses in the cycle after a flit came into a full buffer.
    """

    def __init__(self, *, packet: PacketFormat):
        self.packet = packet
        super().__init__({
            "link": In(Link(packet.flit_bits, packet.virtual_channels)),
            "valid": Out(1), "data": Out(packet.flit_bits), "last": Out(1), "pop": In(1),
            "channel": Out(range(packet.virtual_channels)), "payload": Out(1),
            "ctr": Out(packet.counters.bits), "addr": Out(packet.address_bits),
            "words_less_one": Out(range(packet.words_per_flit)), "advance": In(1), "overflow": Out(1),
        })

    def by_channel(self, shape, name: str, *, reset_less: bool = True):
        """A register for each channel; read and written is that of the channel whose flit is offered."""
        registers = [Signal(shape, reset_less=reset_less, name=f"{name}{i}")
                     for i in range(self.packet.virtual_channels)]
        return Array(registers)[self.channel] if len(registers) > 1 else registers[0]

    def elaborate(self, platform):
        m = Module()
        packet = self.packet
        buffers = [FlitBuffer(flit_bits=packet.flit_bits, depth=packet.buffer_flits)
                   for _ in range(packet.virtual_channels)]
        chosen = self._turns(m, [buffer.r_valid for buffer in buffers])
        for i, buffer in enumerate(buffers):
            m.submodules[f"buffer{i}"] = buffer
            here = self.link.vc == i if packet.virtual_channels > 1 else 1
            m.d.comb += [
                buffer.w_valid.eq(self.link.valid & here), buffer.w_data.eq(self.link.data),
                buffer.w_last.eq(self.link.last), buffer.pop.eq(self.pop & chosen[i]),
            ]
        heads = [Cat(buffer.r_data, buffer.r_last) for buffer in buffers]
        numbers = [Const(i, len(self.channel)) for i in range(packet.virtual_channels)]
        m.d.comb += [
            Cat(self.data, self.last).eq(one_hot_mux(chosen, heads)), self.channel.eq(one_hot_mux(chosen, numbers)),
            self.link.credit.eq(Cat(buffer.pop for buffer in buffers)),
            self.valid.eq(or_tree(buffer.r_valid for buffer in buffers)),
            self.overflow.eq(or_tree(buffer.overflow for buffer in buffers)),
        ]
        self._read_headers(m)
        return m

    def _read_headers(self, m):
        packet = self.packet
        place = self.by_channel(range(packet.header_flits + 1), "place", reset_less=False)
        ctr, last, addr = (self.by_channel(packet.fields[name][1], name) for name in ("ctr", "last", "addr"))
        header = self.data
        if packet.header_flits == 2:
            first = self.by_channel(packet.flit_bits, "first")
            header = Cat(first, self.data)
        m.d.comb += [
            self.payload.eq(place == packet.header_flits), self.ctr.eq(ctr), self.addr.eq(addr),
            self.words_less_one.eq(Mux(self.last, last, packet.words_per_flit - 1)),
        ]
        with m.If(self.pop & self.payload):
            with m.If(self.last):
                m.d.sync += place.eq(0)
            with m.If(self.advance):
                m.d.sync += addr.eq(addr + packet.words_per_flit)
        with m.If(self.pop & ~self.payload):
            m.d.sync += place.eq(place + 1)
            if packet.header_flits == 2:
                m.d.sync += first.eq(self.data)
            for name, target in (("ctr", ctr), ("last", last), ("addr", addr)):
                at, bits = packet.fields[name]
                m.d.sync += target.eq(header[at:at + bits])

    def _turns(self, m, waiting):
        """A bit for each channel: whether its flit is offered."""
        count = self.packet.virtual_channels
        if count == 1:
            return [1]
        turn, chosen = Signal(count, init=1), Signal(count)
        for i in range(count):
            ahead = [turn[t] & or_tree(waiting[(t + step) % count] for step in range((i - t) % count))
                     for t in range(count) if t != i]
            m.d.comb += chosen[i].eq(waiting[i] & ~or_tree(ahead))
        with m.If(self.valid):
            m.d.sync += turn.eq(chosen)
        with m.If(self.pop):
            m.d.sync += turn.eq(chosen.rotate_left(1))
        return list(chosen)
