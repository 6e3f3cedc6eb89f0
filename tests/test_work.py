"""What a chip does for a token in closed form against its compiled programs: rows, words and flits, tile by tile."""

from dataclasses import replace
from math import ceil

import pytest
import torch
from explore_designs import scenario
from random_pairs import random_shape

from explore.cycles import cycles
from explore.network_load import gather_cycles, packets
from explore.scenario import Scenario
from explore.space import knobs_of
from explore.tile_load import tile_load
from explore.tile_map import deviation
from explore.workload import Workload, read_workload
from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, TileClass
from hwgen.integer_graph import shape_only
from hwgen.isa import Unit, When
from hwgen.noc.gather import MAX_UNICAST_FLITS
from hwgen.rtl.packet import PacketFormat

TWO_OPERANDS = {"ADD", "MUL", "ROPE", "EXP"}
WIDE, NARROW = TileClass("a", vlen=64, lanes=8), TileClass("b", vlen=32, lanes=4)
ATTENTION, FFN = replace(WIDE, shares=(1, 0, 1)), replace(NARROW, shares=(0, 1, 1))
WORDS_ONLY = replace(NARROW, shares=(0, 0, 1))


def _small_smollm2(**changes):
    return replace(read_workload("smollm2-135m").config, **{"layers": 4, "vocab": 4096} | changes)


def _vector_rows(program, lanes, seen):
    """Rows of vector memory that the vector instructions of a program read for a token."""
    steps = [step for step in program if step.unit == Unit.VECTOR and step.op != "WAIT" and step.when != When.LOGITS]
    return sum(ceil((seen if step.fields.get("dyn") else step.fields["n"]) / lanes) * (1 + (step.op in TWO_OPERANDS))
               for step in steps)


def _timing(config, design, context, position, nm=7):
    asked = Scenario(Workload("shape", config), nm, context=context, prompt=1)
    knobs = knobs_of(design)
    load = tile_load(knobs, asked)
    return knobs, load, cycles(knobs, load, packets(knobs, load.reach), asked, position)


@pytest.mark.parametrize("design", [
    Design(4, 4, classes=(WIDE,)), Design(4, 2, classes=(WIDE, WORDS_ONLY), node_class=(0, 0, 1, 1) * 2),
    Design(4, 4, classes=(ATTENTION, FFN), node_class=(0, 0, 1, 1) * 4),
    Design(3, 6, classes=(WIDE,), pipeline_stages=4), Design(2, 5, classes=(NARROW,), pipeline_stages=2),
    Design(1, 1, classes=(NARROW,))])
def test_rows_of_the_vector_unit(design):
    """Of every class and of the chip: specialised tiles and stages of unlike height, too."""
    config, context, position = _small_smollm2(layers=7), 64, 40
    chip = compile_chip(shape_only(config, context), design)
    knobs, _, timing = _timing(config, design, context, position)
    real = [0.0] * len(design.classes)
    for tile, kind in zip(chip.tiles, design.node_class, strict=True):
        real[kind] += _vector_rows(tile.program, design.classes[kind].lanes, position + 1)
    found = (knobs.nodes * timing.vector_busy)[0, : len(real)].tolist()
    assert found == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 1), (3, 2), (2, 4), (5, 1), (8, 8), (7, 7)])
@pytest.mark.parametrize("model", ["smollm2-135m", "llama-3.2-1b"])
def test_words_of_the_matrix_units(model, mesh):
    """Weights and cache are multiplied once, however heads fall on tiles: to the word."""
    off = deviation(Design(*mesh, classes=(WIDE,)), scenario(model))
    assert off["matrix"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_query_heads_of_all_tiles_are_those_of_the_model(seed):
    config, design = random_shape(seed)
    knobs, load, _ = _timing(config, design, config.max_context, 0)
    band = load.stages.band
    assert float((band.nodes * load.heads.mean).sum()) == pytest.approx(config.heads)
    assert float((band.nodes * load.units.mean).sum()) == pytest.approx(config.kv_heads * float(load.parts))


@pytest.mark.parametrize("flit_bits", [32, 64, 128, 256])
@pytest.mark.parametrize("buffer_flits", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("multicast", [True, False])
def test_packets_are_the_hardwares(flit_bits, buffer_flits, multicast):
    design = Design(5, 3, flit_bits=flit_bits, buffer_flits=buffer_flits, multicast=multicast)
    ours = packets(knobs_of(design), torch.tensor([[5000.0]], dtype=torch.float64))
    try:
        real = PacketFormat(width=5, height=3, flit_bits=flit_bits, buffer_flits=buffer_flits, multicast=multicast,
                            address_bits=13)
    except ValueError:
        assert float(ours.several) < 1
        return
    assert (float(ours.per_flit), float(ours.header)) == (real.words_per_flit, real.header_flits)
    assert float(ours.several) == (real.multicast_flits if multicast else MAX_UNICAST_FLITS)


@pytest.mark.parametrize("mesh", [(8, 4), (16, 17), (16, 18), (12, 12), (32, 32)])
def test_a_gather_has_the_flits_of_whole_rows(mesh):
    """576 rows over tiles that have two, three, a row more than others, or none."""
    design = Design(*mesh, flit_bits=32, buffer_flits=6, classes=(WIDE,))
    knobs = knobs_of(design)
    asked = scenario()
    load = tile_load(knobs, asked)
    form = packets(knobs, load.reach)
    _, sent = gather_cycles(knobs, form, load.hidden.mean)
    each, more = divmod(asked.workload.config.hidden, design.tiles)
    flits = [float(form.flits(torch.tensor(float(n)), True)) for n in (each, each + 1)]
    assert float((sent * knobs.nodes).sum()) == pytest.approx((design.tiles - more) * flits[0] + more * flits[1])
