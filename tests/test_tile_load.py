"""The closed form of the compiler's placement, memories and programs against the compiler itself."""

from dataclasses import replace

import pytest
import torch
from explore_designs import scenario
from random_pairs import random_formats, random_shape

from explore.scenario import Scenario
from explore.space import knobs_of
from explore.tile_load import tile_load
from explore.workload import Workload, read_workload
from hwgen.compiler.compile import compile_chip
from hwgen.compiler.words import rom_word_bytes
from hwgen.design import Design, TileClass
from hwgen.integer_graph import shape_only
from hwgen.quantize import narrow_matrices

TABLES = ("rope", "gain", "constant")


def _compiled(config, context, design, mxfp4=frozenset()):
    chip = compile_chip(shape_only(config, context, mxfp4), design)
    knobs, workload = knobs_of(design), Workload("shape", config, mxfp4=mxfp4)
    return chip.tiles, knobs, tile_load(knobs, Scenario(workload, 7, context=context, prompt=1))


def _small_smollm2():
    return replace(read_workload("smollm2-135m").config, layers=4, vocab=4096)


@pytest.mark.parametrize(("mesh", "tile", "multicast"), [
    ((4, 4), {"vlen": 64}, True), ((8, 8), {"vlen": 32}, True), ((5, 3), {"vlen": 128}, False), ((1, 1), {}, True)])
def test_memories_and_programs_of_alike_tiles(mesh, tile, multicast):
    design = Design(*mesh, multicast=multicast, classes=(TileClass("t", **tile),))
    tiles, _, load = _compiled(_small_smollm2(), 256, design)
    # the two tiles that hold a table stage its row too, which the closed form leaves out
    for name, within in (("vmem", 0.08), ("xmem", 0.0), ("kvmem", 0.0), ("rom_most", 0.01)):
        memory = name.removesuffix("_most")
        real = max(sum(s.region.size for s in t.slices if s.source not in TABLES) if memory == "rom"
                   else getattr(t.memory, memory).used for t in tiles)
        assert float(getattr(load, name)) == pytest.approx(real, rel=within), name
    mean = sum(len(t.program) for t in tiles) / len(tiles)
    assert float(load.instructions) == pytest.approx(mean, rel=0.06)


@pytest.mark.parametrize(("mesh", "stages", "multicast", "vmem", "xmem"), [
    ((4, 4), 2, True, 0.08, 0), ((4, 4), 4, True, 0.1, 0), ((2, 6), 3, False, 0.08, 0), ((3, 5), 4, True, 0.1, 0),
    ((1, 5), 3, True, 0.1, 0), ((2, 9), 6, False, 0.1, 0)])
def test_memories_and_programs_of_pipeline_stages(mesh, stages, multicast, vmem, xmem):
    """Seven layers: no stage has as many as another. Where bands differ, the closed form joins the most of each."""
    design = Design(*mesh, multicast=multicast, pipeline_stages=stages, classes=(TileClass("t", vlen=64),))
    config = replace(_small_smollm2(), layers=7)
    tiles, _, load = _compiled(config, 256, design)
    for name, within in (("vmem", vmem), ("xmem", xmem), ("kvmem", 0.0), ("rom_most", 0.02)):
        memory = name.removesuffix("_most")
        real = max(sum(s.region.size for s in t.slices if s.source not in TABLES) if memory == "rom"
                   else getattr(t.memory, memory).used for t in tiles)
        assert float(getattr(load, name)) == pytest.approx(real, rel=within), name
    held = sum(s.region.size for t in tiles for s in t.slices if s.source not in TABLES)
    assert float(load.rom) * design.tiles == pytest.approx(held, rel=1e-9)
    assert float(load.instructions) == pytest.approx(max(len(t.program) for t in tiles), rel=0.1)


@pytest.mark.parametrize(("streams", "stages"), [(2, 1), (8, 1), (4, 2), (2, 2)])
def test_memories_and_programs_of_streams(streams, stages):
    design = Design(4, 4, streams=streams, pipeline_stages=stages, classes=(TileClass("t", vlen=64),))
    chip, _, load = _compiled(replace(_small_smollm2(), vocab=512), 64, design)
    for name, within in (("vmem", 0.1), ("xmem", 0.0), ("kvmem", 0.0)):
        real = max(getattr(t.memory, name).used for t in chip)
        assert float(getattr(load, name)) == pytest.approx(real, rel=within), name
    mean = sum(len(t.program) for t in chip) / len(chip)
    assert streams * float(load.instructions) == pytest.approx(mean, rel=0.1)
    reach = max(r.base + r.size for t in chip for r in t.memory.message_regions())
    assert float(load.reach.amax()) == pytest.approx(reach, rel=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_weights_of_random_designs(seed):
    """Heterogeneous tiles, odd sizes, biases, both formats: words of weight ROM add up."""
    config, design = random_shape(seed)
    mxfp4 = narrow_matrices(config, **random_formats(seed))
    tiles, knobs, load = _compiled(config, config.max_context, design, mxfp4)
    vlen = torch.tensor([[c.vlen for c in design.classes]], dtype=torch.float64)
    assert load.rom_word[0, : len(design.classes)].tolist() == [
        8 * rom_word_bytes(int(v), "mxfp4" if mxfp4 else "mxint8") for v in vlen[0]]
    real = sum(s.region.size for t in tiles for s in t.slices if s.source not in TABLES)
    assert float((knobs.nodes * load.rom).sum()) == pytest.approx(real, rel=0.03)


def test_rows_add_up_exactly():
    """Conservation: rows of all tiles are those of the model, whatever classes and shares."""
    from explore.evaluate import default_space

    workload = scenario().workload
    knobs = default_space().values(default_space().random(200, torch.Generator().manual_seed(3)))
    load = tile_load(knobs, scenario())
    config = workload.config
    for rows, count, nodes in ((load.hidden, config.hidden, load.stages.band.nodes), (load.ffn, config.ffn,
                               load.stages.band.nodes), (load.vocabulary, config.vocab, knobs.nodes)):
        total = (rows.mean * nodes).sum(1)[load.placed]
        torch.testing.assert_close(total, torch.full_like(total, count))
        assert ((rows.most >= rows.mean - 1e-6) & (rows.most < rows.mean + 1)).all()
