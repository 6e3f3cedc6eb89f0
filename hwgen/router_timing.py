"""Cycle time of two routers joined east to west, by OpenSTA."""

import re
import subprocess
from pathlib import Path

from hwgen.errors import HwgenError
from sim_tb.workplace import scratch_folder

_PERIOD_NS = 1000
_SCRIPT = """read_liberty {liberty}
read_verilog routers.v
link_design pair
create_clock -name clk -period {period} clk
report_checks -path_delay max -digits 4
exit
"""
_PORT = re.compile(r"^\s*(input|output)\s+(\[\d+:\d+\])?\s*([\w$]+)\s*;", re.M)


def cycle_of_pair(netlist: str, top: str, liberty: Path) -> float:
    """Worst path from register to register with its set-up time, in the library's unit; wires cost nothing.

    `netlist` is Verilog of the mapped module `top`, with the ports of a router. Program `sta` must be on the path.
    """
    with scratch_folder() as work:
        (work / "routers.v").write_text(netlist + _pair(netlist, top))
        (work / "run.tcl").write_text(_SCRIPT.format(liberty=Path(liberty).resolve(), period=_PERIOD_NS))
        run = subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=work, capture_output=True, text=True,
                             stdin=subprocess.DEVNULL)
    slack = re.search(r"(-?[\d.]+)\s+slack", run.stdout)
    if not slack:
        raise HwgenError(f"OpenSTA must time the routers, but says {(run.stdout + run.stderr).strip()[-300:]!r}")
    return _PERIOD_NS - float(slack[1])


def _pair(netlist: str, top: str) -> str:
    """Module `pair`: routers a and b, the east port of a on the west port of b; all other ports are its own."""
    ports, wires, instances = [], [], {"a": [], "b": []}
    for direction, span, name in _PORT.findall(netlist):
        for inst, side in (("a", "east"), ("b", "west")):
            if name == "clk":
                instances[inst].append(".clk(clk)")
            elif name.startswith(f"{side}_"):
                # a link is named after the port of a
                near = name if inst == "a" else _across(name)
                instances[inst].append(f".{name}(link_{near})")
                wires += [f"wire {span} link_{near};\n"] if inst == "a" else []
            else:
                ports.append(f"{direction} {span} {inst}_{name}")
                instances[inst].append(f".{name}({inst}_{name})")
    placed = "".join(f"{top} {inst} ({', '.join(pins)});\n" for inst, pins in instances.items())
    return f"module pair (input clk, {', '.join(ports)});\n{''.join(wires)}{placed}endmodule\n"


def _across(name: str) -> str:
    """The east port that a west port is joined to."""
    return name.replace("west_in", "east_OUT").replace("west_out", "east_in").replace("OUT", "out")
