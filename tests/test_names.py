# amaranth: UnusedElaboratable=no
"""Names in the emitted Verilog: plain, unlike, and no words of the language."""

import subprocess

import pytest
from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from names_check import check_names

from hwgen.design import Design, TileClass
from hwgen.emit.component import KNOBS, component_files
from hwgen.emit.mesh import mesh_files
from hwgen.emit.names import plain, with_plain_names
from hwgen.emit.verilog import module_files, module_name

_SMALL = {
    "router": {"width": 2, "height": 2, "flit_bits": 32, "virtual_channels": 2, "routing": "odd-even"},
    "tile": {"fetch": 2, "stations": 2, "vlen": 8, "lanes": 2, "streams": 2, "weights": "mxfp4", "flit_bits": 32},
    "matrix-unit": {"vlen": 8, "streams": 2},
    "vector-unit": {"lanes": 1, "vlen": 8, "streams": 2},
    "rom": {"wmem_kib": 1},
}

@pytest.mark.parametrize("kind", KNOBS)
def test_names_of_every_component(kind):
    for name, text in component_files(kind, _SMALL[kind]).items():
        if name.endswith(".v"):
            check_names(text)


def test_names_of_a_mesh():
    for text in mesh_files(Design(2, 1, link_registers=1, classes=(TileClass("a"),))).values():
        check_names(text)


@pytest.mark.parametrize(("name", "wanted"), [
    ("counters[3]", "counters_3"), ("context.dkind", "context_dkind"), ("a[3][12].b", "a_3_12_b"),
    ("part$signal", "part__signal"), ("part$$signal$3", "part__signal_3"), ("$signal", "signal"),
    ("plain", "plain"), ("_12_", "_12_"), ("kept_", "kept_"), ("begin", "begin_"), ("logic", "logic_"), ("$7", "n_7"),
    ("[]", "n_"), ("größe", "gr_e"), ("checker[0]", "checker_0"), ("table.", "table_"),
])
def test_plain_names(name, wanted):
    assert plain(name) == wanted


def test_names_that_would_meet_get_numbers():
    text = r"""
  wire [3:0] \a[1] ;
  wire [3:0] a_1;
  wire \a.1 ;
  reg [7:0] \a(1) [15:0];
  wire a_1_2;
  wire b$c ;
  wire \begin ;
  assign \a[1] [2] = a_1[0] & 4'ha; // \a[1]
  assign a_1_2 = { \a.1 , \begin , b$c  };
  part \end  (.a(\a.1 ), .\begin (b$c [1]), .begin_(1'h0));
  initial $display("\a[1] %d\n", \a[1] );
"""
    assert with_plain_names(text) == r"""
  wire [3:0] a_1_3;
  wire [3:0] a_1;
  wire a_1_4;
  reg [7:0] a_1_5[15:0];
  wire a_1_2;
  wire b__c;
  wire begin_;
  assign a_1_3[2] = a_1[0] & 4'ha; // \a[1]
  assign a_1_2 = { a_1_4, begin_, b__c };
  part end_ (.a(a_1_4), .begin_(b__c[1]), .begin_(1'h0));
  initial $display("\a[1] %d\n", a_1_3);
"""


class Table(wiring.Component):
    """A part whose class, ports and signals are words of the language, or look alike."""

    def __init__(self, *, routing):
        self.routing = routing
        super().__init__({"begin": In(4), "final": Out(4), "logic": In(data.StructLayout({"bit": 2, "int": 2}))})

    def elaborate(self, platform):
        m = Module()
        values = [Signal(4, name=name) for name in ("a[0]", "a_0", "a.0", "reg", "a$0", "checker", "a[0]")]
        m.submodules["memory[0]"] = memory = Memory(shape=4, depth=4, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.d.comb += [read.addr.eq(self.begin), write.addr.eq(self.logic.int), write.en.eq(1), write.data.eq(self.begin)]
        m.d.sync += [value.eq(self.begin ^ read.data ^ number) for number, value in enumerate(values)]
        m.d.comb += self.final.eq(Array(values)[self.begin] + self.logic.bit)
        return m


class Outer(wiring.Component):
    def __init__(self):
        super().__init__({"begin": In(4), "o": Out(4)})

    def elaborate(self, platform):
        m = Module()
        for name in ("module", "a[1]", "a_1"):
            part = Table(routing="odd-even")
            m.submodules[name] = platform.place(part)
            m.d.comb += [part.begin.eq(self.begin ^ self.o), part.logic.eq(self.begin)]
            m.d.sync += self.o.eq(part.final)
        return m


def test_words_of_the_language_as_names_of_everything(tmp_path):
    files = module_files({"outer": Outer()})
    assert sorted(files) == ["outer.v", "table_odd_even.v"] and module_name(Table(routing="xy")) == "table_xy"
    for name, text in files.items():
        check_names(text)
        (tmp_path / name).write_text(text)
    assert "input [3:0] begin_;" in files["outer.v"] and "  table_odd_even module_ (" in files["outer.v"]
    compiled = subprocess.run(["iverilog", "-g2012", "-Wall", "-s", "outer", "-o", "x.vvp", *files], cwd=tmp_path,
                              capture_output=True, text=True)
    assert (compiled.returncode, compiled.stderr) == (0, "")
    assert files == module_files({"outer": Outer()})
