"""Area per MAC lane and critical path of the matrix unit against a bare multiply-accumulate cell, as a table.

    python -m bench.matrix_area [--liberty osu018=PATH --liberty ihp=PATH] [--vlen 32 64] [--weights mxint8 mxfp4]

Each design is synthesised twice (`synth -flatten`, with and without `-booth`), mapped with one abc script, and the
smaller result counts. The bare cell is a signed 8x8 multiply with registered inputs and its own 32-bit accumulator.
Paths are abc's `stime`: combinational delay with a buffer driving and a 30 fF load, no wires.
"""

import argparse
import tempfile
from pathlib import Path

from bench.mapping import OSU018, Mapped, check_liberty, map_cells
from hwgen.arithmetic.mxfp4 import FORMATS
from hwgen.emit.component import component_files

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


def synthesise(verilog: str, top: str, liberty: Path) -> tuple[Mapped, str]:
    """The smaller of the mapped netlists with and without `-booth`, and which it is."""
    with tempfile.TemporaryDirectory() as folder:
        ways = [(map_cells(verilog, top, liberty, Path(folder), booth=booth), "booth" if booth else "plain")
                for booth in (True, False)]
    return min(ways, key=lambda way: way[0].area)


def matrix_unit_verilog(vlen: int, weights: str = "mxint8") -> str:
    """Verilog of `hwgen rtl matrix-unit --set vlen=VLEN --set weights=WEIGHTS`, without memories; top `matrix_unit`."""
    files = component_files("matrix-unit", {"vlen": vlen, "weights": weights})
    return "".join(text for path, text in files.items() if path.endswith(".v"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--liberty", action="append", default=[], metavar="NAME=PATH", help="default: osu018")
    parser.add_argument("--vlen", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--weights", nargs="+", default=["mxint8"], choices=FORMATS)
    options = parser.parse_args()
    libraries = dict(item.split("=", 1) for item in options.liberty) or {"osu018": OSU018}
    print(f"{'library':<10}{'design':<18}{'um2/lane':>10}{'ps':>8}{'area':>7}{'path':>7}  variant")
    for name, path in libraries.items():
        liberty = check_liberty(path)
        bare = synthesise(BARE_CELL, "bare_cell", liberty)
        rows = [("bare cell", bare, 1)]
        rows += [(f"vlen {v} {w}", synthesise(matrix_unit_verilog(v, w), "matrix_unit", liberty), v)
                 for v in options.vlen for w in options.weights]
        for label, (mapped, variant), lanes in rows:
            area = mapped.area / lanes
            print(f"{name:<10}{label:<18}{area:>10.1f}{mapped.delay:>8.0f}{area / bare[0].area:>7.3f}"
                  f"{mapped.delay / bare[0].delay:>7.3f}  {variant}", flush=True)


if __name__ == "__main__":
    main()
