"""`hwgen explore` where things end badly or oddly: nothing fits, kills, budgets, damaged files, Q files, big meshes."""

import json
import math
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import explore.command
from explore.action import Codec
from explore.agent import HyperParameters, read_saved, write_saved
from explore.command import WARM
from explore.command import explore as run
from explore.designer import SHIPPED, Designer
from explore.evaluate import evaluate
from explore.floors import floors
from explore.goal import VIOLATION
from explore.kept import Kept
from explore.limits import Reason, sentences
from explore.problem import Problem
from explore.report import MAPPED_TILES, report_html
from explore.scenario import Scenario
from explore.search import Search, search
from explore.space import Space
from explore.train import main as train
from explore.train import parse_setting
from explore.training import Training
from explore.vision import LARGEST
from explore.workload import read_workload, shipped_workloads
from hwgen.commands import app
from hwgen.errors import HwgenError
from hwgen.formats import AGENT, TRAINING
from hwgen.load import load
from hwgen.quantize import narrow_matrices, quantize

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/model"
SMALL = {"nm": 28, "goal": "low-power", "side": 4, "evaluations": 100}
explore_small = partial(run, str(MODEL), **SMALL)


def command(*arguments):
    return [sys.executable, "-m", "hwgen.cli", "explore", *map(str, arguments)]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()[1:]]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, explore_small(nodes="28,7", output=folder)


def test_the_evaluations_of_every_node_are_there(two_nodes):
    folder, summary = two_nodes
    rows = rows_of(folder)
    assert [r["node"] for r in rows] == sorted((r["node"] for r in rows), reverse=True)
    scores = {nm: max(r["score"] for r in rows if r["node"] == nm) for nm in (28, 7)}
    assert all(scores[row["node"]] == row["score"] for row in summary["scaling"])
    assert scores[summary["node"]] == summary["score"]


def test_killed_after_a_node_it_goes_on_to_the_same_bytes(two_nodes, tmp_path, monkeypatch):
    process = subprocess.Popen(command(MODEL, "--goal", "low-power", "--side", 4, "--evaluations", 100,
                                       "--nodes", "28,7", "-o", tmp_path / "run"), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".run.nodes/*.pt")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "run").exists()
    searched = []

    def counted(problem, *arguments, **options):
        searched.append(problem.scenario.nm)
        return search(problem, *arguments, **options)

    monkeypatch.setattr(explore.command, "search", counted)
    explore_small(nodes="28,7", output=tmp_path / "run")
    assert searched == [7] and contents(tmp_path / "run") == contents(two_nodes[0])
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"context": 64}, {"power_max": 1.0}, {"agent": "other"}], ids=str)
def test_finished_nodes_of_another_run_are_not_taken_up(change, tmp_path, monkeypatch):
    def stop_at_7(problem, *arguments, **options):
        if problem.scenario.nm == 7:
            raise KeyboardInterrupt
        searched.append(problem.scenario.nm)
        return search(problem, None, 64, seed=0)

    monkeypatch.setattr(explore.command, "search", stop_at_7)
    if "agent" in change:
        change = {"agent": tmp_path / "agent.pt"}
        saved = read_saved(SHIPPED, AGENT)
        write_saved(saved | {"cases": saved["cases"][1:]}, change["agent"])
    for options, wanted in (({}, [28]), ({}, []), (change, [28])):
        searched = []
        with pytest.raises(KeyboardInterrupt):
            explore_small(nodes="28,7", output=tmp_path / "run", **options)
        assert searched == wanted
    kept = next(tmp_path.glob(".run.nodes/28-*.pt"))
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(KeyboardInterrupt):
        [explore_small(nodes="28,7", output=tmp_path / "run", **options) for options in ({}, change)]


def test_a_folder_that_is_there_keeps_its_finished_nodes_within(tmp_path, monkeypatch):
    """As where nothing can be written beside it: a mount point, or an own folder in somebody else's."""
    folder, searched = tmp_path / "run", []

    def stop_at_7(problem, *arguments, **options):
        searched.append(problem.scenario.nm)
        if searched == [28, 7]:
            raise KeyboardInterrupt
        return search(problem, None, 64, seed=0)

    monkeypatch.setattr(explore.command, "search", stop_at_7)
    folder.mkdir()
    identity = folder.stat().st_ino
    with pytest.raises(KeyboardInterrupt):
        explore_small(nodes="28,7", output=folder)
    assert len(list(folder.glob(".hwgen-nodes/28-*.pt"))) == 1
    explore_small(nodes="28,7", output=folder)  # it counts as empty
    assert searched == [28, 7, 7] and folder.stat().st_ino == identity
    assert [p.name for p in tmp_path.iterdir()] == ["run"] and not list(folder.glob(".hwgen-*"))


WRONG_PARTS = {
    "no scores": lambda saved: {k: v for k, v in saved.items() if k != "scores"},
    "short outcomes": lambda saved: saved | {"outcomes": saved["outcomes"][:-1]},
    "narrow outcomes": lambda saved: saved | {"outcomes": saved["outcomes"][:, :5]},
    "narrow actions": lambda saved: saved | {"actions": saved["actions"][:, 1:]},
    "nan scores": lambda saved: saved | {"scores": saved["scores"] * math.nan},
    "nan proposed": lambda saved: saved | {"proposed": math.nan},
    "whole scores": lambda saved: saved | {"scores": saved["scores"].long()},
    "words": lambda saved: saved | {"actions": "x"},
    "nothing": lambda saved: saved | {name: saved[name][:0] for name in ("actions", "outcomes", "scores")}}


def test_a_kept_search_with_wrong_parts_is_as_if_it_were_not_there(tmp_path):
    problem = Problem(Scenario(read_workload("stories260k"), 28, context=64), Codec(Space(2, side=4)))
    found, kept = search(problem, None, 64, seed=0), Kept(tmp_path / "run", {})
    assert kept.load(problem) is None
    kept.save(found)
    path, again = next(tmp_path.glob(".run.nodes/*.pt")), kept.load(problem)
    assert torch.equal(again.actions, found.actions) and again.proposed == found.proposed
    saved = torch.load(path, weights_only=True)
    for name, damage in WRONG_PARTS.items():
        write_saved(damage(saved), path)
        assert kept.load(problem) is None, name
    path.unlink()
    path.mkdir()
    assert kept.load(problem) is None
    kept.save(found)
    kept.clear()
    assert path.is_dir()  # not ours


def test_where_no_node_fits_the_table_comes_first(tmp_path):
    done = subprocess.run(command("llama-3.1-8b", "--nodes", "28,3", "--evaluations", 64, "-o", tmp_path / "run"),
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert re.search(r"^ *28 \d+x\d+ ", done.stdout, re.M) and re.search(r"^3 nm: .*one reticle", done.stdout, re.M)
    assert done.stderr.strip().endswith("--weights mxfp4 halves the weight ROM")
    assert "hwgen: None of the 2 nodes has a design that fits: llama-3.1-8b on 3 nm has no feasible" in done.stderr


def test_the_clock_that_binds_is_named():
    for clock in (0.5, 0.999):
        with pytest.raises(HwgenError, match="--clock-max must be at least 1 MHz, the slowest clock of a design"):
            explore_small(clock_max=clock)
    scenario = Scenario(read_workload("stories260k"), 28, context=64)
    asked = replace(scenario, clock_max=0.5)
    assert sentences(Reason.CLOCK.bit, asked) == [
        "clock_mhz must be at most 0.5, which the system allows (--clock-max)"]
    for most in (None, 1e6):
        assert sentences(Reason.CLOCK.bit, replace(scenario, clock_max=most)) == [Reason.CLOCK.sentence]


def test_budgets_bind_the_front_and_the_violation(tmp_path):
    free = explore_small(output=tmp_path / "free")
    limit = 1.2 * free["power"]
    bound = explore_small(output=tmp_path / "run", power_max=limit)
    front = (tmp_path / "run/pareto.csv").read_text().splitlines()[1:]
    assert len(front) == bound["front"] > 0 and all(float(line.split(",")[1]) <= limit for line in front)
    rows = rows_of(tmp_path / "run")
    over = [r for r in rows if r["power_w"] > 1.001 * limit]
    assert over and all(r["violation"] >= 0.99 * (r["power_w"] / limit - 1) > 0 for r in over)
    assert all((r["violation"] > 0) == (r["score"] <= -100) for r in rows)
    found = re.findall(r"tok/s, (\S+) (\S?)W,", (tmp_path / "run/pareto.svg").read_text())
    watts = [float(w.replace(",", "")) * {"": 1, "m": 1e-3, "µ": 1e-6}[prefix] for w, prefix in found]
    assert len(watts) == len(front) and max(watts) <= 1.001 * limit


def found_of(scenario, space):
    problem = Problem(scenario, Codec(space))
    return search(problem, None, 64, seed=0)


def test_a_report_says_when_nothing_is_in_the_front_or_on_a_map():
    scenario = Scenario(read_workload("smollm2-135m"), 7, context=128, power_max=1e-9)
    found = found_of(scenario, Space(fixed={"width": 64, "height": 64}))
    assert found.front == [] and found.design(found.best).tiles > MAPPED_TILES
    page = " ".join(report_html(found, {}).split())
    assert "No design that was evaluated is within limits and budgets" in page
    assert "Only meshes of up to 1,764 tiles are drawn and checked tile by tile; this one has 4,096" in page
    assert "README" not in page and "ARCHITECTURE.md, section 11" in page
    assert "floor of area" in page and "of 830 mm2" in page


@pytest.mark.parametrize("name", shipped_workloads())
@pytest.mark.parametrize("weights", ["mxint8", "mxfp4"])
def test_no_design_is_below_the_floors(name, weights):
    workload = read_workload(name)
    workload = replace(workload, mxfp4=narrow_matrices(workload.config, weights, weights))
    scenario = Scenario(workload, 7, context=min(512, workload.max_context))
    space = Space(2, side=16, fixed={"pipeline_stages": 1})
    result = evaluate(space.random(150, torch.Generator().manual_seed(0)), scenario, space)
    least, placed, area = floors(scenario), (result.reasons & 1) == 0, result.area_parts
    assert bool((area["weights"] + area["vision"] >= least.weight_mm2)[placed].all())
    assert bool((area["data"] >= least.kv_mm2)[placed].all())
    assert bool((result.power >= result.floor_power)[placed].all())
    assert float((area["weights"] / (least.weight_mm2 + 1e-9)).min()) < 2


def test_floors_are_printed(two_nodes, monkeypatch, capsys):
    monkeypatch.setattr(explore.command, "explore", lambda *_, **__: two_nodes[1])
    app(["explore", "stories260k"], standalone_mode=False)
    assert re.search(r"No design gets below \S+ \S?W at this speed, \S+ mm2 of weights and \S+ mm2 of cache a "
                     r"sequence; its multipliers allow \S+ tokens/s", " ".join(capsys.readouterr().out.split()))


def test_a_flipped_byte_in_an_agent_is_refused(tmp_path):
    whole, path = SHIPPED.read_bytes(), tmp_path / "agent.pt"
    with zipfile.ZipFile(SHIPPED) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
    for place in (largest.header_offset + 200, largest.header_offset + largest.file_size // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        with pytest.raises(HwgenError, match="must be a file that hwgen saved, not damaged"):
            Designer.load(path)


@pytest.mark.parametrize(("path", "sentence"), [
    (ROOT / "nowhere.pt", "saved, but: No such file or directory"), (ROOT, "saved, but: Is a directory"),
    (ROOT / "README.md", "saved, not damaged or foreign")], ids=["missing", "folder", "foreign"])
def test_an_agent_that_cannot_be_read_is_named(path, sentence):
    with pytest.raises(HwgenError, match=f"^Agent '{path}' must be a file that hwgen {sentence}$"):
        Designer.load(path)


@pytest.mark.parametrize("part", ["hp", "steps", "choices", "layout", "scales", "cases", "actor", "surrogate"])
def test_an_agent_with_a_missing_or_foreign_part_is_refused(part, tmp_path):
    saved, path = read_saved(SHIPPED, AGENT), tmp_path / "agent.pt"
    for value in (None, 5, "x", [], {}, {"x": 1}, [5], torch.zeros(3), torch.zeros(0)):
        if (part, value) == ("hp", {}):
            continue  # as if the defaults were written down
        write_saved(saved | {part: value}, path)
        with pytest.raises(HwgenError, match=r"Agent .* must be"):
            Designer.load(path)
    write_saved({key: value for key, value in saved.items() if key != part}, path)
    with pytest.raises(HwgenError, match=r"Agent .* must be"):
        Designer.load(path)


@pytest.mark.parametrize("damage", [
    lambda row: row | {"action": [math.nan] * len(row["action"])}, lambda row: row | {"action": row["action"][:-1]},
    lambda row: row | {"action": []}, lambda row: row | {"score": None}, lambda row: [row], lambda row: {}],
    ids=["nan", "short", "empty", "score", "list", "nothing"])
def test_a_damaged_run_is_no_warm_start(two_nodes, tmp_path, damage):
    first, *rest = (two_nodes[0] / "evaluations.jsonl").read_text().splitlines()
    rows = [json.dumps(damage(json.loads(line))) for line in rest]
    (tmp_path / "evaluations.jsonl").write_text("\n".join([first, *rows]))
    with pytest.raises(HwgenError, match="RUN to start from must be a folder that `hwgen explore` made"):
        explore_small(warm_start=tmp_path)


def test_a_warm_start_of_several_nodes_takes_those_of_its_own(two_nodes, tmp_path):
    explore_small(warm_start=two_nodes[0], output=tmp_path / "run", context=200)
    own = sorted((r for r in rows_of(two_nodes[0]) if r["node"] == 28), key=lambda r: -r["score"])
    assert [r["action"] for r in rows_of(tmp_path / "run")[:WARM]] == [r["action"] for r in own[:WARM]]


@pytest.mark.parametrize(("text", "sentence"), [
    ("foo=1", "Hyper-parameter must be seed, .*, not 'foo'"), ("steps=many", "steps must be of type int, not 'many'"),
    ("lr", "lr must be of type float, not ''"), ("__class__=1", "Hyper-parameter must be")])
def test_settings_of_a_training_are_refused(text, sentence):
    with pytest.raises(HwgenError, match=sentence):
        parse_setting(text)
    assert parse_setting("steps=3") == ("steps", 3) and parse_setting("lr=1e-3") == ("lr", 1e-3)


def test_a_training_that_cannot_be_ends_with_a_sentence(tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-m", "explore.train", "-o", tmp_path / "run", "--set", "foo=1"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("explore.train: Hyper-parameter must be")
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_refused(tmp_path, monkeypatch):
    codec = Codec(Space(2, side=4))
    problem = Problem(Scenario(read_workload("stories260k"), 28, context=64), codec)
    hp = HyperParameters(steps=1, batch_designs=32, kept=32, hidden=8, critic_hidden=8, model_hidden=8, replay=100)
    training = Training([problem.practice("one", seed=1)], hp, codec.shape)
    path = tmp_path / "checkpoint.pt"
    training.save(path)
    training.load(path)
    saved, whole = read_saved(path, TRAINING), path.read_bytes()
    for part in saved.keys() - {"format", "log"}:
        for state in (saved | {part: "x"}, {key: value for key, value in saved.items() if key != part}):
            write_saved(state, path)
            with pytest.raises(HwgenError, match="Checkpoint .* must be"):
                training.load(path)
    path.write_bytes(whole[: len(whole) // 2] + b"\0" * 64 + whole[len(whole) // 2 + 64:])
    monkeypatch.setattr("explore.train.make_training", lambda *_: (training, {}))
    with pytest.raises(HwgenError, match="must be a file that hwgen saved, not damaged"):
        train(["-o", str(tmp_path)])


@pytest.mark.parametrize(("sizes", "sentence"), [
    ({"image_size": 10**9}, f"image_size must be a whole number from 1 to {LARGEST}, not 1000000000"),
    ({"image_size": LARGEST, "patch_size": 1, "num_hidden_layers": LARGEST}, "an image must take fewer than")], ids=str)
def test_a_tower_beyond_numbers_is_refused(sizes, sentence, tmp_path):
    config = json.loads((ROOT / "explore/workloads/smolvlm-256m.json").read_text())
    config["vision_config"] |= sizes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HwgenError, match=sentence):
        read_workload(tmp_path)


def test_a_q_file_brings_its_context(tmp_path, monkeypatch):
    quantize(load(MODEL), context=48).save(tmp_path / "small.q")
    workload = read_workload(tmp_path / "small.q")
    assert workload.context == 48 and repr(workload) == repr(replace(workload, context=None))
    with pytest.raises(HwgenError, match="^Context must be 48, as .*small.q was quantised for, not 49$"):
        run(str(tmp_path / "small.q"), **SMALL, context=49)
    seen = []

    def stop(problem, *_, **__):
        seen.append(problem.scenario.context)
        raise KeyboardInterrupt

    monkeypatch.setattr(explore.command, "search", stop)
    with pytest.raises(KeyboardInterrupt):
        run(str(tmp_path / "small.q"), **SMALL)
    monkeypatch.setattr(explore.command, "read_workload",
                        lambda *_, **__: replace(read_workload("smollm2-135m"), context=4096))
    with pytest.raises(KeyboardInterrupt):
        run("long.q", nm=7, goal="low-power")
    assert seen == [48, 4096]


def test_a_search_judges_by_physics_and_budgets():
    found = found_of(Scenario(read_workload("stories260k"), 7, context=64, area_max=0.2), Space(2, side=4))
    assert isinstance(found, Search) and bool((found.judged[:, VIOLATION] >= found.outcomes[:, VIOLATION]).all())
    assert torch.equal(found.judged[:, :4], found.outcomes[:, :4])
    assert torch.equal(found.judged[:, VIOLATION] > 0, found.scores <= -100)
