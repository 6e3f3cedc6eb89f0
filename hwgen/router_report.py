"""`hwgen rtl router --report`: area and critical path of a router in a cell library."""

import json
import re
import shutil
from pathlib import Path

from hwgen.errors import HwgenError
from hwgen.liberty import read_liberty
from hwgen.router_timing import cycle_of_pair
from hwgen.synth import ABC_SCRIPT, LOAD_FF
from hwgen.yosys_jobs import YosysFailure, run_scripts
from sim_tb.workplace import scratch_folder


def router_report(files: dict[str, str], liberty: Path) -> dict:
    """Synthesise a router (what `component_files` returns) flat and map it: no wires, outputs with a load of 30 fF.

    Returns liberty, cells, flip_flops, area (um2), kge (1000 NAND2), path_ps (ABC's combinational delay from and to
    registers or ports) and cycle (the library's unit of time: from register to register over two routers joined east to
    west; None where OpenSTA's `sta` is not installed). Raises HwgenError for a Liberty that Yosys cannot read.
    """
    library = read_liberty(liberty)
    avoid = " ".join(f"-dont_use {cell}" for cell in library.avoided)
    with scratch_folder() as work:
        (work / "router.v").write_text(files["router.v"])
        (work / "cells.lib").write_text(library.text)
        driving = f"set_driving_cell {library.driver}\n" if library.driver else ""
        (work / "constraints").write_text(f"{driving}set_load {LOAD_FF}\n")
        script = [
            "read_verilog router.v", "synth -flatten -top router", "tee -q -o generic.json stat -json",
            f"dfflibmap -liberty cells.lib {avoid}",
            f"abc -liberty cells.lib -constr constraints {avoid} -script {ABC_SCRIPT}", "opt_clean",
            "write_verilog -noattr mapped.v", "tee -q -o cells.json stat -liberty cells.lib -json",
        ]
        try:
            log = run_scripts({"router": script}, work)["router"]
        except YosysFailure as failure:
            raise HwgenError(f"Yosys must accept the router, but says of {failure}") from None
        generic, cells = (json.loads((work / name).read_text())["modules"]["\\router"]
                          for name in ("generic.json", "cells.json"))
        netlist = (work / "mapped.v").read_text()
        cycle = cycle_of_pair(netlist, "router", work / "cells.lib") if shutil.which("sta") else None
    flip_flops = sum(n for kind, n in generic["num_cells_by_type"].items() if "DFF" in kind)
    delays = re.findall(r"Delay = +([0-9.]+) ps", log)
    return {
        "liberty": library.name, "cells": cells["num_cells"], "flip_flops": flip_flops, "area": cells["area"],
        "kge": round(cells["area"] / library.gate_area / 1000, 3), "path_ps": float(delays[-1]), "cycle": cycle,
    }


def as_text(report: dict) -> str:
    """The report in one line."""
    cycle = report["cycle"]
    pair = f", {cycle:.3f} from register to register over two of them" if cycle else ""
    return (f"{report['liberty']}: {report['cells']:,} cells, {report['flip_flops']:,} flip-flops, "
            f"{report['area']:,.0f} um2, {report['kge']:.2f} kGE, path {report['path_ps'] / 1000:.3f} ns{pair}")
