"""`hwgen noc-bench`: load-latency curves, saturation and all-gather times of a design's routers, from their Verilog."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from hwgen.design import Design
from hwgen.emit.mesh import mesh_files
from hwgen.emit.write import write_files, write_folder
from hwgen.errors import HwgenError
from hwgen.noc.network import bits_for
from hwgen.noc_report import noc_report
from hwgen.rtl.packet import MAX_UNICAST_FLITS, routing_fields
from hwgen.template_files import environment
from sim_tb.errors import SimulatorError
from sim_tb.verilate import compile_program
from sim_tb.workplace import scratch_folder

PATTERNS = ("uniform", "transpose", "bit-complement", "hotspot", "neighbour", "all-gather")
LONGEST = MAX_UNICAST_FLITS + 1
"""Flits of the longest unicast packet, its header included."""
ACCEPTED = 0.99
"""Share of the offered load that must arrive for a load to count as accepted."""
GATHERED = (4, 16, 64)
"""Flits of the messages that all nodes gather."""
_FRACTIONS = (0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0, 1.05)
"""Loads of a curve, as parts of the load at saturation."""
_STEPS = 9
_NUMBER_BITS = (10, 16)
"""Least and most bits of a packet's number in its flits; more packets than that must not be under way from a node."""
_CONTROL_FILE = '`verilator_config\nno_inline -module "router*"\n'


def noc_bench(design: Design, *, patterns: Sequence[str] | None = None, loads: Sequence[float] | None = None,
              flits: Sequence[int] = (1, 4), cycles: int = 10000, seed: int = 0,
              on_stage: Callable[[str], None] | None = None) -> dict:
    """Compile the network of a design and `measure` it; `on_stage` is told what is under way."""
    patterns = check_request(design, patterns, loads, flits, cycles)
    stage = on_stage or (lambda what: None)
    with scratch_folder() as folder:
        stage("compiling the mesh")
        mesh = MeshBench(design, folder)
        return measure(mesh, patterns=patterns, loads=loads, flits=flits, cycles=cycles, seed=seed, on_stage=stage)


def measure(mesh: "MeshBench", *, patterns: Sequence[str] | None = None, loads: Sequence[float] | None = None,
            flits: Sequence[int] = (1, 4), cycles: int = 10000, seed: int = 0,
            on_stage: Callable[[str], None] | None = None) -> dict:
    """Curves, saturation and all-gather times; all values are ready for JSON.

    Loads count flits that arrive per sending node and cycle. A run warms up for `cycles` / 2, then measures packets
    created in `cycles`. Latency: from a packet's creation at its source to the arrival of its last flit, in cycles.

    Parameters: `patterns` of PATTERNS (default all that the design can carry); `loads` of the curves (default up to
    saturation and just beyond); `flits` of a packet, header included; `on_stage` is told what is under way.

    Returns design, cycles, seed, accepted, curves (pattern, flits, saturation: the highest load of which `accepted`
    arrives, points) and all_gather (flits of a node's message; bound: what a node's port takes to receive the others';
    cycles by unicast to the next node, the one after it, and so on, and by multicast in packets of several lengths).
    Raises HwgenError for what cannot be measured, and where a flit is lost, changed, doubled, misdelivered or out of
    order.
    """
    design = mesh.design
    patterns = check_request(design, patterns, loads, flits, cycles)
    stage = on_stage or (lambda what: None)
    curves = []
    for pattern in patterns:
        for length in flits:
            if pattern == "all-gather" and length > design.buffer_flits:
                continue  # no multicast may be longer than a buffer
            stage(f"{pattern}, packets of {length} flit{'s' if length > 1 else ''}")
            curves.append(_curve(mesh, pattern, length, loads, cycles, seed))
    stage("all-gather")
    network = ("width", "height", "flit_bits", "virtual_channels", "buffer_flits", "routing", "multicast",
               "link_registers")
    return {
        "design": {key: getattr(design, key) for key in network}, "cycles": cycles, "seed": seed,
        "accepted": ACCEPTED, "curves": curves,
        "all_gather": [_all_gather(mesh, length, seed) for length in GATHERED],
    }


def write_noc_bench(output: Path, result: dict, force: bool = False) -> None:
    """Write noc.json and noc.html as the whole of a folder, see `hwgen.emit.write.write_folder`."""
    write_folder(output, {"noc.json": json.dumps(result, indent=1) + "\n", "noc.html": noc_report(result)}, force)


class MeshBench:
    """The emitted mesh of a design's routers with sources and sinks, compiled by Verilator in `folder`."""

    def __init__(self, design: Design, folder: Path, quick: bool = False):
        self.design = design
        parameters = _parameters(design)
        verilog = mesh_files(design)
        loader = environment().loader
        source, _, _ = loader.get_source(environment(), "mesh_bench.cpp")
        write_files(folder, verilog | {"mesh_bench.cpp": source, "parameters.h": parameters})
        try:
            self._program = compile_program(
                folder, "mesh", [*verilog, "mesh_bench.cpp"], _CONTROL_FILE, quick=quick)
        except SimulatorError as error:
            raise HwgenError(str(error)) from None

    def run(self, pattern: str, **arguments) -> dict:
        """One run; arguments and answer are those of templates/mesh_bench.cpp. Raises HwgenError if something is wrong.

        Answer: offered, accepted (flits that arrive per sending node and cycle), packets, flits (arrived), cycles, and
        if the run drained latency, latency_p99 and latency_max of packets created in the window.
        """
        words = [f"{key}={value}" for key, value in {"pattern": pattern, **arguments}.items()]
        done = subprocess.run([self._program, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            complaint = done.stderr.strip()[-400:] or "nothing"
            raise HwgenError(f"Program of the mesh's bench must run to its end, but stopped with status "
                             f"{done.returncode} and says: {complaint}") from None
        if "error" in answer:
            raise HwgenError(f"The network must deliver every packet once, whole and in order, but under {pattern} in "
                             f"{answer['error']}")
        return answer


def _curve(mesh, pattern, length, loads, cycles, seed):
    common = {"flits": length, "cycles": cycles, "warm": cycles // 2, "seed": seed}
    low, high = 0.0, 1.0
    for step in range(_STEPS + 1):
        load = 1.0 if step == 0 else (low + high) / 2
        if _accepts(mesh.run(pattern, load=load, drain=0, **common)):
            low = load
            if step == 0:
                break
        else:
            high = load
    chosen = loads if loads is not None else [min(1.0, round(low * part, 4)) for part in _FRACTIONS]
    points = [{"load": load, **mesh.run(pattern, load=load, **common)} for load in sorted(set(chosen))]
    return {"pattern": pattern, "flits": length, "saturation": round(low, 4), "points": points}


def _accepts(answer):
    return answer["accepted"] >= ACCEPTED * answer["offered"] > 0


def _all_gather(mesh, length, seed):
    design = mesh.design
    # every node takes (nodes - 1) messages through a port of one flit a cycle
    entry = {"flits": length, "bound": (design.tiles - 1) * length, "multicast": []}
    entry["unicast"] = mesh.run("gather-unicast", flits=length, seed=seed)["completion"]
    if design.multicast:
        depth = design.buffer_flits
        for piece in sorted({1, depth // 2, depth - 1, depth}):
            run = mesh.run("gather-multicast", flits=length, piece=piece, seed=seed)
            entry["multicast"].append({"packet_flits": piece, "cycles": run["completion"]})
    return entry


def keeps_order(design: Design) -> bool:
    """Whether packets of one class from one node to another stay in order: one path, and one queue at each hop."""
    return design.routing in ("xy", "yx", "o1turn") and all(len(c.channels) == 1 for c in design.network.classes)


def _mask(channel_class):
    """A bit for each virtual channel of a class."""
    return sum(1 << v for v in channel_class.channels)


def _parameters(design):
    """parameters.h of the bench."""
    fields = routing_fields(width=design.width, height=design.height, flit_bits=design.flit_bits,
                            buffer_flits=design.buffer_flits, multicast=design.multicast)
    routing, source = sum(bits for _, bits in fields.values()), bits_for(design.tiles - 1)
    least, most = _NUMBER_BITS
    number = min(design.flit_bits - routing, design.flit_bits - bits_for(LONGEST), source + most) - source
    if number < least:
        raise HwgenError(f"flit_bits must be at least {design.flit_bits + least - number} to tell packets of this "
                         f"mesh apart, not {design.flit_bits}")
    classes = design.network.classes
    unicast = [_mask(c) for c in classes if c.unicast]
    values = {
        "WIDTH": design.width, "HEIGHT": design.height, "FLIT_BITS": design.flit_bits, "DEPTH": design.buffer_flits,
        "CHANNELS": design.virtual_channels, "VC_BITS": max(1, bits_for(design.virtual_channels - 1)),
        "MULTICAST": int(design.multicast), "LONGEST": LONGEST, "ROUTING_BITS": routing, "SOURCE_BITS": source,
        "NUMBER_BITS": number, "CHECK_ORDER": int(keeps_order(design)), "MULTICAST_CLASS": _mask(classes[-1]),
    }
    lines = [f"constexpr int {name} = {value};" for name, value in values.items()]
    lines += [f"constexpr Field {name.upper()}{{{at}, {bits}}};" for name, (at, bits) in fields.items()]
    lines += [f"constexpr int UNICAST_CLASSES[] = {{{', '.join(map(str, unicast))}}};", ""]
    return "\n".join(lines)


def check_request(design: Design, patterns, loads, flits, cycles: int) -> list[str]:
    """The patterns to measure, see `measure`. Raises HwgenError for what cannot be measured."""
    for load in loads or ():
        if not 0 < load <= 1:
            raise HwgenError(f"Load must be above 0 and at most 1 flit per node and cycle, not {load!r}")
    for length in flits:
        if not 1 <= length <= LONGEST:
            raise HwgenError(f"Packet must be 1 to {LONGEST} flits long, not {length!r}")
    if cycles < 100:
        raise HwgenError(f"Cycles must be at least 100, not {cycles!r}")
    if design.tiles < 2:
        raise HwgenError("Mesh of noc-bench must be at least 2 nodes, not 1")
    unable = {}
    if design.width != design.height:
        unable["transpose"] = f"have a square mesh, not {design.width}x{design.height}"
    if not design.multicast:
        unable["all-gather"] = "have a design with multicast, not without (its time by unicast is always measured)"
    if patterns is None:
        return [name for name in PATTERNS if name not in unable]
    for name in patterns:
        if name not in PATTERNS:
            raise HwgenError(f"Pattern must be {', '.join(PATTERNS[:-1])} or {PATTERNS[-1]}, not {name!r}")
        if name in unable:
            raise HwgenError(f"Pattern {name} must {unable[name]}")
    return list(patterns)
