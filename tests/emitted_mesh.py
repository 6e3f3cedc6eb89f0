"""The emitted Verilog of a mesh of routers in Verilator or Icarus, with the sources and sinks of `router_mesh`.

`bench` runs inside the simulator: it takes the ends from a file, plays them and puts them back.
"""

import json
import os
import pickle
import tempfile
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from router_mesh import Mesh, arrived, step_all

from hwgen.emit.routers import routers
from hwgen.emit.verilog import module_files
from sim_tb.simulators import compile_chip, run_bench


class EmittedBench:
    """As `router_mesh.Bench`, in a simulator of Verilog; the mesh must be `fitted`."""

    def __init__(self, simulator, *, fitted, **parameters):
        assert fitted
        self.mesh, self.simulator = Mesh(fitted=True, **parameters), simulator
        self._folder = tempfile.TemporaryDirectory()
        self.build = Path(self._folder.name)
        knobs = parameters | {"port_flits": dict(parameters["port_flits"])}
        files = module_files({"mesh": self.mesh, **routers(**knobs)})
        for name, text in files.items():
            (self.build / name).write_text(text)
        (self.build / "manifest.json").write_text(json.dumps({"top": "mesh", "files": list(files)}))
        ports = ("clk", "rst", "drive", "watch", "fault")
        self.compiled = compile_chip(self.build, simulator, quick=True, ports=ports)

    def run(self, ends, *, cycles, until=None):
        """Simulate from reset until each end got as many flits as `until` says, or for `cycles`; the cycles used."""
        exchange, reports = self.build / "ends.pickle", []
        exchange.write_bytes(pickle.dumps((ends, self.mesh.span, self.mesh.channels, cycles, until)))
        run_bench(self.build, self.simulator, self.compiled, {"exchange": str(exchange)}, reports.append,
                  module="emitted_mesh")
        for end, state in pickle.loads(exchange.read_bytes()).items():
            ends[end].__dict__.update(state.__dict__)
        return reports[-1]["used"]


@cocotb.test()
async def bench(dut):
    exchange = Path(json.loads(Path(os.environ["BENCH_REQUEST"]).read_text())["exchange"])
    ends, span, channels, cycles, until = pickle.loads(exchange.read_bytes())
    Clock(dut.clk, 2, unit="ns").start()
    dut.rst.value, dut.drive.value = 1, 0
    for _ in range(2):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    seen = used = 0
    while used < cycles and not arrived(ends, until):
        dut.drive.value = step_all(ends, span, used, seen)
        await ReadOnly()
        assert str(dut.fault.value) == "0", f"a router reports a fault in cycle {used}"
        seen = _known(str(dut.watch.value), span, channels)
        used += 1
        await FallingEdge(dut.clk)
    exchange.write_bytes(pickle.dumps(ends))
    with os.fdopen(int(os.environ["BENCH_REPORT_FD"]), "w") as reports:
        print(json.dumps({"used": used}), file=reports)


def _known(text, span, channels):
    """A number of `watch`: what a link says must be known, what an idle link carries need not."""
    links = [text[i:i + span] for i in range(0, len(text), span)]
    for link in links:
        idle = link[-1 - channels] == "0"
        assert set(link[-1 - channels:] if idle else link) <= {"0", "1"}, f"a router shows {link}"
    return int("".join("0" if bit in "XZUWxz-" else bit for bit in text), 2)
