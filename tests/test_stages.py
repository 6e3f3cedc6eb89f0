"""Streams and pipeline stages in the closed form: what scales, what does not, and the compiler's rounding."""

from dataclasses import replace

import pytest
import torch
from explore_designs import design, scenario

from explore.cycles import Overheads
from explore.evaluate import default_space, evaluate, evaluate_design, evaluate_knobs
from explore.limits import Reason
from explore.space import Space, knobs_of
from explore.stages import groups, stages_of
from explore.tile_load import tile_load
from hwgen.compiler.place import place
from hwgen.design import Design, TileClass
from hwgen.errors import HwgenError

FREE = Overheads(turn=0.0)
"""Streams that take turns at no cost."""


def _streams(count, seed=2, **chip):
    """300 random designs, each with so many streams and other knobs of the chip; headers take one flit."""
    knobs = default_space().values(default_space().random(300, torch.Generator().manual_seed(seed)))
    chip |= {"streams": count, "flit_bits": 128}
    fixed = {name: torch.full_like(knobs.streams, float(value)) for name, value in chip.items()}
    return replace(knobs, **fixed)


@pytest.mark.parametrize(("height", "stages", "layers"), [(4, 2, 30), (5, 4, 7), (7, 3, 32), (16, 16, 30), (9, 1, 5)])
def test_bands_and_layers_are_the_compilers(height, stages, layers):
    made = Design(3, height, pipeline_stages=stages)
    found = stages_of(knobs_of(made), layers)
    bands = place(replace(scenario().workload.config, layers=layers), made).stages
    rows, own = ([b - a for a, b in spans] for spans in ([s.tiles for s in bands], [s.layers for s in bands]))
    assert float(found.band.tiles) == max(rows) == float(found.band.nodes.sum())
    assert float(found.layers) == max(own)
    dense = [n * max(rows) / r for n, r in zip(own, rows, strict=True)]
    assert (float(found.dense), float(found.worked)) == pytest.approx((max(dense), sum(dense)))


@pytest.mark.parametrize(("streams", "stages", "together"), [
    (8, 1, 8), (8, 2, 2), (8, 4, 2), (8, 8, 1), (2, 2, 1), (1, 4, 1)])
def test_groups_are_the_compilers(streams, stages, together):
    made = groups(knobs_of(Design(1, 8, streams=streams, pipeline_stages=stages)))
    assert [float(t) for t in made] == [together, streams / together]


@pytest.mark.parametrize("stages", [1, 4])
def test_more_streams_are_never_slower_together_nor_faster_alone(stages):
    few, many = (evaluate_knobs(_streams(s, pipeline_stages=stages), scenario(), overheads=FREE) for s in (1, 8))
    last = few
    for count in (2, 4, 8):
        more = evaluate_knobs(_streams(count, pipeline_stages=stages), scenario(), overheads=FREE)
        assert (more.tok_s >= last.tok_s * (1 - 1e-9)).all() and (more.latency_s >= last.latency_s * (1 - 1e-9)).all()
        last = more
    assert (many.tok_s <= 8 * few.tok_s * (1 + 1e-9)).all() and (many.tok_s < many.peak_tok_s).all()


def test_turns_cost_no_more_than_they_are_said_to():
    dear = evaluate_knobs(_streams(4, pipeline_stages=1), scenario())
    free = evaluate_knobs(_streams(4, pipeline_stages=1), scenario(), overheads=FREE)
    spent = 4 * 5 * scenario().workload.layers * Overheads().turn
    assert (dear.cycles >= free.cycles).all() and (dear.cycles <= free.cycles + spent + 1e-6).all()


def test_streams_have_memories_and_programs_of_their_own_and_share_the_rom():
    one, four = (tile_load(knobs_of(replace(design(), streams=s)), scenario()) for s in (1, 4))
    assert torch.equal(one.rom, four.rom)
    for name in ("xmem", "kvmem"):
        torch.testing.assert_close(getattr(four, name), 4 * getattr(one, name))
    assert float(four.vmem) == 4 * float(one.vmem) - 3 * 16
    assert 4 * float(one.imem) < float(four.imem) < 4.5 * float(one.imem)


def test_energy_of_a_token_is_that_of_its_work_and_leakage_is_shared():
    one, two = (evaluate_design(replace(design(), streams=s), scenario()) for s in (1, 2))
    for part in ("weights", "multipliers"):
        per_token = [float(r.power_parts[part] / r.tok_s) for r in (one, two)]
        assert per_token[1] == pytest.approx(per_token[0], rel=0.03), part
    assert one.power_parts["leakage"] < two.power_parts["leakage"] < 2 * one.power_parts["leakage"]
    assert float(two.latency_s) == pytest.approx(2 / float(two.tok_s)) and two.floor_power > one.floor_power


def test_streams_fill_stages():
    """One stream goes through the stages alone; of as many as there are, each has a stage."""
    wide = replace(design(vlen=16), flit_bits=256)
    alone, staged, full = (evaluate_design(replace(wide, pipeline_stages=p, streams=s), scenario())
                           for p, s in ((1, 1), (4, 1), (4, 8)))
    assert full.tok_s > 2 * staged.tok_s and alone.tok_s > staged.tok_s


def test_a_slow_order_of_instructions_loses_what_it_says():
    knobs = knobs_of(replace(design(stations=8), streams=2))
    slow, fast = (evaluate_knobs(knobs, scenario(), overheads=Overheads(turn=0.0, stall=s)) for s in (1.0, 0.0))
    few = evaluate_knobs(replace(knobs, stations=torch.ones_like(knobs.stations)), scenario(), overheads=FREE)
    assert fast.tok_s > slow.tok_s > few.tok_s


def test_the_budget_of_latency_is_for_a_step():
    free = evaluate_design(replace(design(), streams=2), scenario())
    bound = evaluate_design(replace(design(), streams=2), scenario(latency_max=1.5 / float(free.tok_s)))
    assert free.feasible and bound.reasons_of(0) == [Reason.LATENCY.sentence]


@pytest.mark.parametrize("made", [replace(design(), pipeline_stages=5), replace(Design(2, 64), pipeline_stages=31)])
def test_more_stages_than_rows_or_layers_are_refused(made):
    assert Reason.STAGES.sentence in evaluate_design(made, scenario()).reasons_of(0)


def test_the_space_has_as_many_stages_as_rows_and_classes_in_whole_columns():
    space = Space(3, side=12)
    rows = space.random(400, torch.Generator().manual_seed(4))
    knobs = space.values(rows)
    assert (knobs.pipeline_stages <= knobs.height).all()
    assert set(knobs.pipeline_stages.flatten().tolist()) == {1, 2, 4, 8}
    staged = knobs.pipeline_stages > 1
    assert not (knobs.nodes % knobs.height)[staged[:, 0]].any()
    for row in rows[staged[:, 0]][:20]:
        made = space.decode(row)
        place(scenario().workload.config, made)  # every stage has a tile for every share
        assert space.decode(space.encode(made)) == made
    mixed = Design(4, 4, pipeline_stages=2, classes=(TileClass("a"), TileClass("b")), node_class=(0,) * 6 + (1,) * 10)
    with pytest.raises(HwgenError, match="Tile classes must take whole columns where there are pipeline stages"):
        space.encode(mixed)


def test_gradients_pass_with_stages_and_streams():
    space = Space(1)
    rows = space.encode(replace(design(), streams=4, pipeline_stages=2))[None].requires_grad_()
    evaluate(rows, scenario(), space).tok_s.log().sum().backward()
    gradient = dict(zip((knob.label for knob in space.knobs), rows.grad[0].tolist(), strict=True))
    assert torch.isfinite(rows.grad).all() and all(gradient[name] for name in ("width", "height", "vlen.0", "streams"))
