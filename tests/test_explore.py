"""From a model and a goal to a design file: the search, its canonical rows, its files and its refusals."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from random_pairs import random_model

from explore.action import Codec
from explore.archive import hypervolume, pareto_front
from explore.ask_tell import AskTell
from explore.baselines import METHODS
from explore.canonical import canonical
from explore.climb import climb
from explore.command import WARM, parse_goal, parse_nodes
from explore.design_file import design_yaml
from explore.designer import SHIPPED, Designer
from explore.evaluate import evaluate
from explore.goal import INFEASIBLE
from explore.plan import neighbours
from explore.problem import Problem
from explore.refine import evaluated
from explore.scenario import Scenario
from explore.search import search
from explore.space import Space
from explore.workload import read_workload
from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, parse_design
from hwgen.errors import HwgenError
from hwgen.generate import generate
from hwgen.integer_graph import shape_only
from hwgen.load import load
from hwgen.quantize import quantize
from hwgen.reference import Reference
from hwgen.simulate import simulate

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/model"
SCENARIO = Scenario(read_workload("stories260k"), 7, context=128)
RUN = {"design.yaml", "pareto.csv", "pareto.svg", "evaluations.jsonl", "report.html", "summary.json"}


@pytest.fixture(scope="module")
def problem():
    return Problem(SCENARIO, Codec(Space(2, side=6)))


def test_canonical_rows_stand_for_the_same_chips():
    space = Space(3, side=8)
    rows = space.random(400, torch.Generator().manual_seed(1))
    twice = canonical(space, canonical(space, rows))
    assert torch.equal(twice, canonical(space, rows))
    before, after = (evaluate(r, SCENARIO, space) for r in (space.snap(rows), canonical(space, rows)))
    for name in ("tok_s", "power", "area", "violation"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_a_design_file_reads_back_as_the_design(seed):
    space = Space(3, side=9)
    design = space.decode(space.random(1, torch.Generator().manual_seed(seed))[0])
    assert parse_design(design_yaml(design, ("a comment",))) == design


def test_a_design_file_keeps_what_the_space_leaves_alone():
    design = Design(2, 2, link_registers=2, port_flits=(("north", 9), ("west", 7)))
    assert parse_design(design_yaml(design)) == design


def test_a_search_repeats_itself_and_spends_what_it_may(problem):
    seen = []
    runs = [search(problem, None, 700, seed=seed, on_progress=lambda n, best: seen.append((n, best)))
            for seed in (3, 3, 4)]
    assert torch.equal(runs[0].actions, runs[1].actions) and torch.equal(runs[0].scores, runs[1].scores)
    assert not torch.equal(runs[0].actions, runs[2].actions)
    assert all(600 <= len(run.scores) <= 700 for run in runs) and max(n for n, _ in seen) <= 700
    assert seen[-1][1] == pytest.approx(float(runs[2].scores.max()))


def test_a_search_beats_chance_at_equal_evaluations(problem):
    found = search(problem, None, 1000, seed=1)
    chance = AskTell(problem, evaluations=1000)
    METHODS["random"](chance, 1)
    assert float(found.scores.max()) > chance.best


def test_the_last_steps_try_every_knob_alone(problem):
    start = evaluated(problem, problem.goal, problem.random_actions(200, torch.Generator().manual_seed(2)))
    end = climb(problem, problem.goal, start, 3000)
    assert len(end.scores) < 3000 and end.scores.max() > start.scores.max()
    around = problem.canonical(neighbours(problem.codec.shape, end.actions[end.best]))
    assert evaluated(problem, problem.goal, around).scores.max() <= end.scores.max()
    assert len(climb(problem, problem.goal, start, 20).scores) == 20


def test_the_front_is_what_nothing_beats(problem):
    found = search(problem, None, 700, seed=5)
    values = found.outcomes[:, :3] * torch.tensor([-1.0, 1.0, 1.0])
    feasible = (found.outcomes[:, 4] <= 0).nonzero().squeeze(1)
    for i in found.front:
        better = (values[feasible] <= values[i]).all(1) & (values[feasible] < values[i]).any(1)
        assert not better.any()
    for i in set(feasible.tolist()) - set(found.front):
        assert any(bool((values[j] <= values[i]).all()) for j in found.front)
    assert found.scores[found.front].max() == found.scores.max()


def test_hypervolume_of_boxes():
    outcomes = torch.tensor([[2.0, -1.0, -1.0, 0, 0], [1.0, -3.0, -1.0, 0, 0], [9.0, -9.0, -9.0, 0, 1.0]])
    assert len(pareto_front(outcomes)) == 2
    assert hypervolume(outcomes, torch.zeros(3)) == pytest.approx(2 * 1 * 1 + 1 * 2 * 1)


@pytest.mark.parametrize("name", METHODS)
def test_every_baseline_keeps_to_its_evaluations(problem, name):
    count = 60 if name == "tpe" else 300
    ask = AskTell(problem, evaluations=count)
    METHODS[name](ask, 2)
    assert 0 < len(ask.scores) <= count and ask.best > INFEASIBLE
    again = AskTell(problem, evaluations=count)
    METHODS[name](again, 2)
    assert np.array_equal(ask.points, again.points)


@pytest.mark.parametrize(("text", "message"), [
    ("fast", "Goal must be high-performance, low-power or W_PERF,W_POWER,W_AREA, not 'fast'"),
    ("0.5,0.5", "Goal must be .*, not '0.5,0.5'"),
    ("0.5,0.5,0.5", "Goal must be three weights from 0 that sum to 1, not '0.5,0.5,0.5'"),
    ("1.5,-0.5,0", "Goal must be three weights from 0 that sum to 1, not '1.5,-0.5,0'"),
    ("nan,0,1", "Goal must be three weights from 0 that sum to 1, not 'nan,0,1'"),
])
def test_goals_are_refused(text, message):
    with pytest.raises(HwgenError, match=message):
        parse_goal(text)


@pytest.mark.parametrize("text", ["7,6", "", "seven"])
def test_nodes_are_refused(text):
    with pytest.raises(HwgenError, match="Nodes must be of 28, 22, 14, 10, 7, 5, 3 nm, not"):
        parse_nodes(text)


def hwgen(*arguments, **options):
    command = [sys.executable, "-m", "hwgen.cli", "explore", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, **options)


SMALL = ("--side", 4, "--evaluations", 400, "--node", 28, "--json")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    done = hwgen(MODEL, *SMALL, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_run_holds_what_it_says(run_folder):
    folder, summary = run_folder
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == RUN
    design = parse_design((folder / "design.yaml").read_text())
    assert (design.width, design.height) == (summary["design"]["width"], summary["design"]["height"])
    first, *rows = map(json.loads, (folder / "evaluations.jsonl").read_text().splitlines())
    assert len(rows) == summary["evaluations"] <= 400 and max(r["score"] for r in rows) == summary["score"]
    best = max(rows, key=lambda r: r["score"])
    assert best["tok_s"] == pytest.approx(summary["tok_s"], rel=1e-4) and first["knobs"]
    assert len((folder / "pareto.csv").read_text().splitlines()) == summary["front"] + 1
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page and "<svg" in page
    assert "Mb/mm2 of bare cells" in page


def test_a_run_repeats_its_bytes(run_folder, tmp_path):
    assert hwgen(MODEL, *SMALL, "-o", tmp_path / "run").returncode == 0
    for name in RUN:
        assert (tmp_path / "run" / name).read_bytes() == (run_folder[0] / name).read_bytes()


def test_a_warm_start_begins_where_the_other_ended(run_folder, tmp_path):
    folder, summary = run_folder
    done = hwgen(MODEL, *SMALL, "--context", 200, "--warm-start", folder, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows, old = ([json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()[1:]]
                 for run in (tmp_path / "run", folder))
    best = sorted(old, key=lambda r: -r["score"])[:WARM]
    assert [r["action"] for r in rows[:WARM]] == [r["action"] for r in best]
    # they serve the changed scenario about as well
    assert max(r["score"] for r in rows[:WARM]) > summary["score"] - 0.1


@pytest.mark.parametrize(("arguments", "message"), [
    (["no-such-model"], "no-such-model"),
    ([MODEL, "--node", 6], "Node must be"),
    ([MODEL, "--side", 4, "--evaluations", 400, "--power-max", 1e-9], "Budgets must be possible together for"),
    ([MODEL, "--agent", MODEL / "config.json"], "must be a file that hwgen saved"),
    ([MODEL, "--warm-start", MODEL], "RUN to start from must be a folder that `hwgen explore` made"),
    ([MODEL, "--context", 100000], "Context must be 1 to"),
    (["llama-3.1-8b", "--node", 28, "--evaluations", 200], "no feasible design"),
], ids=str)
def test_refusals(arguments, message, tmp_path):
    done = hwgen(*arguments, "-o", tmp_path / "run")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout and not (tmp_path / "run").exists()


def test_a_config_that_lacks_fields_is_refused(tmp_path):
    config = json.loads((MODEL / "config.json").read_text())
    del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = hwgen(tmp_path / "config.json")
    assert done.returncode == 2 and "num_hidden_layers" in done.stderr and "Traceback" not in done.stderr


SMALL_SPACE = {"side": 4, "fixed": {"clock_mhz": 100.0}}
"""Meshes that are simulated: at most 16 tiles."""


def proposals(workload, count, space, *, spread=(1.5, 0.7, 0.7), above=0):
    """Designs of more than `above` tiles that the shipped agent chooses, each once.

    `spread`: of the goals over the simplex, the concentrations of a Dirichlet distribution.
    """
    draw, designs, designer = np.random.default_rng(7), [], Designer.load(SHIPPED, Space(**space))
    for seed in range(4 * count):
        weights = tuple(float(w) for w in draw.dirichlet(spread))
        weights = (weights[0], weights[1], max(0.0, 1 - weights[0] - weights[1]))
        scenario = Scenario(workload, int(draw.choice([28, 7, 3])), context=32, prompt=4, weights=weights)
        found = search(designer.problem(scenario), designer, 64, seed=seed)
        if (design := found.design(found.best)) not in designs and design.tiles > above:
            designs.append(design)
        if len(designs) == count:
            return designs
    raise AssertionError(f"{count} proposals must differ, not {len(designs)}")


def shaped():
    """A workload with the sizes of SmolLM2 135M, but one layer and few words."""
    whole = read_workload("smollm2-135m")
    return replace(whole, config=replace(whole.config, layers=1, vocab=512, max_context=64))


@cache
def model_of(name):
    """(graph, workload) of a model whose chips are simulated."""
    if name == "smollm2-shaped":
        workload = shaped()
        graph = quantize(random_model(workload.config, np.random.default_rng(1)), context=32, allow_wrap=True)
        return graph, workload
    folder = MODEL if name == "example" else ROOT.parent / "shared/models/stories260K"
    if not folder.exists():
        pytest.skip("stories260K is not beside this checkout")
    return quantize(load(folder), context=32), read_workload(folder)


@cache
def twenty(name):
    return proposals(model_of(name)[1], 20, SMALL_SPACE)


def check_every_stream(graph, design, folder):
    """Simulates a design with a prompt of its own for each stream, and compares all with the reference."""
    prompts = [[1, 300 + 19 * s, 470 - 23 * s, 7][: 3 + s % 2] for s in range(design.streams)]
    wanted = [Reference(graph).generate(prompt, 2, eos=None) for prompt in prompts]
    assert design.streams == 1 or len(set(map(tuple, wanted))) > 1  # else streams that were mixed up would pass
    generate(graph, design, folder)
    result = simulate(folder, sim="verilator", prompt_ids=prompts, max_tokens=2, quick=design.streams < 4)
    assert (result["tokens"], result["fault"]) == (wanted, False), design


def test_proposed_designs_generate(tmp_path):
    """All are compiled and proven, the smallest is emitted, too; others are below."""
    graph, designs = quantize(load(MODEL), context=32), proposals(read_workload(MODEL), 4, SMALL_SPACE)
    for design in designs:
        compile_chip(graph, design)
    generate(graph, min(designs, key=lambda design: design.tiles), tmp_path / "chip", images=False)


def test_a_proposal_of_the_whole_space_compiles():
    """Meshes of more than 16 tiles at any clock."""
    workload = shaped()
    design, = proposals(workload, 1, {}, spread=(8, 0.7, 0.7), above=16)
    assert len(compile_chip(shape_only(workload.config, 32), design).tiles) == design.tiles > 16


@pytest.mark.full
def test_proposals_of_the_whole_space_generate(tmp_path):
    workload = shaped()
    designs = proposals(workload, 6, {}, spread=(8, 0.7, 0.7), above=16)
    for number, design in enumerate(designs):
        generate(shape_only(workload.config, 32), design, tmp_path / str(number), images=False)


@pytest.mark.full
@pytest.mark.parametrize("number", range(20))
@pytest.mark.parametrize("name", ["stories260k", "example", "smollm2-shaped"])
def test_proposed_designs_are_bit_exact(name, number, tmp_path):
    """All of twenty proposals for each model generate, and write what the reference writes."""
    check_every_stream(model_of(name)[0], twenty(name)[number], tmp_path / "chip")


@pytest.mark.full
def test_a_proposal_with_4_bit_weights_is_bit_exact(tmp_path):
    formats = {"weights": "mxfp4", "head": "mxfp4"}
    graph, workload = quantize(load(MODEL), context=32, **formats), read_workload(MODEL, **formats)
    assert graph.mxfp4 == workload.mxfp4 != frozenset()
    check_every_stream(graph, proposals(workload, 1, SMALL_SPACE)[0], tmp_path / "chip")
