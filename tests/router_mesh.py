# amaranth: UnusedElaboratable=no
"""A mesh of routers with a source and a sink in Python at every local port and at the host's port."""

import random
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

from amaranth.hdl import Cat, Module
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from hwgen.emit.routers import router_name
from hwgen.emit.verilog import instance_of
from hwgen.noc.turns import sides_of
from hwgen.rtl.router import Router

HOST = "host"
OPPOSITE = {"north": ("south", 0, -1), "south": ("north", 0, 1), "east": ("west", 1, 0), "west": ("east", -1, 0)}


class Mesh(Component):
    """Routers joined to a mesh. `drive` and `watch` hold the outer links of all `ends` side by side.

    With `fitted` each is the router made for its place, otherwise all are the one for any place. Emitted as Verilog
    (then `fitted`) it places the modules of `hwgen.emit.routers`.
    """

    def __init__(self, *, width, height, fitted=False, port_flits=(), **parameters):
        self.width, self.height, self.flit_bits = width, height, parameters["flit_bits"]
        self.channels, self.multicast = parameters.get("virtual_channels", 1), parameters["multicast"]
        self.routers = {}
        for x, y in product(range(width), range(height)):
            place = {"sides": sides_of(width, height, x, y), "host": (x, y) == (0, 0)} if fitted else {}
            self.routers[x, y] = Router(width=width, height=height, port_flits=dict(port_flits), **place, **parameters)
        self.ends = [*self.routers, HOST]
        self.vc_bits = (self.channels - 1).bit_length()
        self.span = self.flit_bits + 2 + self.channels + self.vc_bits
        bits = self.span * len(self.ends)
        super().__init__({"drive": In(bits), "watch": Out(bits), "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        for (x, y), router in self.routers.items():
            name = router_name(self.width, self.height, x, y)
            m.submodules[f"router_{x}_{y}"] = instance_of(router, name) if platform else router
            m.d.comb += [router.my_x.eq(x), router.my_y.eq(y)]
            for port, (far, dx, dy) in OPPOSITE.items():
                neighbour = self.routers.get((x + dx, y + dy))
                if neighbour is not None:
                    out, into = getattr(router, f"{port}_out"), getattr(neighbour, f"{far}_in")
                    m.d.comb += [Cat(_forward(into)).eq(Cat(_forward(out))), out.credit.eq(into.credit)]
        watch = []
        for i, end in enumerate(self.ends):
            router, port = (self.routers[0, 0], "west") if end == HOST else (self.routers[end], "local")
            into, out = getattr(router, f"{port}_in"), getattr(router, f"{port}_out")
            drive = self.drive[i * self.span:(i + 1) * self.span]
            m.d.comb += Cat(out.credit, *_forward(into)).eq(drive)
            watch += [into.credit, *_forward(out)]
        m.d.comb += [self.watch.eq(Cat(watch)), self.fault.eq(Cat(r.fault for r in self.routers.values()).any())]
        return m


def _forward(link):
    """What a link carries from its sender, `data` last."""
    return [link.valid, link.last, *([link.vc] if hasattr(link, "vc") else []), link.data]


@dataclass
class End:
    """What hangs on one router port: flits to send with probability `send`, a buffer emptied with probability `take`.

    `queue` holds (data, last, channels that its packet may enter); a packet enters the one with most credits. `sent`
    and `got` list (cycle, data, last), `entered` and `came` the channels of the same flits; a spell of more than one
    cycle replaces chance by whole spells of waiting.
    """

    depth: int
    chance: random.Random
    send: float = 1.0
    take: float = 1.0
    spell: int = 1
    channels: int = 1
    queue: deque = field(default_factory=deque)
    sent: list = field(default_factory=list)
    got: list = field(default_factory=list)
    entered: list = field(default_factory=list)
    came: list = field(default_factory=list)

    def __post_init__(self):
        self.credits, self.held = [self.depth] * self.channels, [0] * self.channels
        self.sends = self.takes = True
        self.inside = None

    def step(self, cycle, seen):
        """Take what the router showed in the last cycle; return what to drive in this one."""
        credit, seen = seen & (1 << self.channels) - 1, seen >> self.channels
        valid, last, seen = seen & 1, seen >> 1 & 1, seen >> 2
        vc_bits = (self.channels - 1).bit_length()
        channel, data = seen & (1 << vc_bits) - 1, seen >> vc_bits
        if valid:
            self.got.append((cycle - 1, data, last))
            self.came.append(channel)
            self.held[channel] += 1
            assert self.held[channel] <= self.depth, "the router sent more than it had credits for"
        for v in range(self.channels):
            self.credits[v] += credit >> v & 1
        if cycle % self.spell == 0:
            self.sends = self.chance.random() < self.send
            self.takes = self.chance.random() < self.take
        freed = max(range(self.channels), key=lambda v: self.held[v])
        out = 0
        if self.held[freed] and self.takes:
            self.held[freed] -= 1
            out = 1 << freed
        return out | self._send(cycle, vc_bits) << self.channels

    def _send(self, cycle, vc_bits):
        if not self.queue or not self.sends:
            return 0
        data, last, channels = self.queue[0]
        channel = self.inside if self.inside is not None else max(channels, key=lambda v: self.credits[v])
        if not self.credits[channel]:
            return 0
        self.queue.popleft()
        self.inside = None if last else channel
        self.sent.append((cycle, data, last))
        self.entered.append(channel)
        self.credits[channel] -= 1
        return 1 | last << 1 | channel << 2 | data << 2 + vc_bits


class Bench:
    """A simulator of one mesh, kept from run to run because building it takes longer than most runs."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.simulator = Simulator(mesh)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._step_all)
        self.used = None

    def run(self, ends, *, cycles, until=None):
        """Simulate from reset until each end got as many flits as `until` says, or for `cycles`; the cycles used."""
        if self.used is not None:
            self.simulator.reset()
        self.ends, self.cycles, self.until, self.used = ends, cycles, until, 0
        self.simulator.run()
        return self.used

    async def _step_all(self, ctx):
        mesh, seen = self.mesh, 0
        for cycle in range(self.cycles):
            ctx.set(mesh.drive, step_all(self.ends, mesh.span, cycle, seen))
            _, _, seen, fault = await ctx.tick().sample(mesh.watch, mesh.fault)
            assert not fault, f"a router reports a fault in cycle {cycle}"
            self.used = cycle + 1
            if arrived(self.ends, self.until):
                break


def step_all(ends, span, cycle, seen):
    """What all ends drive in a cycle, having seen what the mesh showed in the last one."""
    mask = (1 << span) - 1
    return sum(end.step(cycle, seen >> i * span & mask) << i * span for i, end in enumerate(ends.values()))


def arrived(ends, until):
    """Whether each end has got as many flits as `until` says; never if that is None."""
    return until is not None and all(len(ends[end].got) >= count for end, count in until.items())


@lru_cache(maxsize=4)
def bench(*, simulator="amaranth", **parameters):
    """The bench of the mesh with these parameters; verilator and icarus run its emitted Verilog."""
    if simulator == "amaranth":
        return Bench(Mesh(**parameters))
    from emitted_mesh import EmittedBench  # it starts processes with the functions above
    return EmittedBench(simulator, **parameters)
