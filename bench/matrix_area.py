"""Area per MAC lane and critical path of the matrix unit against a bare multiply-accumulate cell, as a table.

    python -m bench.matrix_area [--liberty osu018=PATH --liberty ihp=PATH] [--vlen 32 64]

Each design is synthesised twice (`synth -flatten`, with and without `-booth`), mapped with one abc script, and the
smaller result counts. The bare cell is a signed 8x8 multiply with registered inputs and its own 32-bit accumulator.
Paths are abc's `stime`: combinational delay with a buffer driving and a 30 fF load, no wires.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hwgen.emit.component import component_files

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
ABC_SCRIPT = (
    "+strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;&dch,-f;&nf;&put;buffer,-p;upsize;dnsize;stime,-p"
)
BARE_CELL = """
module bare_cell(input clk, input signed [7:0] a, input signed [7:0] b, output reg signed [31:0] sum);
  reg signed [7:0] a_q, b_q;
  always @(posedge clk) begin
    a_q <= a;
    b_q <= b;
    sum <= sum + a_q * b_q;
  end
endmodule
"""


@dataclass(frozen=True)
class Mapped:
    """One mapped netlist: `area` in the library's unit (um2), `delay` in ps, `booth` if that variant was smaller."""

    area: float
    delay: float
    booth: bool


def _library_options(liberty: Path) -> tuple[str, list[str]]:
    """(driving cell, cells not to use) of a library, told by its cell names."""
    text = liberty.read_text()
    if re.search(r"\bcell \(BUFX2\)", text):
        return "BUFX2", ["TBUF*", "CLKBUF*"]
    if "sg13g2_buf_2" in text:
        return "sg13g2_buf_2", ["sg13g2_dlygate*", "sg13g2_ebufn*", "sg13g2_einvn*", "sg13g2_lgcp*", "sg13g2_slgcp*"]
    raise SystemExit(f"Liberty must be osu018 or sg13g2, not {liberty}")


def _map_once(verilog: str, top: str, liberty: Path, booth: bool) -> Mapped:
    driver, unused = _library_options(liberty)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "in.v").write_text(verilog)
        (work / "constraints").write_text(f"set_driving_cell {driver}\nset_load 30\n")
        avoid = " ".join(f"-dont_use {cell}" for cell in unused)
        script = [
            f"read_verilog {work}/in.v",
            f"synth -flatten {'-booth' if booth else ''} -top {top}",
            f"dfflibmap -liberty {liberty}",
            f"abc -liberty {liberty} -constr {work}/constraints {avoid} -script {ABC_SCRIPT}",
            "opt_clean",
            f"stat -liberty {liberty}",
        ]
        lines = "\n".join(f"libyosys.run_pass({step!r}, design)" for step in script)
        code = f"from pyosys import libyosys\ndesign = libyosys.Design()\n{lines}\n"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    areas = re.findall(r"Chip area for .*?: ([0-9.]+)", run.stdout)
    delays = re.findall(r"Delay = +([0-9.]+) ps", run.stdout)
    if run.returncode or not areas or not delays:
        raise SystemExit(f"Synthesis of {top} failed:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    return Mapped(float(areas[-1]), float(delays[-1]), booth)


def synthesise(verilog: str, top: str, liberty: Path) -> Mapped:
    """The smaller of the mapped netlists with and without `-booth`."""
    return min((_map_once(verilog, top, liberty, booth) for booth in (True, False)), key=lambda m: m.area)


def matrix_unit_verilog(vlen: int) -> str:
    """Verilog of `hwgen rtl matrix-unit --set vlen=VLEN`, which holds no memory; top module `matrix_unit`."""
    files = component_files("matrix-unit", {"vlen": vlen})
    return "".join(text for path, text in files.items() if path.endswith(".v"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--liberty", action="append", default=[], metavar="NAME=PATH", help="default: osu018")
    parser.add_argument("--vlen", type=int, nargs="+", default=[32, 64])
    options = parser.parse_args()
    libraries = dict(item.split("=", 1) for item in options.liberty) or {"osu018": OSU018}
    print(f"{'library':<10}{'design':<18}{'um2/lane':>10}{'ps':>8}{'area':>7}{'path':>7}  variant")
    for name, path in libraries.items():
        liberty = Path(path)
        if not liberty.is_file():
            raise SystemExit(f"Liberty file must exist, not {path}")
        bare = synthesise(BARE_CELL, "bare_cell", liberty)
        rows = [("bare cell", bare, 1)]
        rows += [(f"vlen {v}", synthesise(matrix_unit_verilog(v), "matrix_unit", liberty), v) for v in options.vlen]
        for label, mapped, lanes in rows:
            area = mapped.area / lanes
            print(f"{name:<10}{label:<18}{area:>10.1f}{mapped.delay:>8.0f}{area / bare.area:>7.3f}"
                  f"{mapped.delay / bare.delay:>7.3f}  {'booth' if mapped.booth else 'plain'}", flush=True)


if __name__ == "__main__":
    main()
