"""Folding of numbered wires: what may be folded, what may not, and that the circuit stays the same."""

import subprocess
import sys

import pytest

from hwgen.emit import fold as folding
from hwgen.emit.fold import fold
from hwgen.emit.verilog import module_files
from hwgen.noc.turns import sides_of
from hwgen.rtl.router import Router

_EQUIVALENCE = """
from pyosys import libyosys
design = libyosys.Design()
for line in '''
read_verilog before.v
rename {top} gold
read_verilog after.v
rename {top} gate
proc
opt_clean
equiv_make gold gate equiv
cd equiv
opt_merge -share_all
equiv_simple -undef
equiv_status -assert
'''.split("\\n")[1:-1]:
    libyosys.run_pass(line, design)
"""


def module(*assignments, wires=()):
    ports = ["input [3:0] a;", "input [3:0] b;", "input [7:0] c;", "input signed [3:0] s;", "output [7:0] y;"]
    body = [*ports, *wires, *(f"assign {text};" for text in assignments)]
    return "module m(a, b, c, s, y);\n" + "".join(f"  {line}\n" for line in body) + "endmodule\n"


def is_equivalent(folder, before, after, top):
    (folder / "before.v").write_text(before)
    (folder / "after.v").write_text(after)
    run = subprocess.run([sys.executable, "-c", _EQUIVALENCE.format(top=top)], cwd=folder, capture_output=True)
    return run.returncode == 0


@pytest.mark.parametrize("expression, bits, inside", [
    ("a & b", 4, "(a & b)"),
    ("a ? b : c", 8, "(a ? b : c)"),
    ("a == b", 1, "(a == b)"),
    ("| a", 1, "(| a)"),
    ("~ c [0]", 1, "(! c [0])"),
    ("c [7:4]", 4, "c [7:4]"),
    ("{ a, b }", 8, "{ a, b }"),
])
def test_folds(tmp_path, expression, bits, inside):
    wire = f"wire [{bits - 1}:0] _1_;" if bits > 1 else "wire _1_;"
    before = module(f"_1_ = {expression}", "y = c | _1_", wires=[wire])
    after = fold(before)
    assert f"  assign y = c | {inside};\n" in after
    assert "_1_" not in after
    assert is_equivalent(tmp_path, before, after, "m")


@pytest.mark.parametrize("expression, bits, use", [
    ("a + b", 4, "c | _1_"),
    ("~ a", 4, "c | _1_"),
    ("a & b", 3, "c | _1_"),
    ("a & b", 5, "c | _1_"),
    ("s", 4, "c | _1_"),
    ("a >> b", 4, "c | _1_"),
    ("$signed(a) < $signed(b)", 1, "c | _1_"),
    ("a & b", 4, "c | _1_ [2]"),
    ("a & b", 4, "_1_ ^ { _1_, 2'h0 }"),
])
def test_leaves_what_would_change_or_repeat(expression, bits, use):
    wire = f"wire [{bits - 1}:0] _1_;" if bits > 1 else "wire _1_;"
    text = module(f"_1_ = {expression}", f"y = {use}", wires=[wire])
    assert fold(text) == text


def test_length_is_bounded(monkeypatch):
    monkeypatch.setattr(folding, "LONGEST", 30)
    wires = [f"wire [3:0] _{i}_;" for i in range(12)]
    chain = [f"_{i}_ = a ^ {f'_{i - 1}_' if i else 'b'}" for i in range(12)]
    after = fold(module(*chain, "y = c & _11_", wires=wires))
    assert all(len(line) <= len("  assign _10_ = ;") + 34 for line in after.splitlines() if "assign" in line)
    assert 3 <= after.count("assign") < 12


def test_a_component_stays_equivalent(tmp_path, monkeypatch):
    def files():
        router = Router(width=3, height=2, flit_bits=32, buffer_flits=2, multicast=True, sides=sides_of(3, 2, 0, 1))
        return module_files({"router": router})["router.v"]

    after = files()
    monkeypatch.setattr("hwgen.emit.verilog.fold", lambda text: text)
    before = files()
    assert after.count("assign") < 0.6 * before.count("assign")
    assert is_equivalent(tmp_path, before, after, "router")
    wrong = after.replace("order_local_north)", "order_local_east)", 1)
    assert wrong != after and not is_equivalent(tmp_path, before, wrong, "router")
