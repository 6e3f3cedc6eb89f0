"""One way from Verilog to mapped cells for every comparison of the benches: Yosys, abc with buffering and sizing."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
ABC_SCRIPT = (
    "+strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;&dch,-f;&nf;&put;buffer,-p;upsize;dnsize;stime,-p"
)


@dataclass(frozen=True)
class Mapped:
    """A mapped netlist: `area` in the library's unit (um2), `delay` in ps (abc's `stime`, no wires)."""

    area: float
    delay: float
    netlist: str


def check_liberty(liberty: Path) -> Path:
    """The path, if there is such a file; ends the bench otherwise."""
    if not Path(liberty).is_file():
        raise SystemExit(f"Liberty file must exist, not {liberty}")
    return Path(liberty)


def _library_options(liberty: Path) -> tuple[str, list[str]]:
    """(driving cell, cells not to use) of a library, told by its cell names."""
    text = liberty.read_text()
    if re.search(r"\bcell \(BUFX2\)", text):
        return "BUFX2", ["TBUF*", "CLKBUF*"]
    if "sg13g2_buf_2" in text:
        return "sg13g2_buf_2", ["sg13g2_dlygate*", "sg13g2_ebufn*", "sg13g2_einvn*", "sg13g2_lgcp*", "sg13g2_slgcp*"]
    raise SystemExit(f"Liberty must be osu018 or sg13g2, not {liberty}")


def map_cells(verilog: str, top: str, liberty: Path, work: Path, *, booth: bool = False) -> Mapped:
    """Synthesise `top` flat and map it, files in `work`: a buffer of drive 2 drives, every output has 30 fF."""
    driver, unused = _library_options(liberty)
    (work / "in.v").write_text(verilog)
    (work / "constraints").write_text(f"set_driving_cell {driver}\nset_load 30\n")
    avoid = " ".join(f"-dont_use {cell}" for cell in unused)
    script = [
        f"read_verilog {work}/in.v",
        f"synth -flatten {'-booth' if booth else ''} -top {top}",
        f"dfflibmap -liberty {liberty}",
        f"abc -liberty {liberty} -constr {work}/constraints {avoid} -script {ABC_SCRIPT}",
        "opt_clean",
        f"write_verilog -noattr {work}/mapped.v",
        f"stat -liberty {liberty}",
    ]
    lines = "\n".join(f"libyosys.run_pass({step!r}, design)" for step in script)
    code = f"from pyosys import libyosys\ndesign = libyosys.Design()\n{lines}\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    areas = re.findall(r"Chip area for .*?: ([0-9.]+)", run.stdout)
    delays = re.findall(r"Delay = +([0-9.]+) ps", run.stdout)
    if run.returncode or not areas or not delays:
        raise SystemExit(f"Synthesis of {top} failed:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    return Mapped(float(areas[-1]), float(delays[-1]), (work / "mapped.v").read_text())
