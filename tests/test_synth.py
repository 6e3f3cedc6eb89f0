import gzip
import json
import tempfile
import time

import pytest
from rich.console import Console
from small_chip import chip_manifest

from hwgen.errors import HwgenError
from hwgen.formats import SYNTHESIS
from hwgen.synth import as_table, synthesise
from hwgen.template_files import environment
from hwgen.yosys_jobs import YosysFailure, run_scripts

VERILOG = {
    "chip": """
module chip(input clk, input rst, input [3:0] a, output [3:0] y, output [7:0] data);
  node_t n0(.clk(clk), .rst(rst), .a(a[0]), .y(y[0]));
  node_t n1(.clk(clk), .rst(rst), .a(a[1]), .y(y[1]));
  toggle t(.clk(clk), .rst(rst), .a(a[2]), .y(y[2]));
  rom #(.WIDTH(8), .DEPTH(5), .ADDRESS(3)) rom_0(.clk(clk), .read_en(a[3]), .read_addr(a[2:0]), .read_data(data));
endmodule
""",
    "node_t": """
module node_t(input clk, input rst, input a, output y);
  wire [2:0] w;
  toggle t0(.clk(clk), .rst(rst), .a(a), .y(w[0]));
  toggle t1(.clk(clk), .rst(rst), .a(w[0]), .y(w[1]));
  pair p(.clk(clk), .rst(rst), .a(w[1]), .y(y));
endmodule
""",
    "pair": """
module pair(input clk, input rst, input a, output y);
  wire w;
  reg [1:0] r;
  toggle t(.clk(clk), .rst(rst), .a(a), .y(w));
  always @(posedge clk) r <= {r[0], w};
  assign y = r[1];
endmodule
""",
    "toggle": """
module toggle(input clk, input rst, input a, output reg y);
  always @(posedge clk) y <= y ^ a;
endmodule
""",
}
CELLS = """
library (mini) {
  delay_model : table_lookup; time_unit : "1ns"; capacitive_load_unit (1, pf);
  lu_table_template (t) { variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0.01, 1.0"); index_2 ("0.001, 0.1"); }
"""


def gate(name, area, function, inputs):
    tables = "\n".join(f'{kind} (t) {{ values ("0.1, 0.3", "0.2, 0.5"); }}'
                       for kind in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 0.002; }}\n" for pin in inputs)
    sense = "positive_unate" if function == "A" else "negative_unate"
    timing = "".join(f'timing () {{ related_pin : "{pin}"; timing_sense : {sense}; {tables} }}\n' for pin in inputs)
    return (f'cell ({name}) {{ area : {area};\n{pins}pin (Y) {{ direction : output; max_capacitance : 1;\n'
            f'function : "{function}";\n{timing} }} }}\n')


LIBERTY = (CELLS + gate("INVX1", 2, "!A", "A") + gate("NAND2X1", 4, "!(A B)", "AB") + gate("BUFX2", 3, "A", "A") + """
cell (DFFX1) { area : 20; ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
  pin (CK) { direction : input; capacitance : 0.002; clock : true; } pin (D) { direction : input; capacitance : 0.002; }
  pin (Q) { direction : output; function : "IQ"; } }
}
""")


@pytest.fixture
def build(tmp_path, monkeypatch):
    name = "-a b#c;d:e$f'g\"h%i é*j\nk"
    (tmp_path / f"tmp {name}").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / f"tmp {name}"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / name
    (folder / "rtl").mkdir(parents=True)
    for name, text in VERILOG.items():
        (folder / "rtl" / f"{name}.v").write_text(text)
    for name in ("rom", "sram"):
        (folder / "rtl" / f"{name}.v").write_text(environment().get_template(f"{name}.v.j2").render())
    files = [f"rtl/{name}.v" for name in ("rom", "sram", *reversed(VERILOG))]
    (folder / "manifest.json").write_text(json.dumps(chip_manifest(files=files)))
    return folder


def shown(modules):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(as_table(modules))
    return console.export_text()


def test_generic_cells_add_up(build):
    modules = synthesise(build)
    found = {entry["module"]: entry for entry in modules}
    assert {name: e["kind"] for name, e in found.items()} == {
        "rom": "memory", "node_t": "composition", "pair": "logic", "toggle": "logic", "chip": "composition"}
    assert {name: e["instances"] for name, e in found.items()} == {
        "rom": 1, "node_t": 2, "pair": 2, "toggle": 7, "chip": 1}
    assert found["toggle"]["by_type"] == {"$_DFF_P_": 1, "$_XOR_": 1}
    assert found["pair"]["by_type"] == {"$_DFF_P_": 2}
    assert found["pair"]["parts"] == {"toggle": 1}
    assert found["pair"]["all_cells"] == 4
    assert modules[-1]["module"] == "chip"
    assert (modules[-1]["all_cells"], modules[-1]["all_flip_flops"]) == (7 * 2 + 2 * 2, 7 + 2 * 2)
    assert all(entry["area"] is None and entry["kge"] is None and entry["path_ps"] is None for entry in modules)
    text = shown(modules)
    assert "black box" in text and "whole chip" in text and "kGE" not in text


def test_results_are_kept_and_shown(build):
    modules = synthesise(build)
    kept = (build / "synth.json").read_bytes()
    assert json.loads(kept) == {"format": SYNTHESIS.mark, "liberty": None, "modules": modules}
    assert "Yosys generic gates" in (build / "report.html").read_text(encoding="utf-8")
    synthesise(build)
    assert (build / "synth.json").read_bytes() == kept
    assert {path.name for path in build.iterdir()} == {"manifest.json", "rtl", "report.html", "synth.json"}


@pytest.mark.parametrize("packed", [False, True])
def test_liberty_gives_area_and_path(build, tmp_path, packed):
    path = tmp_path / ("mini.lib.gz" if packed else "mini.lib")
    path.write_bytes(gzip.compress(LIBERTY.encode()) if packed else LIBERTY.encode())
    modules = synthesise(build, path)
    found = {entry["module"]: entry for entry in modules}
    cells = found["toggle"]["by_type"]
    assert cells["DFFX1"] == 1 and set(cells) <= {"DFFX1", "INVX1", "NAND2X1", "BUFX2"}
    areas = {"DFFX1": 20, "INVX1": 2, "NAND2X1": 4, "BUFX2": 3}
    assert found["toggle"]["area"] == sum(areas[kind] * n for kind, n in cells.items())
    assert found["toggle"]["path_ps"] > 100
    chip = modules[-1]
    assert chip["all_area"] == 7 * found["toggle"]["area"] + 2 * found["pair"]["area"]
    assert chip["kge"] == pytest.approx(chip["all_area"] / 4 / 1000)
    assert json.loads((build / "synth.json").read_text())["liberty"] == path.name
    assert "path ns" in shown(modules)


@pytest.mark.parametrize(("content", "rule"), [
    (None, "must be a readable .lib or .lib.gz file"),
    (b"hello", "must be a library of standard cells"),
    (b"library (ram) { cell (RAM) { area : 5; } }", "must be a library of standard cells"),
    (gzip.compress(LIBERTY.encode())[:300], "must be a readable .lib or .lib.gz file"),
])
def test_other_files_are_no_liberty(build, tmp_path, content, rule):
    path = tmp_path / "cells.lib"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HwgenError, match=f"^Liberty {rule}.*, not .*cells.lib"):
        synthesise(build, path)
    assert not (build / "synth.json").exists()


def test_broken_liberty_names_what_yosys_says(build, tmp_path):
    (tmp_path / "cells.lib").write_text(LIBERTY.replace("lu_table_template", "lu_table_template {"))
    with pytest.raises(HwgenError, match="^Yosys must accept"):
        synthesise(build, tmp_path / "cells.lib")
    assert not (build / "synth.json").exists()


def test_missing_and_broken_verilog(build):
    (build / "rtl" / "pair.v").write_text("module pair(input clk; endmodule\n")
    with pytest.raises(HwgenError, match=r"Yosys must accept the chip in .* says of structure: .*pair.v:1"):
        synthesise(build)
    (build / "rtl" / "pair.v").unlink()
    with pytest.raises(HwgenError, match="BUILD must hold the file rtl/pair.v that its manifest.json names"):
        synthesise(build)


def test_first_failure_ends_the_others(tmp_path):
    start = time.monotonic()
    with pytest.raises(YosysFailure, match="bad: ERROR: No such command: nonsense"):
        run_scripts({"slow": ["exec -- sleep 60"], "bad": ["nonsense"]}, tmp_path)
    assert time.monotonic() - start < 30
