"""One emitted router in Verilator between neighbours in C++ that hold it to its laws in every cycle."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hwgen.emit.verilog import module_files
from hwgen.noc.network import Network
from hwgen.noc.routes import HOST, branches
from hwgen.noc.turns import PORTS
from hwgen.rtl.packet import routing_fields
from sim_tb.verilate import compile_program
from verify.router_laws import network_router

_SOURCE = Path(__file__).with_name("router_bench.cpp")


@dataclass(frozen=True)
class Answer:
    """Of one run: `error` names the law that was broken, or is empty; `flits` were sent in `runs` runs from reset."""

    error: str
    flits: int
    runs: int


def router_verilog(network: Network, *, checks: bool = False) -> str:
    """Verilog of the router of a network for any place in it, module `router`."""
    return module_files({"router": network_router(network)}, checks=checks)["router.v"]


class RouterBench:
    """The bench around `verilog` (default: the network's router with its assertions), compiled in `folder`.

    `mutants`: the module has an input `mutant` that selects one; `quick`: compile faster, run slower.
    """

    def __init__(self, network: Network, folder: Path, verilog: str | None = None, mutants: bool = False,
                 quick: bool = False):
        (folder / "router.v").write_text(verilog or router_verilog(network, checks=True))
        (folder / "router_bench.cpp").write_text(_SOURCE.read_text())
        (folder / "parameters.h").write_text(_parameters(network, mutants))
        # a bus of which a mutant changes one bit looks as if it depended on itself
        control = "`verilator_config\n" + ("lint_off -rule UNOPTFLAT\n" if mutants else "")
        self._program = compile_program(folder, "router", ["router.v", "router_bench.cpp"], control, quick=quick)

    def run(self, timeout: float = 120, **arguments: int) -> Answer:
        """One run with arguments of router_bench.cpp. A run that does not end in time breaks a law, too."""
        words = [f"{key}={value}" for key, value in arguments.items()]
        try:
            done = subprocess.run([self._program, *words], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return Answer("it never settles", 0, 0)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            return Answer(f"the model ends with status {done.returncode}: {done.stderr[-200:]}", 0, 0)
        return Answer(answer.get("error", ""), answer.get("flits", 0), answer.get("runs", 0))


def _parameters(network, mutants):
    fields = routing_fields(width=network.width, height=network.height, flit_bits=network.flit_bits,
                            buffer_flits=network.buffer_flits, multicast=network.multicast)
    destinations = [HOST] + [
        (x0, y0, x1, y1) for y0 in range(network.height) for y1 in range(y0, network.height)
        for x0 in range(network.width) for x1 in range(x0, network.width)
        if network.multicast or (x0, y0) == (x1, y1)
    ]
    class_of = [next(k for k, c in enumerate(network.classes) if v in c.channels)
                for v in range(network.virtual_channels)]
    values = {
        "WIDTH": network.width, "HEIGHT": network.height, "FLIT_BITS": network.flit_bits,
        "DEPTH": network.buffer_flits, "MULTICAST": int(network.multicast), "CASES": len(destinations),
        "ADAPTIVE": int(network.routing in ("west-first", "odd-even")),
    }
    lines = [f"#define CHANNELS {network.virtual_channels}"]
    lines.append(f"#define SET_MUTANT(number) {'top.mutant = number' if mutants else 'static_cast<void>(number)'}")
    lines += [f"constexpr int {name} = {value};" for name, value in values.items()]
    lines += [f"constexpr Field {name.upper()}{{{at}, {bits}}};" for name, (at, bits) in fields.items()]
    lines.append(f"constexpr int CLASS_OF[] = {_braces(class_of)};")
    lines.append(f"constexpr bool FORKS[] = {_braces([int(c.multicast) for c in network.classes])};")
    cases = [(0, 0, 0, 0, 1) if d == HOST else (*d, 0) for d in destinations]
    lines.append(f"constexpr Case DESTINATIONS[CASES] = {_braces(cases)};")
    routes = [[[[_mask(network, c, x, y, port, d) for d in destinations] for port in PORTS]
               for y in range(network.height) for x in range(network.width)] for c in network.classes]
    lines.append(f"constexpr int ROUTES[{len(routes)}][WIDTH * HEIGHT][5][CASES] = {_braces(routes)};")
    return "\n".join(lines) + "\n"


def _mask(network, channel_class, x, y, port, destination):
    """Outputs of a packet in a router, a bit for each of PORTS; 0 if it can never be there."""
    if port not in network.inputs(x, y):
        return 0
    if destination == HOST or destination[:2] == destination[2:]:
        goal = HOST if destination == HOST else destination[:2]
        outputs = network.outputs(channel_class, x, y, port, goal) if channel_class.unicast else ()
    else:
        outputs = branches(x, y, port, destination) if channel_class.multicast else ()
    return sum(1 << PORTS.index(o) for o in outputs)


def _braces(values):
    if isinstance(values, list | tuple):
        return "{" + ", ".join(map(_braces, values)) + "}"
    return str(values)
