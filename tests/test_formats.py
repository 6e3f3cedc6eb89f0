"""What another version of hwgen made is refused before any work, in one sentence that says what to do."""

import json
import re
import time

import pytest
import torch
from random_model import random_model
from safetensors import safe_open
from safetensors.numpy import save_file
from small_chip import chip_manifest, simulation

from explore.action import Codec
from explore.agent import HyperParameters, read_saved, write_saved
from explore.command import explore
from explore.designer import SHIPPED, Designer
from explore.kept import Kept
from explore.problem import Problem
from explore.scenario import Scenario
from explore.search import search
from explore.space import Space
from explore.training import Training
from explore.workload import read_workload
from hwgen import formats
from hwgen.build_folder import KEYS, RESULTS, read_manifest, read_result, write_result
from hwgen.commands import app
from hwgen.errors import HwgenError
from hwgen.formats import AGENT, BUILD, GRAPH, RUN, SEARCH, TRAINING, Format
from hwgen.integer_graph import IntegerGraph
from hwgen.quantize import quantize

ALL = [value for value in vars(formats).values() if isinstance(value, Format)]
CHANGES = {"none": None, "older": "hwgen-{kind}-0", "newer": "hwgen-{kind}-99", "foreign": "hwgen-other-1", "odd": 7}
"""Of a mark; None takes it away."""


def changed(values: dict, wanted: Format, change: str) -> dict:
    mark = CHANGES[change]
    others = {key: value for key, value in values.items() if key != "format"}
    return others if mark is None else {"format": mark.format(kind=wanted.kind) if mark != 7 else 7, **others}


def sentence(wanted: Format, change: str) -> str:
    number = {"older": 0, "newer": 99}.get(change, 0)
    return re.escape(f" made by another version of hwgen (format {number}, this one reads {wanted.number}): "
                     f"{wanted.remedy}") + "$"


def test_every_kind_has_a_mark_of_its_own():
    assert len({f.kind for f in ALL}) == len(ALL) >= 8
    for own in ALL:
        own.check(own.mark, "never said")
        assert re.fullmatch(r"hwgen-[a-z-]+-[1-9]\d*", own.mark) and " again" in own.remedy


@pytest.mark.parametrize("change", CHANGES)
def test_builds(change, tmp_path):
    numbers = chip_manifest()
    (tmp_path / "manifest.json").write_text(json.dumps(changed(numbers, BUILD, change)))
    begun = time.process_time()
    for command in (["sim", str(tmp_path), "--prompt-ids", "1"], ["synth", str(tmp_path)]):
        with pytest.raises(HwgenError, match="^BUILD must be a folder that .* not '.*'" + sentence(BUILD, change)):
            app(command, standalone_mode=False)
    assert time.process_time() - begun < 5 and [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_manifest_has_the_keys_that_readers_ask_for():
    """Where this fails because of a change to the manifest: raise the number of hwgen.formats.BUILD, too."""
    numbers = chip_manifest()
    assert (BUILD.number, numbers["format"]) == (1, BUILD.mark)
    assert numbers.keys() == KEYS["manifest"]
    assert all(entry.keys() == KEYS[name] for name in KEYS.keys() - {"manifest"} for entry in numbers[name])


@pytest.mark.parametrize("name", ["manifest.json", "synth.json"])
def test_json_without_an_end_is_damage(name, tmp_path):
    (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(HwgenError, match="^(BUILD|.*synth.json) must be"):
        read_manifest(tmp_path) if name == "manifest.json" else read_result(tmp_path, name)


@pytest.mark.parametrize("name", KEYS)
def test_a_manifest_that_lacks_a_part_is_refused(name, tmp_path):
    for key in KEYS[name] - {"format", "top"}:
        numbers = chip_manifest()
        del (numbers if name == "manifest" else numbers[name][-1])[key]
        (tmp_path / "manifest.json").write_text(json.dumps(numbers))
        with pytest.raises(HwgenError, match=rf"^BUILD must be .*\(manifest.json lacks {key}\)$"):
            read_manifest(tmp_path)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", RESULTS)
def test_results(name, change, tmp_path):
    result = simulation(chip_manifest())
    write_result(tmp_path, name, result)
    assert read_result(tmp_path, name) == {"format": RESULTS[name].mark, **json.loads(json.dumps(result))}
    (tmp_path / name).write_text(json.dumps(changed(result, RESULTS[name], change)))
    with pytest.raises(HwgenError, match=f"^.*{name} must be a result of hwgen, not one" +
                       sentence(RESULTS[name], change)):
        read_result(tmp_path, name)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("q") / "a.q"
    quantize(random_model("odd sizes"), context=16).save(path)
    return path


def header_of(path):
    with safe_open(path, "np") as file:
        meta = json.loads(file.metadata()["hwgen"])
        return meta, json.loads(meta["graph"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("change", CHANGES)
def test_quantised_models(change, graph_file, tmp_path):
    meta, header, arrays = header_of(graph_file)
    meta["graph"] = json.dumps(changed(header, GRAPH, change))
    save_file(arrays, tmp_path / "a.q", metadata={"hwgen": json.dumps(meta)})
    rule = "^Integer graph must be a file that `hwgen quantize` wrote, not '.*a.q'" + sentence(GRAPH, change)
    with pytest.raises(HwgenError, match=rule):
        IntegerGraph.load(tmp_path / "a.q")
    with pytest.raises(HwgenError, match=rule):
        read_workload(tmp_path / "a.q")


def test_a_quantised_model_has_the_parts_of_its_format(graph_file):
    """Where this fails because of a change to what a Q file holds: raise the number of hwgen.formats.GRAPH, too."""
    meta, header, arrays = header_of(graph_file)
    assert GRAPH.number == 1 and meta.keys() == {"graph", "tokenizer", "signature"}
    assert header.keys() == {"format", "config", "context", "layers", "final_frac", "final_gain_frac",
                             "final_norm_frac"}
    names = {name.removesuffix(".elements").removesuffix(".scales") for name in arrays}
    assert {name for name in names if not name[0].isdigit()} <= {"embed", "head", "rope", "final_gain"}
    assert {name for name in names if name.startswith("0.")} == {"0.qkv", "0.o", "0.gate", "0.up", "0.down"}


@pytest.mark.parametrize("change", CHANGES)
def test_agents(change, tmp_path):
    path = tmp_path / "agent.pt"
    write_saved(changed(read_saved(SHIPPED, AGENT), AGENT, change), path)
    with pytest.raises(HwgenError, match="^Agent '.*' must be a file that hwgen saved, not one" +
                       sentence(AGENT, change)):
        Designer.load(path)


@pytest.fixture(scope="module")
def problem():
    torch.set_num_threads(1)
    return Problem(Scenario(read_workload("stories260k"), 28, context=64), Codec(Space(2, side=4)))


def test_checkpoints_of_a_training(problem, tmp_path):
    hp = HyperParameters(steps=1, batch_designs=32, kept=32, hidden=8, critic_hidden=8, model_hidden=8, replay=100)
    training = Training([problem.practice("one", seed=1)], hp, problem.codec.shape)
    path = tmp_path / "checkpoint.pt"
    training.save(path)
    saved = read_saved(path, TRAINING)
    for change in CHANGES:
        write_saved(changed(saved, TRAINING, change), path)
        with pytest.raises(HwgenError, match="^Checkpoint '.*' must be a file that hwgen saved, not one" +
                           sentence(TRAINING, change)):
            training.load(path)


def test_kept_searches_are_searched_anew(problem, tmp_path):
    found, kept = search(problem, None, 64, seed=0), Kept(tmp_path / "run", {})
    kept.save(found)
    path = next(tmp_path.glob(".run.nodes/*.pt"))
    assert kept.load(problem) is not None
    saved = read_saved(path, SEARCH)
    for change in CHANGES:
        write_saved(changed(saved, SEARCH, change), path)
        assert kept.load(problem) is None


@pytest.mark.parametrize("change", CHANGES)
def test_runs_to_start_from(change, tmp_path):
    first = {"knobs": ["any"], "encoding": "x"}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(changed(first, RUN, change)) + "\n")
    with pytest.raises(HwgenError, match="^RUN to start from must be .* of --warm-start" + sentence(RUN, change)):
        explore("stories260k", nm=28, goal="low-power", side=4, warm_start=tmp_path)
