"""The evaluator: units, monotonicity, conservation, limits, gradients, and that batches and designs agree."""

from dataclasses import replace

import pytest
import torch
from explore_designs import design, scenario

from explore.evaluate import default_space, evaluate, evaluate_design
from explore.goal import INFEASIBLE, Goals, regret, score
from explore.limits import Reason, clock_limit_mhz
from explore.node import RETICLE_MM2, node, node_sizes
from explore.problem import observe
from explore.space import Space
from hwgen.errors import HwgenError


def _random(count=256, seed=0):
    return default_space().random(count, torch.Generator().manual_seed(seed))


def value(result, of):
    """Scores under the weights of a scenario."""
    return score(observe(result), Goals.of(of.weights))


def test_figures_are_consistent():
    result = evaluate(_random(), scenario())
    assert torch.isfinite(result.power).all() and (result.power > 0).all()
    torch.testing.assert_close(result.tok_s_stream * result.latency_s, torch.ones(256, dtype=torch.float64))
    torch.testing.assert_close(result.tok_s, default_space().values(_random()).streams[:, 0] * result.tok_s_stream)
    torch.testing.assert_close(result.energy_per_token, result.power / result.tok_s)
    torch.testing.assert_close(sum(result.power_parts.values()), result.power)
    torch.testing.assert_close(sum(result.area_parts.values()), result.area)
    torch.testing.assert_close(sum(result.cycle_parts.values()), result.cycles)
    assert (result.ttft_s > result.latency_s).all()


def test_no_design_beats_physics():
    result = evaluate(_random(2000), scenario())
    assert (result.tok_s < result.peak_tok_s).all()
    assert (result.power > result.floor_power).all()


def test_rows_are_designs():
    """A batch and `evaluate_design` of what its rows decode to give the same figures."""
    space, rows = default_space(), _random(40, seed=1)
    batch = evaluate(rows, scenario(), space)
    for i, row in enumerate(rows):
        one = evaluate_design(space.decode(row), scenario())
        for name in ("tok_s", "power", "area"):
            assert float(getattr(one, name)) == pytest.approx(float(getattr(batch, name)[i]), rel=1e-5), name


def test_single_and_double_rows_agree():
    rows = default_space().snap(_random())
    double, single = evaluate(rows, scenario()), evaluate(rows.float(), scenario())
    torch.testing.assert_close(single.power, double.power, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("knob", "more"), [("vlen", 128), ("lanes", 16)])
def test_more_of_a_unit_is_faster_and_larger(knob, more):
    small, large = (evaluate_design(d, scenario()) for d in (design(), design(**{knob: more})))
    assert large.tok_s > small.tok_s and large.area > small.area


def test_clock_scales_speed_and_dynamic_power_only():
    slow, fast = (evaluate_design(replace(design(), clock_mhz=mhz), scenario()) for mhz in (100, 200))
    assert float(fast.tok_s) == pytest.approx(2 * float(slow.tok_s))
    assert float(fast.area) == float(slow.area)
    assert float(fast.power_parts["leakage"]) == float(slow.power_parts["leakage"])
    assert float(fast.power_parts["clock"]) == pytest.approx(2 * float(slow.power_parts["clock"]))


def test_stations_and_fetch_cost_area():
    areas = [float(evaluate_design(design(**knob), scenario()).area_parts["control"])
             for knob in ({}, {"stations": 8}, {"fetch": 4})]
    assert areas[1] > areas[0] and areas[2] > areas[0]


def test_a_longer_context_costs_memory_and_a_later_position_time():
    near = evaluate_design(design(), scenario(context=256, position=100))
    long = evaluate_design(design(), scenario(context=512, position=100))
    late = evaluate_design(design(), scenario(context=512, position=500))
    assert long.area_parts["data"] > near.area_parts["data"]
    assert late.latency_s > long.latency_s


def test_finer_nodes_are_smaller_and_draw_less_energy():
    results = [evaluate_design(design(), scenario(nm=nm)) for nm in node_sizes()]
    areas = [float(r.area) for r in results]
    energies = [float(r.power - r.power_parts["leakage"]) for r in results]
    assert areas == sorted(areas, reverse=True) and energies == sorted(energies, reverse=True)


@pytest.mark.parametrize(("change", "reason"), [
    ({"clock_mhz": 5000.0}, Reason.CLOCK),
    ({"width": 64, "height": 64, "node_class": ()}, Reason.RETICLE),
    ({"buffer_flits": 2, "flit_bits": 32, "width": 32, "height": 8, "node_class": ()}, Reason.HEADER),
])
def test_limits_refuse(change, reason):
    result = evaluate_design(replace(design(vlen=256), **change), scenario(nm=28))
    assert not result.feasible and reason.sentence in result.reasons_of(0)


@pytest.mark.parametrize(("width", "context", "refused"), [
    (1, 512, True), (2, 512, False), (8, 65535, False), (8, 65536, True)])
def test_what_an_instruction_cannot_count_is_refused(width, context, refused):
    """One tile would have all of 128,256 rows of logits; positions are counted, too."""
    wide = replace(design(vlen=256), width=width, height=1, node_class=())
    of = scenario("llama-3.2-1b", nm=3, context=context)
    of = replace(of, workload=replace(of.workload, config=replace(of.workload.config, layers=1)))
    assert (Reason.VMEM.sentence in evaluate_design(wide, of).reasons_of(0)) == refused


def test_no_tile_for_an_operator_class_is_refused_in_a_file_and_not_in_the_space():
    idle = design()
    idle = replace(idle, classes=tuple(replace(cls, shares=(1.0, 0.0, 1.0)) for cls in idle.classes))
    assert Reason.NO_TILE.sentence in evaluate_design(idle, scenario()).reasons_of(0)
    space = Space(1)
    row = space.encode(idle)
    assert space.decode(row).classes[0].shares == (1.0, 1.0, 1.0)
    assert not evaluate(row[None], scenario(), space).reasons_of(0)


@pytest.mark.parametrize(("budget", "reason"), [
    ({"power_max": 1e-6}, Reason.POWER), ({"area_max": 0.1}, Reason.AREA), ({"latency_max": 1e-9}, Reason.LATENCY)])
def test_budgets_refuse_and_rank_below(budget, reason):
    free, bound = (evaluate_design(design(), scenario(**b)) for b in ({}, budget))
    assert free.feasible and not bound.feasible and bound.reasons_of(0) == [reason.sentence]
    assert value(bound, scenario()) <= INFEASIBLE < value(free, scenario())


def test_violation_grows_with_excess():
    less, more = (evaluate_design(design(), scenario(area_max=mm2)).violation for mm2 in (10.0, 5.0))
    assert more > less > 0


def test_regret():
    result = evaluate(_random(), scenario())
    scores = value(result, scenario())
    best = scores.max()
    assert regret(best, best) == 0 and (regret(scores, best) >= 0).all()
    assert (regret(scores, best)[~result.feasible] == 1).all()


def test_gradients_reach_the_knobs():
    space = Space(1)
    rows = space.encode(design())[None].requires_grad_()
    value(evaluate(rows, scenario(), space), scenario()).sum().backward()
    gradient = dict(zip((knob.label for knob in space.knobs), rows.grad[0].tolist(), strict=True))
    assert torch.isfinite(rows.grad).all()
    assert all(gradient[name] for name in ("width", "flit_bits", "buffer_flits", "clock_mhz", "vlen.0", "lanes.0"))
    # the fast part of the objective rises with the clock as its weight says
    weights = scenario(weights=(1.0, 0.0, 0.0))
    rows = space.encode(design())[None].requires_grad_()
    value(evaluate(rows, weights, space), weights).sum().backward()
    clock = [i for i, knob in enumerate(space.knobs) if knob.name == "clock_mhz"][0]
    low, high = space.knobs[clock].values
    assert rows.grad[0, clock].item() == pytest.approx(torch.log(torch.tensor(high / low)).item(), rel=1e-4)


def test_image_tower_counts_in_area_and_first_token():
    text, image = (evaluate_design(design(), scenario(name)) for name in ("smollm2-135m", "smolvlm-256m"))
    assert image.area_parts["vision"] > 0 == text.area_parts["vision"]
    assert image.ttft_s > 3 * text.ttft_s


def test_4_bit_weights_take_half_of_the_rom_and_of_its_energy_at_the_same_speed():
    plain, layers, whole = (evaluate_design(design(), scenario(formats=f)) for f in (
        {}, {"weights": "mxfp4"}, {"weights": "mxfp4", "head": "mxfp4"}))
    assert float(plain.cycles) == float(layers.cycles) == float(whole.cycles)
    # rows of nine words take five reads
    for part, low, high in (("area_parts", 0.51, 0.53), ("power_parts", 0.55, 0.58)):
        halves = [float(getattr(r, part)["weights"] / getattr(plain, part)["weights"]) for r in (layers, whole)]
        assert low < halves[1] < high and halves[1] < halves[0] < 0.68, part
    assert plain.area_parts["matrix"] < whole.area_parts["matrix"] < 1.1 * plain.area_parts["matrix"]
    assert float(plain.power_parts["multipliers"]) == float(whole.power_parts["multipliers"])


def test_cost_rises_with_area_and_defects():
    dies = [node(7).good_dies(mm2) for mm2 in (50.0, 100.0, RETICLE_MM2)]
    assert dies[0] > 2 * dies[1] > 4 * dies[2] > 0
    assert dies[1] == pytest.approx(584, rel=0.05)  # 640 gross dies of 100 mm2, 91 % of them good


def test_clock_limit():
    assert clock_limit_mhz(scenario(nm=3)) > clock_limit_mhz(scenario(nm=28))
    assert clock_limit_mhz(scenario(nm=3, clock_max=10.0)) == 10.0


@pytest.mark.parametrize(("change", "message"), [
    ({"nm": 6}, "Node must be 28, 22, 14, 10, 7, 5 or 3 nm, not 6"),
    ({"context": 0}, "Context must be 1 to 8192, not 0"),
    ({"position": 512}, "Position must be 0 to 511, not 512"),
    ({"weights": (0.5, 0.4, 0.2)}, r"Weights must be three numbers from 0 that sum to 1, not \(0.5, 0.4, 0.2\)"),
    ({"power_max": -1.0}, "power_max must be above 0, not -1.0"),
    ({"rom_anchor": "bare"}, "ROM anchor must be macro or cell, not 'bare'"),
])
def test_bad_scenarios(change, message):
    with pytest.raises(HwgenError, match=message):
        scenario(**change)
