"""Five-port router: XY routing, wormhole unicast, virtual cut-through multicast along the XY tree."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.flit_buffer import FlitBuffer, one_hot_mux
from hwgen.rtl.link import CreditCounter, Link
from hwgen.rtl.packet import check_buffer_flits, check_flit_bits, check_mesh, routing_fields

PORTS = ("local", "north", "east", "south", "west")
TURNS = {
    "local": ("local", "north", "east", "south", "west"),
    "west": ("local", "north", "east", "south"),
    "east": ("local", "north", "south", "west"),
    "south": ("local", "north", "west"),
    "north": ("local", "south"),
}
"""Input -> outputs a packet may take. South to west is the way to the host port, out of router (0, 0)."""


class Router(wiring.Component):
    """Router of a mesh node. y grows south: the north neighbour is (x, y - 1).

    A flit that arrives in one cycle leaves in the next; packets of one flit or more follow each other without a
    bubble, from the same input or from another. A packet keeps its outputs from its first to its last flit. Of the
    packets that ask for an output, the input served least recently wins: a unicast waits for at most four others.

    Unicast (rectangle of one node) moves flit by flit with one credit each. Multicast takes all its outputs in one
    cycle, once all are free and have credits for the whole packet, and reserves nothing while it waits: a fork that
    held some outputs while waiting for others would deadlock. A packet goes along the row to the rectangle's columns
    and forks into each of them; it includes the source if that lies inside. Packets with `host` go to (0, 0) and out
    of its west port; packets from the host come in there.

    Parameters: mesh `width` x `height`, `flit_bits`, `buffer_flits` (depth of each input buffer, and credits of each
    output), `multicast` (without it x1, y1 and flits of the header are not read).

    Members: `my_x`, `my_y` In, constant; `P_in` In(Link), `P_out` Out(Link) for P of PORTS; `fault` Out is high two
    cycles after a flit came into a full buffer or a credit came that was not out, and while a packet asks for no
    output (it stays and blocks its input).
    """

    def __init__(self, *, width: int, height: int, flit_bits: int, buffer_flits: int, multicast: bool):
        check_mesh(width, height)
        check_flit_bits(flit_bits)
        check_buffer_flits(buffer_flits)
        self.width, self.height = width, height
        self.flit_bits, self.buffer_flits, self.multicast = flit_bits, buffer_flits, bool(multicast)
        self.fields = routing_fields(width=width, height=height, buffer_flits=buffer_flits)
        links = {}
        for port in PORTS:
            links |= {f"{port}_in": In(Link(flit_bits)), f"{port}_out": Out(Link(flit_bits))}
        super().__init__({
            "my_x": In(max(1, self.fields["x0"][1])), "my_y": In(max(1, self.fields["y0"][1])), **links,
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        buffers, credits, faults = {}, {}, []
        for port in PORTS:
            m.submodules[f"{port}_buffer"] = buffers[port] = self._connect_input(m, port)
            m.submodules[f"{port}_credits"] = credits[port] = self._connect_credits(m, port)
            faults += [buffers[port].overflow, credits[port].fault]
        lock = {(i, o): Signal(name=f"lock_{i}_{o}") for i in PORTS for o in TURNS[i]}
        free = {o: ~Cat(lock[i, o] for i in PORTS if o in TURNS[i]).any() for o in PORTS}
        waiting, route = {}, {}
        for i in PORTS:
            waiting[i] = Signal(name=f"waiting_{i}")
            m.d.comb += waiting[i].eq(buffers[i].r_valid & ~Cat(lock[i, o] for o in TURNS[i]).any())
            for o, taken in self._route(i, buffers[i].r_data).items():
                route[i, o] = Signal(name=f"route_{i}_{o}")
                m.d.comb += route[i, o].eq(taken)
            faults.append(waiting[i] & ~Cat(route[i, o] for o in TURNS[i]).any())
        allocate = self._allocate_trees if self.multicast else self._allocate_paths
        win, grant = allocate(m, buffers, credits, free, waiting, route, self._order(m))
        self._switch(m, buffers, credits, lock, win, grant)
        m.d.sync += self.fault.eq(Cat(faults).any())
        return m

    def _connect_input(self, m, port):
        buffer, source = FlitBuffer(flit_bits=self.flit_bits, depth=self.buffer_flits), getattr(self, f"{port}_in")
        m.d.comb += [
            buffer.w_valid.eq(source.valid), buffer.w_data.eq(source.data), buffer.w_last.eq(source.last),
            source.credit.eq(buffer.pop),
        ]
        return buffer

    def _connect_credits(self, m, port):
        counter, sink = CreditCounter(credits=self.buffer_flits), getattr(self, f"{port}_out")
        m.d.comb += [counter.send.eq(sink.valid), counter.credit.eq(sink.credit)]
        return counter

    def _field(self, flit, name):
        at, bits = self.fields[name]
        return flit[at:at + bits] if bits else Const(0, 1)

    def _route(self, port, flit):
        """Output -> whether the packet with this header takes it: the XY tree, seen from one input."""
        low_x, high_x, low_y, high_y = "x0", "x1", "y0", "y1"
        if not self.multicast:
            high_x, high_y = low_x, low_y
        right, left = self._field(flit, high_x) > self.my_x, self._field(flit, low_x) < self.my_x
        down, up = self._field(flit, high_y) > self.my_y, self._field(flit, low_y) < self.my_y
        host = self._field(flit, "host")
        if self.multicast:
            not_yet_x, past_x = self._field(flit, low_x) > self.my_x, self._field(flit, high_x) < self.my_x
            not_yet_y, past_y = self._field(flit, low_y) > self.my_y, self._field(flit, high_y) < self.my_y
        else:
            not_yet_x, past_x, not_yet_y, past_y = right, left, down, up
        if port == "north":
            return {"local": ~not_yet_y, "south": down}
        if port == "south":
            return {"local": ~past_y & ~host, "north": up, "west": ~past_y & ~up & host}
        inside = {"east": ~past_x, "west": ~not_yet_x, "local": ~not_yet_x & ~past_x}[port]
        here = inside & ~not_yet_y & ~past_y
        routes = {"local": here & ~host, "north": inside & up, "south": inside & down, "east": right,
                  "west": left | (here & host)}
        return {o: routes[o] for o in TURNS[port]}

    def _order(self, m):
        """(i, j) -> whether input i goes before j: one bit for each pair, which `_serve` keeps a total order."""
        order = {}
        for a, i in enumerate(PORTS):
            for j in PORTS[a + 1:]:
                order[i, j] = Signal(name=f"order_{i}_{j}")
                order[j, i] = ~order[i, j]
        return order

    def _serve(self, m, order, grant):
        """Move the inputs served in this cycle behind all others; order among them, and among the others, stays."""
        for a, i in enumerate(PORTS):
            for j in PORTS[a + 1:]:
                with m.If(grant[i] ^ grant[j]):
                    m.d.sync += order[i, j].eq(grant[j])

    def _allocate_paths(self, m, buffers, credits, free, waiting, route, order):
        """(win, grant) for unicast: every output takes the first of the inputs that ask for it."""
        request = {(i, o): waiting[i] & route[i, o] for i, o in route}
        win = {}
        for i, o in route:
            ahead = Cat(request[j, o] & order[j, i] for j in PORTS if j != i and o in TURNS[j]).any()
            win[i, o] = Signal(name=f"win_{i}_{o}")
            m.d.comb += win[i, o].eq(request[i, o] & free[o] & credits[o].some & ~ahead)
        grant = {i: Cat(win[i, o] for o in TURNS[i]).any() for i in PORTS}
        self._serve(m, order, grant)
        return win, grant

    def _allocate_trees(self, m, buffers, credits, free, waiting, route, order):
        """(win, grant) with multicast: an input whose outputs are all ready yields to such inputs ahead of it only."""
        able, grant = {}, {}
        for i in PORTS:
            able[i], grant[i] = Signal(name=f"able_{i}"), Signal(name=f"grant_{i}")
            length = self._field(buffers[i].r_data, "flits")
            ready = {o: free[o] & credits[o].more_than.bit_select(length, 1) for o in TURNS[i]}
            missing = Cat(route[i, o] & ~ready[o] for o in TURNS[i]).any()
            m.d.comb += able[i].eq(waiting[i] & Cat(route[i, o] for o in TURNS[i]).any() & ~missing)
        for i in PORTS:
            ahead = []
            for j in PORTS:
                if j != i:
                    shared = Cat(route[i, o] & route[j, o] for o in TURNS[i] if o in TURNS[j]).any()
                    ahead.append(shared & order[j, i] & able[j])
            m.d.comb += grant[i].eq(able[i] & ~Cat(ahead).any())
        self._serve(m, order, grant)
        return {(i, o): route[i, o] & grant[i] for i, o in route}, grant

    def _switch(self, m, buffers, credits, lock, win, grant):
        for i in PORTS:
            flows = Cat(lock[i, o] & credits[o].some for o in TURNS[i]).any()
            m.d.comb += buffers[i].pop.eq(grant[i] | (buffers[i].r_valid & flows))
            for o in TURNS[i]:
                ends = buffers[i].pop & buffers[i].r_last
                m.d.sync += lock[i, o].eq((lock[i, o] | win[i, o]) & ~ends)
        for o in PORTS:
            sources = [i for i in PORTS if o in TURNS[i]]
            sink = getattr(self, f"{o}_out")
            select = Cat(lock[i, o] | win[i, o] for i in sources)
            flit = one_hot_mux(select, [Cat(buffers[i].r_data, buffers[i].r_last) for i in sources])
            follows = credits[o].some & Cat(lock[i, o] & buffers[i].r_valid for i in sources).any()
            m.d.comb += [
                sink.valid.eq(Cat(win[i, o] for i in sources).any() | follows),
                sink.data.eq(flit[:-1]), sink.last.eq(flit[-1]),
            ]
