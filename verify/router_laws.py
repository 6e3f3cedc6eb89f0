"""Laws of the router between neighbours that keep the credit protocol, told from its ports alone."""

from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hwgen.noc.network import Network
from hwgen.noc.routes import DIRECTIONS, OPPOSITE
from hwgen.noc.turns import PORTS
from hwgen.rtl.router import Router
from verify.link_watch import LinkWatch
from verify.route_table import permitted_outputs

LAWS = {
    "delivery": "no flit is lost, doubled, changed, out of order or misrouted",
    "framing": "a packet keeps its outputs from its first flit to its last",
    "turns": "no flit is passed over more often than the others can go once",
    "credits": "credits and buffers never over- or underflow",
}
"""
delivery : the n-th flit that leaves an input's channel is the n-th that came, and is in the same cycle at the outputs
    of its packet's route as `hwgen.noc` has it and at no others: at one of them, or at all if it is a multicast. The
    field `route` of a packet that can fork is changed, to that of the next router.
framing : in a channel of an output only a packet's flits pass from its first to its last, which all take that channel.
turns : before a flit goes each other channel of its input once, and before each of these each other input once at every
    output that it may take. Counted are the cycles in which its outputs have room for it.
credits : no flit without a credit, no credit without a flit, and no fault.
"""


def network_router(network: Network) -> Router:
    """The router of a network, for any place in it."""
    return Router(
        width=network.width, height=network.height, flit_bits=network.flit_bits, buffer_flits=network.buffer_flits,
        multicast=network.multicast, virtual_channels=network.virtual_channels, routing=network.routing,
    )


class RouterLaws(wiring.Component):
    """A router with any traffic, of which one packet and one of its flits, chosen freely, are watched.

    Three bits that the router does not read colour the watched packet, its first flit and its watched flit; of the data
    only these and the routing fields are looked at. The router's place in the mesh and the watched packet's header are
    any constants. Assumed are the neighbours' sides of the credit protocol, and that the watched packet (in `credits`:
    every packet) may come here and has the length and, if it can fork, the outputs that it states.

    Parameters: `law` of LAWS; `port` and `channel` that the watched packet comes in by; the `network`.
    """

    def __init__(self, *, law: str, network: Network, port: str, channel: int = 0):
        self.law, self.network, self.port, self.channel = law, network, port, channel
        self.depth, self.multicast, self.channels = network.buffer_flits, network.multicast, network.virtual_channels
        self.router = network_router(network)
        self.fields = self.router.fields
        self.head_bits = sum(bits for _, bits in self.fields.values())
        members = {"x": In(len(self.router.my_x)), "y": In(len(self.router.my_y)), "header": In(self.head_bits),
                   "pick_packet": In(1), "pick_flit": In(1)}
        for p in PORTS:
            members |= {f"valid_{p}": In(1), f"last_{p}": In(1), f"flit_{p}": In(self.head_bits),
                        f"credit_{p}": In(self.channels)}
            if self.channels > 1:
                members[f"vc_{p}"] = In(range(self.channels))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.router = self.router
        self.lanes = [(p, v) for p in PORTS for v in range(self.channels)]
        self.sent = {(p, v): self._watch_link(m, f"{p}_out", v) for p, v in self.lanes}
        self.came = {(p, v): self._watch_link(m, f"{p}_in", v) for p, v in self.lanes}
        self.my = self._constant(m, "x"), self._constant(m, "y")
        self.head = self._constant(m, "header")
        m.d.comb += [self.router.my_x.eq(self.my[0]), self.router.my_y.eq(self.my[1])]
        self._watch_packet(m)
        self._connect(m)
        self._watch_outputs(m)
        getattr(self, f"_{self.law}")(m)
        return m

    def _watch_link(self, m, name, v):
        link = getattr(self.router, name)
        m.submodules[f"{name}_{v}"] = watch = LinkWatch(credits=self.depth)
        m.d.comb += [watch.valid.eq(link.valid & self._in_channel(link, v)), watch.last.eq(link.last),
                     watch.credit.eq(link.credit[v])]
        return watch

    def _in_channel(self, link, v):
        return link.vc == v if self.channels > 1 else Const(1)

    def _constant(self, m, name):
        """The value that an input has in the reset cycle, kept."""
        value = getattr(self, name)
        kept, constant = Signal.like(value, name=f"kept_{name}", reset_less=True), Signal.like(value, name=f"my_{name}")
        m.d.comb += constant.eq(Mux(ResetSignal(), value, kept))
        m.d.sync += kept.eq(constant)
        return constant

    def _connect(self, m):
        for p in PORTS:
            into, out, mine = getattr(self.router, f"{p}_in"), getattr(self.router, f"{p}_out"), p == self.port
            colours = [self.coloured, self.first, self.chosen] if mine else [Const(0, 3)]
            m.d.comb += [
                into.valid.eq(getattr(self, f"valid_{p}")), into.last.eq(getattr(self, f"last_{p}")),
                into.data.eq(Cat(getattr(self, f"flit_{p}"), *colours)), out.credit.eq(getattr(self, f"credit_{p}")),
            ]
            if self.channels > 1:
                m.d.comb += into.vc.eq(getattr(self, f"vc_{p}"))
        promises = [watch.sender for watch in self.came.values()] + [watch.receiver for watch in self.sent.values()]
        m.d.comb += Assume(ResetSignal() | Cat(promises).all())

    def _field(self, flit, name):
        at, bits = self.fields[name]
        return flit[at:at + bits] if bits else Const(0, 0)

    def _routes(self, port, channel, flit):
        fields = {name: self._field(flit, name) for name in self.fields}
        return permitted_outputs(self.network, port, channel, PORTS, self.my, fields)

    def _several(self, flit):
        """Whether a packet with this header is a multicast."""
        if not self.multicast:
            return Const(0)
        field = {name: self._field(flit, name) for name in ("x0", "x1", "y0", "y1")}
        return (field["x0"] != field["x1"]) | (field["y0"] != field["y1"])

    def _legal(self, port, channel, flit):
        """Whether a packet with this header can come here: it has a route, and a length that can be."""
        outputs = self._routes(port, channel, flit)
        routes = Cat(outputs.values()).any()
        if not self.multicast:
            return routes
        length = self._field(flit, "flits")
        return routes & Mux(self._several(flit), length < self.depth, length == 0) & self._tells(port, channel, flit)

    def _tells(self, port, channel, flit):
        """Whether a packet of a class that forks tells its outputs, if it comes from another router."""
        if not self._forks(channel) or port == "local":
            return Const(1)
        true = self._field(flit, "route") == self._tree(port, channel, flit, *self.my)
        return true | (self.my[0] == 0) if port == "west" else true

    def _forks(self, channel):
        return next(c.multicast for c in self.network.classes if channel in c.channels)

    def _tree(self, port, channel, flit, x, y):
        """The field `route` that a packet has at router (x, y): one to the host as if it went to (0, 0)."""
        fields = {name: self._field(flit, name) for name in self.fields} | {"host": Const(0)}
        return Cat(permitted_outputs(self.network, port, channel, PORTS, (x, y), fields).values())

    def _onward(self, output):
        """The header of the watched packet as it leaves by an output."""
        if not self._forks(self.channel):
            return self.head
        at, bits = self.fields["route"]
        route = Const(0, bits)
        if output != "local":
            dx, dy = DIRECTIONS[output]
            route = self._tree(OPPOSITE[output], self.channel, self.head, self.my[0] + dx, self.my[1] + dy)
        return Cat(self.head[:at], route, self.head[at + bits:])

    def _watch_packet(self, m):
        """Follow the watched packet and flit to the front of their channel."""
        came, link = self.came[self.port, self.channel], getattr(self.router, f"{self.port}_in")
        self.expected = {o: Signal(name=f"expected_{o}") for o in PORTS}
        m.d.comb += [self.expected[o].eq(bit) for o, bit in self._routes(self.port, self.channel, self.head).items()]
        seen, coming, found, waits = Signal(), Signal(), Signal(), Signal()
        self.first, self.coloured, self.chosen, self.leaves = Signal(), Signal(), Signal(), Signal()
        self.is_head, self.is_last, ahead = Signal(), Signal(), Signal(range(self.depth + 1))
        self.index = Signal(range(self.depth + 1))
        credit = came.credit
        m.d.comb += [
            self.first.eq(came.valid & ~came.open & self.pick_packet & ~seen),
            self.coloured.eq(self.first | (coming & came.valid)),
            self.chosen.eq(self.coloured & self.pick_flit & ~found),
        ]
        true = (getattr(self, f"flit_{self.port}") == self.head) & self._legal(self.port, self.channel, self.head)
        m.d.comb += Assume(ResetSignal() | ~self.first | true)
        if self.multicast:
            m.d.sync += self.index.eq(self.index + self.coloured)
            ends = ~self._several(self.head) | (link.last == (self.index == self._field(self.head, "flits")))
            m.d.comb += Assume(ResetSignal() | ~self.coloured | ends)
        m.d.sync += [seen.eq(seen | self.first), found.eq(found | self.chosen)]
        with m.If(self.coloured):
            m.d.sync += coming.eq(~link.last)
        with m.If(self.chosen):
            m.d.sync += [waits.eq(1), ahead.eq(came.held - credit), self.is_last.eq(link.last),
                         self.is_head.eq(self.first)]
        with m.Elif(waits & credit):
            m.d.sync += [ahead.eq(ahead - 1), waits.eq(ahead != 0)]
        self.front = waits & (ahead == 0)
        m.d.comb += self.leaves.eq(self.front & credit)

    def _watch_outputs(self, m):
        """Follow the watched packet out: `under` tells the channels of outputs in which it is under way."""
        self.under = {}
        for o, v in self.lanes:
            out, under = getattr(self.router, f"{o}_out"), Signal(name=f"under_{o}_{v}")
            self.under[o, v] = under
            with m.If(self.sent[o, v].valid & self._colours(o)[0]):
                m.d.sync += under.eq(~out.last)

    def _colours(self, o):
        """Whether a flit at an output has the colour of the watched packet, of its first flit, of the watched flit."""
        data = getattr(self.router, f"{o}_out").data
        return data[self.head_bits], data[self.head_bits + 1], data[self.head_bits + 2]

    def _class_lanes(self):
        return next(c.channels for c in self.network.classes if self.channel in c.channels)

    def _delivery(self, m):
        hits = []
        for o in PORTS:
            out, (packet, first, flit) = getattr(self.router, f"{o}_out"), self._colours(o)
            hits.append(hit := out.valid & flit)
            kept = Cat(self._in_channel(out, v) for v in self._class_lanes()).any()
            same = packet & (first == self.is_head) & (out.last == self.is_last) & kept
            same &= ~self.is_head | (out.data[:self.head_bits] == self._onward(o))
            due = self.leaves & self.expected[o]
            m.d.sync += Assert(ResetSignal() | ~hit | (due & same), f"{o} has the flit wrongly or changed")
            m.d.sync += Assert(ResetSignal() | ~(due & self._several(self.head)) | hit, f"{o} misses the flit")
        one = Cat(hit & ~Cat(hits[:n]).any() for n, hit in enumerate(hits))
        m.d.sync += Assert(ResetSignal() | ~self.leaves | one.any(), "the flit is lost")
        m.d.sync += Assert(ResetSignal() | self._several(self.head) | (one == Cat(hits)), "the flit is doubled")

    def _framing(self, m):
        for o, v in self.lanes:
            (packet, first, _), valid, under = self._colours(o), self.sent[o, v].valid, self.under[o, v]
            begins = valid & packet & ~under
            m.d.sync += [
                Assert(ResetSignal() | ~(valid & under) | (packet & ~first), f"another packet breaks in at {o}"),
                Assert(ResetSignal() | ~begins | (first & ~self.sent[o, v].open), f"the packet breaks in at {o}"),
            ]

    def _turns(self, m):
        length = self._field(self.head, "flits") if self.multicast else 0
        free = {o: Cat(~self.sent[o, v].open & (self.depth - self.sent[o, v].held > length)
                       for v in self._class_lanes()).any() for o in PORTS}
        every = Cat(~self.expected[o] | free[o] for o in PORTS).all()
        some = Cat(self.expected[o] & free[o] for o in PORTS).any()
        begins = Mux(self._several(self.head), every, some)
        follows = Cat(~self.under[lane] | (self.sent[lane].held != self.depth) for lane in self.lanes).all()
        passed_over = self.front & Mux(self.is_head, begins, follows) & ~self.leaves
        ways = 2 if self.network.routing in ("west-first", "odd-even") else 1
        most = self.channels * ways * (len(PORTS) - 1) + self.channels - 1
        lost = Signal(range(most + 2))
        m.d.sync += lost.eq(lost + (passed_over & (lost <= most)))
        m.d.sync += Assert(ResetSignal() | (lost <= most), "it is passed over too often")

    def _credits(self, m):
        m.d.sync += Assert(ResetSignal() | ~self.router.fault, "fault")
        for p, v in self.lanes:
            came = self.came[p, v]
            m.d.sync += [
                Assert(ResetSignal() | self.sent[p, v].sender, f"{p} sends without a credit"),
                Assert(ResetSignal() | came.receiver, f"{p} gives back a credit that it was not sent"),
            ]
            head = came.valid & ~came.open
            m.d.comb += Assume(ResetSignal() | ~head | self._legal(p, v, getattr(self, f"flit_{p}")))
