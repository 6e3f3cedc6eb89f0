"""Router of a mesh: 1, 2 or 4 virtual channels, five routings, wormhole unicast, cut-through multicast."""

from collections.abc import Mapping
from itertools import chain, combinations

from amaranth.hdl import Assert, Cat, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.noc.network import channel_classes
from hwgen.noc.routes import OPPOSITE
from hwgen.noc.turns import PORTS, SIDES, turns
from hwgen.rtl.flit_buffer import FlitBuffer, one_hot_mux
from hwgen.rtl.head_routes import HeadRoutes
from hwgen.rtl.input_channel import InputChannel
from hwgen.rtl.link import Link
from hwgen.rtl.output_channels import OutputChannels
from hwgen.rtl.packet import check_buffer_flits, check_flit_bits, check_mesh, routing_fields
from hwgen.rtl.service_order import ServiceOrder


def encoded(bits):
    """Number of the bit that is set; 0 if none is."""
    return Cat(Cat(bit for n, bit in enumerate(bits) if n >> k & 1).any() for k in range((len(bits) - 1).bit_length()))


def _port_flits(least, depths):
    """Port -> depth of its buffers. Raises ValueError for a port that no router has, or that is less deep."""
    for port, depth in depths.items():
        if port not in PORTS:
            raise ValueError(f"Port must be {', '.join(PORTS[:-1])} or {PORTS[-1]}, not {port!r}")
        if not isinstance(depth, int) or not least <= depth <= 16:
            raise ValueError(f"Buffer depth of a port must be {least} to 16 flits, not {depth!r}")
    return {port: depths.get(port, least) for port in PORTS}


class Router(wiring.Component):
    """Router of a mesh node. y grows south: the north neighbour is (x, y - 1).

    A flit that arrives in one cycle leaves in the next; packets of one flit or more follow each other without a
    bubble, from the same input or from another. In each cycle an input sends one flit, of one of its channels, and an
    output takes one. A packet gets a free channel of its class at every output, the one with most credits, and keeps it
    from its first to its last flit. Where several may go, the channel of an input and then the input served least
    recently goes first.

    Unicast (rectangle of one node) moves flit by flit with one credit each; a routing that leaves a choice goes where
    there are more credits. Multicast takes all its outputs in one cycle, once each has a free channel with credits for
    the whole packet, and reserves nothing while it waits: a fork that held some outputs while waiting for others would
    deadlock. Its other flits pass to all outputs at once, too.

    Parameters: mesh `width` x `height`, `flit_bits`, `buffer_flits` (depth of the buffer of each input and channel, and
    most flits of a multicast), `multicast` (without it x1, y1 and flits of the header are not read),
    `virtual_channels`, `routing` (see `hwgen.noc.network`), `port_flits` (port -> depth, where it is deeper; of all
    routers alike, so an output has the credits of the input across; what hangs on the local port has `buffer_flits`),
    `sides` (those with a neighbour), `host` (whether the router may be (0, 0), with the host port in the west). Ports
    that are not there and turns that no packet takes cost nothing.

    Members: `my_x`, `my_y` In, constant; `P_in` In(Link), `P_out` Out(Link) for each port P; `fault` Out is high two
    cycles after a flit came into a full buffer or a credit came that was not out, and while a packet asks for no
    output (it stays and blocks its channel).
    """

    def __init__(self, *, width: int, height: int, flit_bits: int, buffer_flits: int, multicast: bool,
                 virtual_channels: int = 1, routing: str = "xy", port_flits: Mapping[str, int] | None = None,
                 sides: tuple[str, ...] = SIDES, host: bool = True):
        check_mesh(width, height)
        check_flit_bits(flit_bits)
        check_buffer_flits(buffer_flits)
        self.port_flits = _port_flits(buffer_flits, port_flits or {})
        self.width, self.height = width, height
        self.flit_bits, self.buffer_flits, self.multicast = flit_bits, buffer_flits, bool(multicast)
        self.virtual_channels, self.routing, self.sides, self.host = virtual_channels, routing, tuple(sides), bool(host)
        self.classes = channel_classes(routing, virtual_channels, self.multicast)
        self.ports = [p for p in PORTS if p == "local" or p in sides or (p == "west" and host)]
        self.fields = routing_fields(width=width, height=height, flit_bits=flit_bits, buffer_flits=buffer_flits,
                                     multicast=self.multicast)
        links = {}
        for port in self.ports:
            links |= {f"{port}_in": In(Link(flit_bits, virtual_channels)),
                      f"{port}_out": Out(Link(flit_bits, virtual_channels))}
        super().__init__({
            "my_x": In(max(1, self.fields["x0"][1])), "my_y": In(max(1, self.fields["y0"][1])), **links,
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        outputs = {port: self._output(m, port) for port in self.ports}
        inputs = {port: self._input(m, port, outputs) for port in self.ports}
        turn = {port: self._turn(m, port, channels) for port, channels in inputs.items()}
        chosen = {i: {v: c.able & turn[i][v] for v, c in channels.items()} for i, channels in inputs.items()}
        wants = {(i, o): self._any_channel(m, f"wants_{i}_{o}", turn[i], inputs[i], o)
                 for i in inputs for o in self.ports if any(o in c.wants for c in inputs[i].values())}
        win, served = (self._allocate_trees if self.multicast else self._allocate_paths)(m, inputs, wants)
        for i, channels in inputs.items():
            m.d.comb += [channel.buffer.pop.eq(served[i] & chosen[i][v]) for v, channel in channels.items()]
        self._switch(m, inputs, outputs, chosen, win)
        channels = [*chain(*(channels.values() for channels in inputs.values()))]
        faults = [c.buffer.overflow for c in channels] + [c.lost for c in channels]
        m.d.sync += self.fault.eq(Cat(*faults, *(output.fault for output in outputs.values())).any())
        return m

    def _output(self, m, port):
        far = self.port_flits[OPPOSITE[port]] if port in self.sides else self.buffer_flits
        channels = OutputChannels(channels=self.virtual_channels, credits=far,
                                  classes=tuple(c.channels for c in self.classes))
        m.submodules[f"{port}_credits"] = channels
        m.d.comb += channels.credit.eq(getattr(self, f"{port}_out").credit)
        return channels

    def _input(self, m, port, outputs):
        """Channel -> InputChannel, of those that packets come in by."""
        source, channels = getattr(self, f"{port}_in"), {}
        for k, channel_class in enumerate(self.classes):
            ways = turns(channel_class, self.sides, self.host).get(port)
            for v in channel_class.channels if ways else ():
                name = f"{port}_{v}" if self.virtual_channels > 1 else port
                buffer = FlitBuffer(flit_bits=self.flit_bits, depth=self.port_flits[port])
                m.submodules[f"{name}_buffer"] = buffer
                enters = channel_class.multicast and (port == "local" or (port == "west" and self.host))
                m.d.comb += [
                    buffer.w_valid.eq(source.valid & (source.vc == v if self.virtual_channels > 1 else 1)),
                    buffer.w_data.eq(self._with_route(m, name, port, buffer) if enters else source.data),
                    buffer.w_last.eq(source.last), source.credit[v].eq(buffer.pop),
                ]
                routes = HeadRoutes(buffer.r_data, self.fields, self.my_x, self.my_y, port, self.host)
                channels[v] = InputChannel(m, name=name, buffer=buffer, channel_class=channel_class, k=k,
                                           routes=routes, outputs={o: outputs[o] for o in ways})
        return channels

    def _with_route(self, m, name, port, buffer):
        """A flit that comes in by a port: the first of a packet that enters the network here gets its route."""
        flit, (at, bits) = getattr(self, f"{port}_in").data, self.fields["route"]
        inside = Signal(name=f"inside_{name}")
        with m.If(buffer.w_valid):
            m.d.sync += inside.eq(~buffer.w_last)
        enters = ~inside if port == "local" else ~inside & ~self.my_x.any()
        route = HeadRoutes(flit, self.fields, self.my_x, self.my_y, port, self.host).first()
        return Cat(flit[:at], Mux(enters, route, flit[at:at + bits]), flit[at + bits:])

    def _turn(self, m, port, channels):
        """Channel -> whether none that can send was served less recently."""
        order = ServiceOrder(channels, f"turn_{port}")
        order.serve(m, {v: channel.buffer.pop for v, channel in channels.items()})
        return {v: ~Cat(other.able & order.before(u, v) for u, other in channels.items() if u != v).any()
                for v in channels}

    def _any_channel(self, m, name, turn, channels, output):
        """Whether the flit that an input may send wants an output; of a lone channel with forks, able or not."""
        wants = Signal(name=name)
        there = [channel.wants[output] & turn[v] & (channel.able if channel.multicast and len(channels) > 1 else 1)
                 for v, channel in channels.items() if output in channel.wants]
        m.d.comb += wants.eq(Cat(there).any())
        return wants

    def _allocate_paths(self, m, inputs, wants):
        """((input, output) -> whether a flit passes, input -> whether one does): each output takes the first input."""
        win = {}
        for o in self.ports:
            sources = [i for i in inputs if (i, o) in wants]
            order = ServiceOrder(sources, f"order_{o}")
            for i in sources:
                ahead = Cat(wants[j, o] & order.before(j, i) for j in sources if j != i).any()
                win[i, o] = Signal(name=f"win_{i}_{o}")
                m.d.comb += win[i, o].eq(wants[i, o] & ~ahead)
            order.serve(m, {i: win[i, o] for i in sources})
        return win, {i: Cat(bit for (j, _), bit in win.items() if j == i).any() for i in inputs}

    def _allocate_trees(self, m, inputs, wants):
        """The same with multicast: an input yields as a whole to those ahead of it that ask for one of its outputs.

        One order serves all outputs: with one for each, two forks could yield to each other. Whether a flit can go
        settles last: of a lone channel it is looked at last. A packet under way has its outputs to itself.
        """
        order = ServiceOrder(self.ports, "order")
        served = {i: Signal(name=f"served_{i}") for i in inputs}
        asks, fits, goes_on = dict(wants), {}, {}
        for i, channels in inputs.items():
            channel, *others = channels.values()
            if channel.multicast and not others:
                asks |= {(i, o): bit for o, bit in channel.asks.items()}
                fits[i], goes_on[i] = channel.fits, channel.goes_on
            else:
                fits[i], goes_on[i] = Cat(channel.able for channel in channels.values()).any(), Const(0)
        for i in inputs:
            ahead = []
            for j in inputs:
                shared = [asks[i, o] & asks[j, o] for o in self.ports if (i, o) in asks and (j, o) in asks]
                if j != i and shared:
                    ahead.append(Cat(shared).any() & order.before(j, i) & fits[j])
            m.d.comb += served[i].eq(goes_on[i] | (fits[i] & ~Cat(ahead).any()))
        order.serve(m, served)
        return {(i, o): bit & served[i] for (i, o), bit in wants.items()}, served

    def _switch(self, m, inputs, outputs, chosen, win):
        """Pass on the flits that have won, and tell the outputs' channels."""
        flits = {}
        for i, channels in inputs.items():
            heads = [Cat(channel.buffer.r_data, channel.buffer.r_last) for channel in channels.values()]
            flits[i] = heads[0]
            if len(heads) > 1:
                flits[i] = Signal.like(heads[0], name=f"flit_{i}")
                m.d.comb += flits[i].eq(one_hot_mux(chosen[i].values(), heads))
        for o, output in outputs.items():
            sources, sink = [i for i in inputs if (i, o) in win], getattr(self, f"{o}_out")
            flit = one_hot_mux([win[i, o] for i in sources],
                               [self._onward(flits[i], chosen[i], inputs[i], o) for i in sources])
            clash = Cat(win[i, o] & win[j, o] for i, j in combinations(sources, 2)).any()
            m.d.sync += Assert(ResetSignal() | ~clash, f"two flits at once leave by {o}")
            m.d.comb += [
                sink.valid.eq(Cat(win[i, o] for i in sources).any()), sink.data.eq(flit[:-1]), sink.last.eq(flit[-1]),
                output.last.eq(sink.last),
            ]
            for v in range(self.virtual_channels):
                m.d.comb += output.send[v].eq(Cat(
                    win[i, o] & self._lane(chosen[i], inputs[i], o, v) for i in sources).any())
            if self.virtual_channels > 1:
                m.d.comb += sink.vc.eq(encoded(output.send))

    def _onward(self, flit, chosen, channels, output):
        """A flit as it goes on to an output: the first one of a multicast class tells the next router its outputs."""
        if not self.multicast:
            return flit
        at, bits = self.fields["route"]
        routes = [channel.onward(output) for channel in channels.values()]
        route = one_hot_mux(chosen.values(), routes) if len(routes) > 1 else routes[0]
        return Cat(flit[:at], route, flit[at + bits:])

    def _lane(self, chosen, channels, output, v):
        """Whether the flit that an input may send goes on in channel `v` of an output."""
        if self.virtual_channels == 1:
            return 1
        return Cat(chosen[u] & channel.lanes[output][v] for u, channel in channels.items()
                   if v in channel.lanes.get(output, ())).any()
