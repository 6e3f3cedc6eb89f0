"""No phantom knob: whatever the explorer chooses changes what is emitted, and what the evaluator says of it."""

from dataclasses import replace

import numpy as np
import pytest
from random_pairs import random_model

from explore.evaluate import evaluate_design
from explore.scenario import Scenario
from explore.space import CALIBRATED, CHIP_KNOBS, TILE_KNOBS
from explore.workload import read_workload
from hwgen.design import SHARES, Design, TileClass
from hwgen.generate import generate
from hwgen.model_config import ModelConfig
from hwgen.quantize import quantize

BASE = Design(2, 2, flit_bits=64, buffer_flits=4, clock_mhz=100.0, node_class=(0, 0, 0, 1), classes=(
    TileClass("a", fetch=2, stations=3, vlen=16, lanes=4), TileClass("b", fetch=1, stations=2, vlen=8, lanes=2)))
CHIP = {"width": 3, "height": 3, "flit_bits": 128, "virtual_channels": 2, "buffer_flits": 6, "routing": "west-first",
        "multicast": False, "clock_mhz": 200.0, "link_registers": 1, "port_flits": (("west", 8),),
        "pipeline_stages": 2, "streams": 2}
TILE = {"fetch": 4, "stations": 5, "vlen": 32, "lanes": 8}
UNSEEN = {"link_registers", "port_flits",
          *(k for k, values in CALIBRATED.items() if len(values) == 1)}
"""Knobs of the generator that the explorer leaves alone."""


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
    first = BASE.classes[0]
    if knob in SHARES:
        shares = tuple(2.0 if name == knob else 1.0 for name in SHARES)
        return replace(BASE, classes=(replace(first, shares=shares), BASE.classes[1]))
    return replace(BASE, classes=(replace(first, **{knob: TILE[knob]}), BASE.classes[1]))


KNOBS = (*CHIP_KNOBS, "clock_mhz", "link_registers", "port_flits", "nodes", "arrangement", *TILE_KNOBS, *SHARES)
QUICK = ("buffer_flits", "clock_mhz", "stations", "ffn", "pipeline_stages")


def emitted(graph, design, folder):
    """Text of everything that makes the hardware: RTL, programs, ROM images, and the manifest, which has the clock."""
    generate(graph, design, folder)
    parts = {str(p.relative_to(folder)): p.read_bytes() for part in ("rtl", "rom", "program")
             for p in (folder / part).iterdir()}
    return parts | {"manifest.json": (folder / "manifest.json").read_bytes()}


@pytest.fixture(scope="module")
def graph():
    config = ModelConfig(vocab=64, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, norm_eps=1e-5,
                         max_context=16, tied=True)
    return quantize(random_model(config, np.random.default_rng(1)), allow_wrap=True)


@pytest.fixture(scope="module")
def base(graph, tmp_path_factory):
    return emitted(graph, BASE, tmp_path_factory.mktemp("base") / "chip")


@pytest.mark.parametrize("knob", [k if k in QUICK else pytest.param(k, marks=pytest.mark.full) for k in KNOBS])
def test_a_knob_changes_what_is_emitted(graph, base, knob, tmp_path):
    design = changed(knob)
    assert design != BASE
    other = emitted(graph, design, tmp_path / "chip")
    differ = {name for name in base.keys() | other.keys() if base.get(name) != other.get(name)}
    assert differ == {"manifest.json"} if knob == "clock_mhz" else differ > {"manifest.json"}


@pytest.mark.parametrize("knob", [k for k in KNOBS if k not in UNSEEN | {"arrangement"}])
def test_the_evaluator_tells_a_knob_from_another(knob):
    scenario = Scenario(read_workload("stories260k"), 28, context=128)
    before, after = (evaluate_design(d, scenario) for d in (BASE, changed(knob)))
    assert any(float(getattr(before, name)[0]) != float(getattr(after, name)[0])
               for name in ("cycles", "area", "power", "tok_s"))
