"""A mesh of routers with a source and a sink in Python at every local port and at the host's port."""

import random
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.sim import Simulator

from hwgen.rtl.router import Router

HOST = "host"
OPPOSITE = {"north": ("south", 0, -1), "south": ("north", 0, 1), "east": ("west", 1, 0), "west": ("east", -1, 0)}


class Mesh(Elaboratable):
    """Routers joined to a mesh. `drive` and `watch` hold the outer links of all `ends` side by side."""

    def __init__(self, *, width, height, **parameters):
        self.width, self.height, self.flit_bits = width, height, parameters["flit_bits"]
        self.routers = {
            (x, y): Router(width=width, height=height, **parameters) for y in range(height) for x in range(width)
        }
        self.ends = [*self.routers, HOST]
        self.span = self.flit_bits + 3
        self.drive = Signal(self.span * len(self.ends))
        self.watch = Signal(self.span * len(self.ends))
        self.fault = Signal()

    def elaborate(self, platform):
        m = Module()
        for (x, y), router in self.routers.items():
            m.submodules[f"router_{x}_{y}"] = router
            m.d.comb += [router.my_x.eq(x), router.my_y.eq(y)]
            for port, (far, dx, dy) in OPPOSITE.items():
                neighbour = self.routers.get((x + dx, y + dy))
                if neighbour is not None:
                    out, into = getattr(router, f"{port}_out"), getattr(neighbour, f"{far}_in")
                    m.d.comb += [into.valid.eq(out.valid), into.data.eq(out.data), into.last.eq(out.last),
                                 out.credit.eq(into.credit)]
        watch = []
        for i, end in enumerate(self.ends):
            router, port = (self.routers[0, 0], "west") if end == HOST else (self.routers[end], "local")
            into, out = getattr(router, f"{port}_in"), getattr(router, f"{port}_out")
            drive = self.drive[i * self.span:(i + 1) * self.span]
            m.d.comb += Cat(into.valid, into.last, out.credit, into.data).eq(drive)
            watch.append(Cat(out.valid, out.last, into.credit, out.data))
        m.d.comb += [self.watch.eq(Cat(watch)), self.fault.eq(Cat(r.fault for r in self.routers.values()).any())]
        return m


@dataclass
class End:
    """What hangs on one router port: flits to send with probability `send`, a buffer emptied with probability `take`.

    `sent` and `got` list (cycle, data, last); a burst of 0 or 1 replaces chance by whole spells of waiting.
    """

    depth: int
    chance: random.Random
    send: float = 1.0
    take: float = 1.0
    spell: int = 1
    queue: deque = field(default_factory=deque)
    sent: list = field(default_factory=list)
    got: list = field(default_factory=list)
    credits: int = 0
    held: int = 0

    def __post_init__(self):
        self.credits = self.depth
        self.sends = self.takes = True

    def step(self, cycle, seen):
        """Take what the router showed in the last cycle; return what to drive in this one."""
        valid, last, credit, data = seen & 1, seen >> 1 & 1, seen >> 2 & 1, seen >> 3
        if valid:
            self.got.append((cycle - 1, data, last))
            self.held += 1
            assert self.held <= self.depth, "the router sent more than it had credits for"
        self.credits += credit
        if cycle % self.spell == 0:
            self.sends = self.chance.random() < self.send
            self.takes = self.chance.random() < self.take
        out = 0
        if self.held and self.takes:
            self.held -= 1
            out |= 4
        if self.queue and self.credits and self.sends:
            flit, final = self.queue.popleft()
            self.sent.append((cycle, flit, final))
            self.credits -= 1
            out |= 1 | final << 1 | flit << 3
        return out


class Bench:
    """A simulator of one mesh, kept from run to run because building it takes longer than most runs."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.simulator = Simulator(mesh)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._step_all)
        self.used = None

    def run(self, ends, *, cycles, until=None):
        """Simulate from reset until `until()` holds, or for `cycles`; return the cycles used."""
        if self.used is not None:
            self.simulator.reset()
        self.ends, self.cycles, self.until, self.used = ends, cycles, until, 0
        self.simulator.run()
        return self.used

    async def _step_all(self, ctx):
        mesh, seen = self.mesh, 0
        mask = (1 << mesh.span) - 1
        for cycle in range(self.cycles):
            drive = 0
            for i, end in enumerate(mesh.ends):
                drive |= self.ends[end].step(cycle, seen >> i * mesh.span & mask) << i * mesh.span
            ctx.set(mesh.drive, drive)
            _, _, seen, fault = await ctx.tick().sample(mesh.watch, mesh.fault)
            assert not fault, f"a router reports a fault in cycle {cycle}"
            self.used = cycle + 1
            if self.until is not None and self.until():
                break


@lru_cache(maxsize=4)
def bench(**parameters):
    """The bench of the mesh with these parameters."""
    return Bench(Mesh(**parameters))
