# amaranth: UnusedElaboratable=no
"""No phantom knob: each changes what is emitted, and cycles in RTL simulation, area by Yosys or the constraints."""

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from random_pairs import random_model
from test_synth import LIBERTY

from bench.calibration import measured_cycles
from explore.evaluate import evaluate_design
from explore.scenario import Scenario
from explore.space import CALIBRATED, CHIP_KNOBS, TILE_KNOBS
from explore.workload import read_workload
from hwgen.compiler.compile import compile_chip
from hwgen.design import CHIP_RULES, SHARES, TILE_RULES, Design, TileClass
from hwgen.emit.chip import NETWORK, chip_files
from hwgen.emit.component import component_files
from hwgen.emit.constraints import constraints
from hwgen.emit.verilog import module_files
from hwgen.generate import generate
from hwgen.integer_graph import shape_only
from hwgen.manifest import chip_spec
from hwgen.model_config import ModelConfig
from hwgen.noc.turns import sides_of
from hwgen.quantize import quantize
from hwgen.rtl.router import Router
from hwgen.yosys_jobs import run_scripts

BASE = Design(2, 2, flit_bits=64, buffer_flits=4, clock_mhz=100.0, node_class=(0, 0, 0, 1), classes=(
    TileClass("a", fetch=2, stations=3, vlen=16, lanes=4), TileClass("b", fetch=1, stations=2, vlen=8, lanes=2)))
CHIP = {"width": 3, "height": 3, "flit_bits": 128, "virtual_channels": 2, "buffer_flits": 6, "routing": "west-first",
        "multicast": False, "clock_mhz": 200.0, "link_registers": 1, "port_flits": (("west", 8),),
        "pipeline_stages": 2, "streams": 2}
MEMORIES = {"dmem_kib": 64, "imem_kib": 64, "wmem_kib": 128}
TILE = {"fetch": 4, "stations": 5, "vlen": 32, "lanes": 8, **MEMORIES}
UNSEEN = {"link_registers", "port_flits", *MEMORIES,
          *(k for k, values in CALIBRATED.items() if len(values) == 1)}
"""Knobs of the generator that the explorer leaves alone."""


def with_tile(design, **knobs):
    """The design with other knobs of its first tile class."""
    first, *others = design.classes
    return replace(design, classes=(replace(first, **knobs), *others))


def shared(design, name, share):
    """The design with that share of its first tile class in one kind of work."""
    return with_tile(design, shares=tuple(share if other == name else 1.0 for other in SHARES))


def changed(knob):
    """The base with another value of one knob."""
    if knob == "width":
        return replace(BASE, width=3, node_class=(0, 0, 0, 0, 0, 1))
    if knob == "height":
        return replace(BASE, height=3, node_class=(0, 0, 0, 0, 0, 1))
    if knob == "nodes":
        return replace(BASE, node_class=(0, 1, 0, 1))
    if knob == "arrangement":
        return replace(BASE, node_class=(0, 1, 0, 0))
    if knob in CHIP:
        network = {"virtual_channels": 2, "multicast": False} if knob == "routing" else {}
        return replace(BASE, **{knob: CHIP[knob]}, **network)
    return shared(BASE, knob, 2.0) if knob in SHARES else with_tile(BASE, **{knob: TILE[knob]})


KNOBS = (*CHIP_KNOBS, "clock_mhz", "link_registers", "port_flits", "nodes", "arrangement", *TILE_KNOBS, *MEMORIES,
         *SHARES)
QUICK = ("buffer_flits", "stations", "ffn")


def mostly_full(knobs, quick):
    """Parameters of which all but the quick ones are marked full."""
    return [k if k in quick else pytest.param(k, marks=pytest.mark.full) for k in knobs]


def emitted(graph, design, folder):
    """Text of what makes the hardware: RTL, programs, ROM images, constraints, and the manifest."""
    generate(graph, design, folder)
    parts = {str(p.relative_to(folder)): p.read_bytes() for part in ("rtl", "rom", "program")
             for p in (folder / part).iterdir()}
    return parts | {name: (folder / name).read_bytes() for name in ("constraints.sdc", "manifest.json")}


@pytest.fixture(scope="module")
def graph():
    config = ModelConfig(vocab=64, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, norm_eps=1e-5,
                         max_context=16, tied=True)
    return quantize(random_model(config, np.random.default_rng(1)), allow_wrap=True)


@pytest.fixture(scope="module")
def base(graph, tmp_path_factory):
    return emitted(graph, BASE, tmp_path_factory.mktemp("base") / "chip")


@pytest.mark.parametrize("knob", mostly_full(KNOBS, QUICK))
def test_a_knob_changes_what_is_emitted(graph, base, knob, tmp_path):
    design = changed(knob)
    assert design != BASE
    other = emitted(graph, design, tmp_path / "chip")
    differ = {name for name in base.keys() | other.keys() if base.get(name) != other.get(name)}
    clock = {"manifest.json", "constraints.sdc"}
    # a stream more has a port of its own
    assert differ == clock if knob == "clock_mhz" else differ - {"constraints.sdc"} > {"manifest.json"}
    assert ("constraints.sdc" in differ) == (knob in ("clock_mhz", "streams"))


@pytest.mark.parametrize("knob", [k for k in KNOBS if k not in UNSEEN | {"arrangement"}])
def test_the_evaluator_tells_a_knob_from_another(knob):
    scenario = Scenario(read_workload("stories260k"), 28, context=128)
    before, after = (evaluate_design(d, scenario) for d in (BASE, changed(knob)))
    assert any(float(getattr(before, name)[0]) != float(getattr(after, name)[0])
               for name in ("cycles", "area", "power", "tok_s"))


# measured

SHAPE = ModelConfig(vocab=64, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=64, norm_eps=1e-5,
                    max_context=16, tied=True)
POSITION = 8
ALIKE = Design(2, 2, flit_bits=64, buffer_flits=4, classes=(TileClass("a", fetch=1, stations=2, vlen=8, lanes=2),))
WIDER = replace(ALIKE.classes[0], name="b", vlen=16)
TWO = replace(ALIKE, classes=(*ALIKE.classes, WIDER), node_class=(0, 0, 0, 1))
ALONE = Design(1, 1, flit_bits=64, buffer_flits=4, classes=(TileClass("a", fetch=1, stations=1, vlen=32, lanes=8),))
FEWER, MORE = -1, 1
CYCLES = {
    "width": (ALIKE, replace(ALIKE, width=3, node_class=()), FEWER),
    "height": (ALIKE, replace(ALIKE, height=3, node_class=()), FEWER),
    "flit_bits": (ALIKE, replace(ALIKE, flit_bits=32), MORE),
    "multicast": (ALIKE, replace(ALIKE, multicast=False), MORE),
    "link_registers": (ALIKE, replace(ALIKE, link_registers=1), MORE),
    # one stream is in one stage at a time
    "pipeline_stages": (ALIKE, replace(ALIKE, pipeline_stages=2), MORE),
    "streams": (ALIKE, replace(ALIKE, streams=2), MORE),
    "vlen": (ALIKE, with_tile(ALIKE, vlen=16), FEWER),
    "lanes": (ALIKE, with_tile(ALIKE, lanes=4), FEWER),
    "stations": (ALONE, with_tile(ALONE, stations=4), FEWER),
    "fetch": (ALONE, with_tile(ALONE, fetch=4), FEWER),
    "nodes": (TWO, replace(TWO, node_class=(0, 1, 0, 1)), FEWER),
    "arrangement": (TWO, replace(TWO, node_class=(0, 1, 0, 0)), None),
    # work is in proportion to VLEN before
    **{name: (TWO, shared(TWO, name, 4.0), MORE) for name in SHARES},
}
"""Knob -> two designs that differ in it alone, and what the second's cycles of a step are."""
MESH = Design(3, 3, flit_bits=32, buffer_flits=3, multicast=False)
ROUTER = {"flit_bits": 64, "virtual_channels": 2, "buffer_flits": 6, "routing": "odd-even", "multicast": True,
          "port_flits": (("west", 8),)}
"""Knob -> a value that makes a router of MESH larger."""
CORE = {"fetch": 1, "stations": 1, "vlen": 8, "lanes": 1, "flit_bits": 32, "buffer_flits": 3}
CORE_LARGER = {"fetch": 4, "stations": 4}
"""Knob -> a value that makes the tile core CORE larger."""


@cache
def cycles(design):
    """Of a step in RTL simulation, in which every stream is at POSITION."""
    return measured_cycles(SHAPE, design, POSITION)


def yosys(files, top, *script):
    """What Yosys counts after a script on these files, as JSON."""
    verilog = [name for name in files if name.endswith(".v")]
    with tempfile.TemporaryDirectory() as scratch:
        for name in verilog:
            Path(scratch, Path(name).name).write_text(files[name])
        Path(scratch, "cells.lib").write_text(LIBERTY)
        reading = [f"read_verilog -DSYNTHESIS {Path(name).name}" for name in verilog]
        run_scripts({top: [*reading, f"hierarchy -top {top}", *script]}, Path(scratch))
        return json.loads(Path(scratch, "counts.json").read_text())


def area(files, top):
    """Of a module with all its parts, in the cells of the tests' own library."""
    counts = yosys(files, top, f"synth -flatten -top {top}", "dfflibmap -liberty cells.lib", "abc -liberty cells.lib",
                   "opt_clean", "tee -q -o counts.json stat -liberty cells.lib -json")
    return counts["modules"][f"\\{top}"]["area"]


@cache
def router_area(design):
    """Of the router in a corner of a 3x3 mesh, which has a west port."""
    network = {name: getattr(design, name) for name in NETWORK}
    router = Router(**network, sides=sides_of(3, 3, 2, 2), host=False, port_flits=dict(design.port_flits))
    return area(module_files({"router": router}), "router")


@cache
def tile_area(**knobs):
    """Of a tile core."""
    return area(component_files("tile", knobs), "tile")


def memory_bits(design):
    """Of all memories of a chip."""
    files = chip_files(chip_spec(compile_chip(shape_only(SHAPE, SHAPE.max_context), design)))
    return yosys(files, "chip", "proc", "tee -q -o counts.json stat -json")["design"]["num_memory_bits"]


def test_every_knob_is_measured():
    assert set(KNOBS) == {*CYCLES, *ROUTER, *CORE_LARGER, *MEMORIES, "clock_mhz"}
    assert set(KNOBS) >= {*CHIP_RULES, *TILE_RULES} - {"name"}


@pytest.mark.parametrize("knob", mostly_full(CYCLES, ["stations"]))
def test_a_knob_changes_cycles_in_simulation(knob):
    before, after, direction = CYCLES[knob]
    difference = cycles(after) - cycles(before)
    assert difference * direction > 0 if direction else difference


@pytest.mark.parametrize("knob", ROUTER)
def test_a_knob_changes_the_area_of_a_router(knob):
    assert router_area(replace(MESH, **{knob: ROUTER[knob]})) > router_area(MESH)


@pytest.mark.full
@pytest.mark.parametrize("knob", CORE_LARGER)
def test_a_knob_changes_the_area_of_a_tile(knob):
    assert tile_area(**CORE | {knob: CORE_LARGER[knob]}) > tile_area(**CORE)


def test_a_knob_changes_the_bits_of_memory():
    """All together: what any of them leaves out is more than the chip has by itself."""
    small = with_tile(ALONE, vlen=8, lanes=1)
    assert memory_bits(small) < 8192 * min(MEMORIES.values())
    assert memory_bits(with_tile(small, **MEMORIES)) >= 8192 * sum(MEMORIES.values())


def test_the_clock_changes_the_constraints():
    slow, fast = (constraints(mhz, 1) for mhz in (BASE.clock_mhz, changed("clock_mhz").clock_mhz))
    assert "-period 10 " in slow and "-period 5 " in fast
