"""Laws of the router between neighbours that keep the credit protocol, told from its ports alone."""

from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from verify.link_watch import LinkWatch
from verify.route_table import permitted_outputs
from hwgen.noc.network import Network
from hwgen.rtl.router import PORTS, Router

LAWS = ("delivery", "framing", "flow", "turns", "credits")
"""
delivery : the n-th flit that leaves an input is the n-th that came, unchanged, at every output of its packet's route as
    `hwgen.noc` has it and at no other.
framing : a packet keeps its output from its first flit to its last.
flow : a granted packet moves in every cycle in which it has a flit and its outputs have a credit each.
turns : at most four times a packet's outputs are all free, with credits, and it is not served.
credits : no flit without a credit, no credit without a flit, and no fault, while the neighbours keep the protocol.
"""
FLIT_BITS = 32
OTHERS = len(PORTS) - 1


class RouterLaws(wiring.Component):
    """A router with any traffic, of which one packet and one of its flits, chosen freely, are watched.

    Two bits that the router does not read colour the watched packet (bit 0) and its watched flit (bit 1). The router's
    place in the mesh and the watched packet's header are any constants.

    Parameters: `law` of LAWS; `port` that the watched packet comes in by; the router's own.
    """

    def __init__(self, *, law: str, port: str, width: int, height: int, buffer_flits: int, multicast: bool):
        self.law, self.port = law, port
        self.network = Network(width, height, multicast=multicast, buffer_flits=buffer_flits, flit_bits=FLIT_BITS)
        self.depth, self.multicast = buffer_flits, multicast
        self.router = Router(width=width, height=height, flit_bits=FLIT_BITS, buffer_flits=buffer_flits,
                             multicast=multicast)
        self.fields = self.router.fields
        self.head_bits = sum(bits for _, bits in self.fields.values())
        members = {"x": In(len(self.router.my_x)), "y": In(len(self.router.my_y)), "header": In(self.head_bits),
                   "pick_packet": In(1), "pick_flit": In(1)}
        for p in PORTS:
            members |= {f"valid_{p}": In(1), f"last_{p}": In(1), f"flit_{p}": In(self.head_bits), f"credit_{p}": In(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.router = self.router
        self.sent = {p: self._watch_link(m, f"sent_{p}", getattr(self.router, f"{p}_out")) for p in PORTS}
        self.came = {p: self._watch_link(m, f"came_{p}", getattr(self.router, f"{p}_in")) for p in PORTS}
        self.my = self._constant(m, "x"), self._constant(m, "y")
        self.head = self._constant(m, "header")
        m.d.comb += [self.router.my_x.eq(self.my[0]), self.router.my_y.eq(self.my[1])]
        self._watch_packet(m)
        for p in PORTS:
            link, mine = getattr(self.router, f"{p}_in"), p == self.port
            m.d.comb += [
                link.valid.eq(getattr(self, f"valid_{p}")), link.last.eq(getattr(self, f"last_{p}")),
                link.data.eq(Cat(getattr(self, f"flit_{p}"), self.coloured if mine else 0, self.chosen if mine else 0)),
                getattr(self.router, f"{p}_out").credit.eq(getattr(self, f"credit_{p}")),
            ]
            m.d.comb += Assume(ResetSignal() | (self.came[p].sender & self.sent[p].receiver))
        getattr(self, f"_{self.law}")(m)
        return m

    def _watch_link(self, m, name, link):
        m.submodules[name] = watch = LinkWatch(credits=self.depth)
        m.d.comb += [watch.valid.eq(link.valid), watch.last.eq(link.last), watch.credit.eq(link.credit)]
        return watch

    def _constant(self, m, name):
        """The value that an input has in the reset cycle, kept."""
        value = getattr(self, name)
        kept, constant = Signal.like(value, name=f"kept_{name}", reset_less=True), Signal.like(value, name=f"my_{name}")
        m.d.comb += constant.eq(Mux(ResetSignal(), value, kept))
        m.d.sync += kept.eq(constant)
        return constant

    def _field(self, flit, name):
        at, bits = self.fields[name]
        return flit[at:at + bits] if bits else Const(0, 0)

    def _routes(self, port, flit):
        fields = {name: self._field(flit, name) for name in self.fields}
        return permitted_outputs(self.network, port, 0, PORTS, self.my, fields)

    def _several(self, flit):
        field = {name: self._field(flit, name) for name in ("x0", "x1", "y0", "y1")}
        return (field["x0"] != field["x1"]) | (field["y0"] != field["y1"])

    def _watch_packet(self, m):
        """Follow the watched packet and flit to the front of their input."""
        port, came, link = self.port, self.came[self.port], getattr(self.router, f"{self.port}_in")
        self.expected = {o: Signal(name=f"expected_{o}") for o in PORTS}
        m.d.comb += [self.expected[o].eq(value) for o, value in self._routes(port, self.head).items()]
        seen, coming, chosen, self.waits = Signal(), Signal(), Signal(), Signal()
        first, self.coloured, self.chosen = Signal(), Signal(), Signal()
        self.ahead, self.kept_last, self.is_head = Signal(range(self.depth + 1)), Signal(), Signal()
        m.d.comb += [
            first.eq(link.valid & ~came.open & self.pick_packet & ~seen),
            self.coloured.eq(first | (coming & link.valid)),
            self.chosen.eq(self.coloured & self.pick_flit & ~chosen),
            Assume(ResetSignal() | ~first | ((getattr(self, f"flit_{port}") == self.head) & self._legal(port, self.head))),
        ]
        m.d.sync += [seen.eq(seen | first), chosen.eq(chosen | self.chosen)]
        with m.If(self.coloured):
            m.d.sync += coming.eq(~link.last)
        if self.multicast:
            index, length = Signal(range(self.depth + 1)), self._field(self.head, "flits")
            m.d.sync += index.eq(index + self.coloured)
            ends = ~self._several(self.head) | (link.last == (index == length))
            m.d.comb += Assume(ResetSignal() | ~self.coloured | ends)
        with m.If(self.chosen):
            m.d.sync += [self.waits.eq(1), self.ahead.eq(came.held - link.credit), self.kept_last.eq(link.last),
                         self.is_head.eq(first)]
        with m.Elif(self.waits & link.credit):
            m.d.sync += [self.ahead.eq(self.ahead - 1), self.waits.eq(self.ahead != 0)]
        self.front = self.waits & (self.ahead == 0)
        self.leaves = self.front & link.credit

    def _legal(self, port, flit):
        """Whether a packet with this header can come here: it has a route, and a length if it is a multicast."""
        routes = Cat(self._routes(port, flit).values()).any()
        if not self.multicast:
            return routes
        length = self._field(flit, "flits")
        return routes & Mux(self._several(flit), length < self.depth, length == 0)

    def _colours(self, o):
        data = getattr(self.router, f"{o}_out").data
        return data[self.head_bits], data[self.head_bits + 1]

    def _delivery(self, m):
        for o in PORTS:
            out, (packet, flit) = getattr(self.router, f"{o}_out"), self._colours(o)
            due = self.leaves & self.expected[o]
            same = packet & (out.last == self.kept_last) & (~self.is_head | (out.data[:self.head_bits] == self.head))
            m.d.sync += [
                Assert(ResetSignal() | ((out.valid & flit) == due), f"{o} has the flit wrongly, or not"),
                Assert(ResetSignal() | ~due | same, f"{o} has a changed flit"),
            ]

    def _framing(self, m):
        for o in PORTS:
            out, (packet, _) = getattr(self.router, f"{o}_out"), self._colours(o)
            under = Signal(name=f"under_{o}")
            with m.If(out.valid & packet):
                m.d.sync += under.eq(~out.last)
            m.d.sync += [
                Assert(ResetSignal() | ~(out.valid & under) | packet, f"another packet breaks in at {o}"),
                Assert(ResetSignal() | ~(out.valid & packet & ~under) | ~self.sent[o].open, f"it breaks in at {o}"),
            ]

    def _room(self, o, flits):
        return ~self.expected[o] | (self.depth - self.sent[o].held > flits)

    def _flow(self, m):
        room = Cat(self._room(o, 0) for o in PORTS).all()
        m.d.sync += Assert(ResetSignal() | ~(self.front & ~self.is_head & room) | self.leaves, "it rests")

    def _turns(self, m):
        length = self._field(self.head, "flits") if self.multicast else 0
        ready = Cat(self._room(o, length) & ~(self.expected[o] & self.sent[o].open) for o in PORTS).all()
        lost = Signal(range(OTHERS + 2))
        m.d.sync += lost.eq(lost + (self.front & self.is_head & ready & ~self.leaves & (lost <= OTHERS)))
        m.d.sync += Assert(ResetSignal() | (lost <= OTHERS), "it is passed over too often")

    def _credits(self, m):
        m.d.sync += Assert(ResetSignal() | ~self.router.fault, "fault")
        for p in PORTS:
            m.d.sync += [
                Assert(ResetSignal() | self.sent[p].sender, f"{p} sends without a credit"),
                Assert(ResetSignal() | self.came[p].receiver, f"{p} gives back a credit that it was not sent"),
            ]
            head = getattr(self, f"valid_{p}") & ~self.came[p].open
            m.d.comb += Assume(ResetSignal() | ~head | self._legal(p, getattr(self, f"flit_{p}")))
