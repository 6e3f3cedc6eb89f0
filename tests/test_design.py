"""Design files: presets load, and everything a user can get wrong has its sentence."""

from pathlib import Path

import pytest

from hwgen.design import Design, parse_design, read_design
from hwgen.errors import HwgenError

PRESETS = sorted((Path(__file__).parent.parent / "examples/designs").glob("*.yaml"))
TILE = "tiles:\n  - name: a\n"
MESH = "width: 2\nheight: 2\n"


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_presets_load(path):
    design = read_design(path)
    assert isinstance(design, Design) and len(design.node_class) == design.tiles


def test_there_are_the_presets_promised():
    assert {"1x1", "2x2", "2x2-heterogeneous", "4x4"} <= {p.stem for p in PRESETS}


@pytest.mark.parametrize(("routing", "channels", "multicast", "classes"), [
    ("xy", 1, "true", 1), ("xy", 4, "true", 1), ("yx", 1, "false", 1), ("yx", 2, "true", 2), ("o1turn", 2, "false", 2),
    ("o1turn", 4, "true", 3), ("west-first", 2, "true", 2), ("odd-even", 1, "false", 1),
])
def test_accepts_every_routing_with_channels_enough(routing, channels, multicast, classes):
    design = parse_design(f"{MESH}routing: {routing}\nvirtual_channels: {channels}\nmulticast: {multicast}\n"
                          f"flit_bits: 512\n{TILE}")
    assert (design.network.routing, len(design.network.classes)) == (routing, classes)


def test_ports_may_have_deeper_buffers():
    design = parse_design(f"{MESH}buffer_flits: 3\nport_flits: {{west: 8, local: 3, east: 16}}\n{TILE}")
    assert design.port_flits == (("east", 16), ("west", 8)) and design.link_registers == 0


def test_first_class_takes_the_rest():
    design = parse_design(MESH + 'tiles:\n  - name: a\n  - name: b\n    at: "1,0-1,1"\n    vlen: 64\n')
    assert design.node_class == (0, 1, 0, 1)
    assert design.tile_class(3).vlen == 64


@pytest.mark.parametrize(("text", "message"), [
    ("width: 1\nwidth: 2\n", "d.yaml:2:1: key width must occur once, not twice"),
    ("widht: 1\n", "d.yaml:1:1: a design has no key 'widht'; did you mean width?"),
    ("width: 99\n", "d.yaml:1:1: width must be 1 to 64, not 99"),
    ("width: true\n", "width must be 1 to 64, not True"),
    ("height: 2\n", "d.yaml: a design must have the key width"),
    (MESH, "d.yaml: a design must have the key tiles"),
    (MESH + "flit_bits: 48\n", "d.yaml:3:1: flit_bits must be 32, 64, 128, 256 or 512, not 48"),
    (MESH + "flit_bits: 16\n", "d.yaml:3:1: flit_bits must be 32, 64, 128, 256 or 512, not 16"),
    (MESH + "buffer_flits: 1\n", "buffer_flits must be 2 to 16, not 1"),
    (MESH + "routing: zz\n", "routing must be xy, yx, o1turn, west-first or odd-even, not 'zz'"),
    ("width: 64\nheight: 64\nflit_bits: 32\nbuffer_flits: 8\n" + TILE,
     "Flit width must be at least 33 bits for multicast in a mesh of 64 x 64 with buffers of 8 flits, not 32"),
    (MESH + "streams: 3\n", "d.yaml:3:1: streams must be 1, 2, 4 or 8, not 3"),
    (MESH + "virtual_channels: 3\n", "virtual_channels must be 1, 2 or 4, not 3"),
    (MESH + "routing: odd-even\n" + TILE,
     "d.yaml:3:1: Routing odd-even with multicast must have at least 2 virtual channels, not 1"),
    (MESH + "routing: o1turn\nvirtual_channels: 2\n" + TILE,
     "Routing o1turn with multicast must have at least 4 virtual channels, not 2"),
    (MESH + "routing: o1turn\nmulticast: false\n" + TILE,
     "Routing o1turn must have at least 2 virtual channels, not 1"),
    (MESH + "link_registers: 3\n", "d.yaml:3:1: link_registers must be 0 to 2, not 3"),
    (MESH + "port_flits: 8\n" + TILE, "d.yaml:3:1: port_flits must be a mapping, not 8"),
    (MESH + "port_flits: {up: 8}\n" + TILE, "d.yaml:3:14: port_flits has no key 'up'; known are east, local, north"),
    (MESH + "port_flits: {west: 3}\n" + TILE, "d.yaml:3:14: west must be 4 to 16, not 3"),
    (MESH + "multicast: 1\n", "multicast must be true or false, not 1"),
    (MESH + "clock_mhz: 0\n", "clock_mhz must be 1 to 5000, not 0"),
    (MESH + TILE + "    vlen: 48\n", "d.yaml:5:5: vlen must be 8, 16, 32, 64, 128 or 256, not 48"),
    (MESH + TILE + "    fetch: 3\n", "fetch must be 1, 2 or 4, not 3"),
    (MESH + TILE + "    lanes: 0\n", "lanes must be 1, 2, 4, 8 or 16, not 0"),
    (MESH + TILE + "    stations: 9\n", "stations must be 1 to 8, not 9"),
    (MESH + TILE + "    dmem_kib: small\n", "dmem_kib must be auto or a number of KiB above 0, not 'small'"),
    (MESH + TILE + "    vlne: 32\n", "a tile class has no key 'vlne'; did you mean vlen?"),
    (MESH + TILE + "    shares: {attention: -1}\n", "attention must be 0 to 1000, not -1"),
    (MESH + TILE + "    shares: {attention: 0}\n", "shares of attention must be above 0"),
    (MESH + "tiles: []\n", "tiles must be a list of 1 to 8 classes"),
    (MESH + TILE + "  - name: b\n", "every tile class but the first must say where it is"),
    (MESH + TILE + '  - name: b\n    at: "2,0"\n', "at must lie inside the 2x2 mesh"),
    (MESH + TILE + '  - name: a\n    at: "1,0"\n', "name must differ between tile classes"),
    (MESH + TILE + '  - name: b\n    at: ["1,0", "1,0"]\n', "at must not name node 1,0 twice"),
    (MESH + 'tiles:\n  - name: a\n    at: "0,0"\n', "no tile class names node 1,0"),
    ("a: [\n", "must be YAML"),
    ("", "a design must be a mapping, not empty"),
])
def test_refuses(text, message):
    with pytest.raises(HwgenError) as error:
        parse_design(text, "d.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", [
    "width: " + "9" * 5000, "width: [" + "1, " * 5000 + "]", "width: 2\nheight: 2\ntiles: " + "x" * 5000, "x" * 5000,
    "x" * 5000 + ": 1", "width: 2\nheight: 2\ntiles:\n  - name: a\n    at: [" + "q" * 5000 + "]"], ids=lambda t: t[:9])
def test_sentences_stay_short(text):
    with pytest.raises(HwgenError) as error:
        parse_design(text)
    assert len(str(error.value)) < 400


def test_missing_file(tmp_path):
    with pytest.raises(HwgenError, match="must be a readable design file"):
        read_design(tmp_path / "none.yaml")


@pytest.mark.parametrize(("knob", "chip"), [
    ("flit_bits", "flit_bits: 64.0\n"), ("virtual_channels", "virtual_channels: 1.0\n")])
def test_a_whole_number_of_the_chip_is_no_fraction(knob, chip):
    with pytest.raises(HwgenError, match=f"{knob} must be .*, not [0-9]+[.]0"):
        parse_design(MESH + chip + TILE)


@pytest.mark.parametrize("knob", ["fetch", "vlen", "lanes"])
def test_a_whole_number_of_a_tile_is_no_fraction(knob):
    with pytest.raises(HwgenError, match=f"{knob} must be .*, not 8[.]0"):
        parse_design(f"{MESH}{TILE}    {knob}: 8.0\n")
