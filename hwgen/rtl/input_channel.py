"""One virtual channel of a router's input: its flits, and where the packet at its head wants to go."""

from amaranth.hdl import Cat, Const, Mux, Signal

from hwgen.noc.network import ChannelClass
from hwgen.rtl.flit_buffer import FlitBuffer
from hwgen.rtl.head_routes import HeadRoutes


class InputChannel:
    """Logic of one channel of an input, in a router's module `m`.

    Attributes
    ----------
    able : the flit at the head can go: to its one output, or to all of them.
    multicast : whether the channel carries forks.
    wants : output -> whether that flit goes there (only where it can, if the channel carries no forks).
    asks, fits, goes_on : only if the channel carries forks: output -> whether a packet that begins with that flit goes
        there; one begins and has room at all of them; one is under way and its flit can go.
    lanes : output -> {channel: whether it would go on in that channel there}. Early: no flit is looked at.
    lost : a packet asks for no output.

    Parameters: `name` for signals; its `buffer`; `channel_class`, with its number `k`; `routes` of the flit at the
    head; `outputs`, name -> OutputChannels of those that packets may take. The caller drives `buffer.pop`.
    """

    def __init__(self, m, *, name: str, buffer: FlitBuffer, channel_class: ChannelClass, k: int, routes: HeadRoutes,
                 outputs: dict):
        self.multicast = channel_class.multicast
        self.buffer, self._name, self._class, self._k = buffer, name, channel_class, k
        self._routes, self._outputs, self._middle = routes, outputs, Signal(name=f"middle_{name}")
        self.able, self.lost = Signal(name=f"able_{name}"), Signal(name=f"lost_{name}")
        locks = {o: Signal(name=f"lock_{name}_{o}") for o in outputs}
        middle = self._middle
        if self.multicast:  # a register of its own settles earlier
            m.d.sync += middle.eq(Mux(buffer.pop, ~buffer.r_last, middle))
        else:
            m.d.comb += middle.eq(Cat(locks.values()).any())
        taken = self._taken(m)
        self.wants = {o: Signal(name=f"wants_{name}_{o}") for o in outputs}
        held = self._hold_lanes(m, self.wants, middle)
        follows, begins = self._room(m, held)
        # what is known without a look at the flit comes first: where the packet goes settles last
        new, under_way = buffer.r_valid & ~middle, buffer.r_valid & middle
        if self.multicast:
            missing = Cat(taken[o] & ~begins[o] for o in outputs).any()
            self.asks, self.fits = taken, Signal(name=f"fits_{name}")
            self.goes_on = under_way & ~Cat(lock & ~follows[o] for o, lock in locks.items()).any()
            m.d.comb += self.fits.eq(new & Cat(taken.values()).any() & ~missing)
            m.d.comb += self.able.eq(self.goes_on | self.fits)
            m.d.comb += [self.wants[o].eq(lock | (~middle & taken[o])) for o, lock in locks.items()]
            m.d.comb += self.lost.eq(new & ~Cat(taken.values()).any())
        else:
            for o, lock in locks.items():
                m.d.comb += self.wants[o].eq((buffer.r_valid & lock & follows[o]) | (taken[o] & (new & begins[o])))
            m.d.comb += self.able.eq(Cat(self.wants.values()).any())
            m.d.comb += self.lost.eq(new & ~self.able & Cat(begins.values()).all())
        for o, lock in locks.items():
            m.d.sync += lock.eq(Mux(buffer.pop, self.wants[o] & ~buffer.r_last, lock))

    def onward(self, output):
        """What the flit at the head has in place of the field `route` when it goes on to an output."""
        route = self._routes.route()
        return Mux(self._middle, route, self._routes.onward(output)) if self.multicast else route

    def _taken(self, m):
        """Output -> whether a packet that begins with the flit at the head goes there."""
        rooms = {o: getattr(output, f"room_{self._k}") for o, output in self._outputs.items()}
        ways = self._routes.outputs(
            self._class, lambda a, b: (rooms[b] & ~rooms[a]).any() if a in rooms and b in rooms else Const(0))
        taken = {o: Signal(name=f"taken_{self._name}_{o}") for o in self._outputs}
        m.d.comb += [taken[o].eq(ways[o]) for o in taken]
        return taken

    def _hold_lanes(self, m, wants, middle):
        """Fill in `lanes`; return output -> {channel: whether the packet at the head, if begun, is in that channel}.

        Unicast has one output, so one register tells the channel; a multicast may have another at each output.
        """
        channels, held = self._class.channels, {}
        offers = {o: getattr(output, f"offer_{self._k}") for o, output in self._outputs.items()}
        if len(channels) == 1:
            self.lanes = {o: {channels[0]: 1} for o in offers}
            return self.lanes
        groups = [[o] for o in offers] if self._class.multicast else [list(offers)]
        self.lanes = {}
        for group in groups:
            lane = Signal(range(len(channels)), name="_".join(["lane", self._name, *group]), reset_less=True)
            chosen = Signal.like(lane, name=f"next_{lane.name}")
            indices = {o: Cat(Cat(offers[o][v] for n, v in enumerate(channels) if n >> bit & 1).any()
                              for bit in range(len(lane))) for o in group}
            several = len(group) > 1
            picked = Cat(*(Cat(Mux(wants[o], indices[o], 0)[bit] for o in group).any() for bit in range(len(lane)))
                         ) if several else indices[group[0]]
            m.d.comb += chosen.eq(picked)
            m.d.sync += lane.eq(Mux(middle, lane, chosen))
            for o in group:
                held[o] = {v: lane == n for n, v in enumerate(channels)}
                self.lanes[o] = {v: Mux(middle, held[o][v], offers[o][v]) for v in channels}
        return held

    def _room(self, m, held):
        """(output -> whether it has room for a flit under way, and for a packet that begins: whole, if multicast)."""
        follows, begins = {}, {}
        for o, output in self._outputs.items():
            room = getattr(output, f"room_{self._k}")
            follows[o] = Cat(there & output.some[v] for v, there in held[o].items()).any()
            begins[o] = Signal(name=f"room_{self._name}_{o}")
            m.d.comb += begins[o].eq(room.bit_select(self._routes.length(), 1) if self._class.multicast else room[0])
        return follows, begins
