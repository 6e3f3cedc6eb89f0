"""Real models on the presets: one model, one answer, undisturbed by whatever the host does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hwgen.design import read_design
from hwgen.generate import generate
from hwgen.load import load
from hwgen.quantize import quantize
from hwgen.reference import Reference
from hwgen.run import run
from hwgen.simulate import simulate

ROOT = Path(__file__).parent.parent
DESIGNS = ROOT / "examples/designs"
STORIES = ROOT.parent / "shared/models/stories260K"
PROMPT = "Once upon a time"
TOKENS = 8


@pytest.fixture(scope="module")
def graph():
    return quantize(load(ROOT / "examples/model"))


@pytest.fixture(scope="module")
def wanted(graph):
    return Reference(graph).generate(graph.tokenizer.encode(PROMPT), TOKENS)


@pytest.fixture(scope="module")
def chip(graph, tmp_path_factory):
    build = tmp_path_factory.mktemp("story") / "chip"
    generate(graph, read_design(DESIGNS / "2x2.yaml"), build)
    return build


def _run(graph, build, **options):
    return simulate(build, **{"sim": "verilator", "prompt_ids": graph.tokenizer.encode(PROMPT), "max_tokens": TOKENS,
                              "quick": True} | options)


@pytest.mark.parametrize("disturbance", [
    {}, {"output_pause": [6000, 1]}, {"output_pause": [1, 1, 7, 2]}, {"reset_after": [100, 1777, 4321], "eager": True},
], ids=str)
def test_the_example_model_tells_its_story_whatever_the_host_does(graph, wanted, chip, disturbance):
    result = _run(graph, chip, **disturbance)
    assert result["tokens"] == wanted
    assert not (result["overflow"] or result["fault"] or result["err_busy"])
    # the timeline is that of the second token, which a stalled output may hold up after the units are done
    spans = result["timeline"]
    begin, end = min(span["start"] for span in spans), max(span["stop"] for span in spans)
    assert end - begin <= result["cycles_per_token"][1]
    assert disturbance or end - begin >= 0.9 * result["cycles_per_token"][1]
    assert {(span["x"], span["y"], span["unit"]) for span in spans} == {
        (x, y, unit) for x in range(2) for y in range(2) for unit in ("matrix", "vector", "send")}


def test_a_run_ends_after_any_of_the_models_ends(graph, wanted, chip, tmp_path):
    """As Llama 3 Instruct ends its turns after the second of the ids that its configuration names."""
    build = shutil.copytree(chip, tmp_path / "chip")
    numbers = json.loads((build / "manifest.json").read_text())
    assert numbers["eos_ids"] == [2]
    ends = [2, wanted[6], wanted[3]]
    (build / "manifest.json").write_text(json.dumps(numbers | {"eos_ids": ends}))
    result = run(build, sim="verilator", prompt_ids=[lambda tokenizer: tokenizer.encode(PROMPT)], max_tokens=TOKENS,
                 quick=True)
    assert result["tokens"] == Reference(graph).generate(graph.tokenizer.encode(PROMPT), TOKENS, eos=ends) == wanted[:4]


def test_a_second_request_does_not_disturb_the_first(graph, wanted, chip):
    result = _run(graph, chip, start_again_after=9000)
    assert result["tokens"] == wanted and result["err_busy"]


def test_logits_equal_the_references(graph, chip):
    ids = graph.tokenizer.encode(PROMPT)
    result = _run(graph, chip, mode="logits", max_tokens=2)
    run = Reference(graph)
    for position, token in enumerate(ids[:-1]):
        run.feed(token, position)
    first = run.step(ids[-1], len(ids) - 1)
    np.testing.assert_array_equal(result["logits"][0], first)
    np.testing.assert_array_equal(result["logits"][1], run.step(int(np.argmax(first)), len(ids)))


@pytest.mark.full
def test_icarus_agrees(graph, chip):
    wanted = Reference(graph).generate([1], 1)
    assert _run(graph, chip, sim="icarus", prompt_ids=[1], max_tokens=1)["tokens"] == wanted


@pytest.mark.full
@pytest.mark.parametrize("preset", ["1x1", "2x2-heterogeneous", "4x4"])
def test_every_preset_gives_the_same_tokens(graph, wanted, preset, tmp_path):
    generate(graph, read_design(DESIGNS / f"{preset}.yaml"), tmp_path / "chip")
    assert _run(graph, tmp_path / "chip")["tokens"] == wanted


@pytest.mark.full
@pytest.mark.parametrize("head", ["mxint8", "mxfp4"])
def test_the_example_model_in_mxfp4(head, tmp_path):
    story = quantize(load(ROOT / "examples/model"), weights="mxfp4", head=head)
    wanted = Reference(story).generate(story.tokenizer.encode(PROMPT), TOKENS)
    generate(story, read_design(DESIGNS / "2x2.yaml"), tmp_path / "chip")
    assert _run(story, tmp_path / "chip")["tokens"] == wanted
    assert _run(story, tmp_path / "chip", sim="icarus", max_tokens=1)["tokens"] == wanted[:1]


@pytest.mark.full
def test_stories260k_on_two_by_two(tmp_path):
    if not STORIES.exists():
        pytest.skip(f"{STORIES.name} does not lie beside this checkout")
    story = quantize(load(STORIES))
    ids = story.tokenizer.encode(PROMPT)
    wanted = Reference(story).generate(ids, 64)
    generate(story, read_design(DESIGNS / "2x2.yaml"), tmp_path / "chip")
    result = simulate(tmp_path / "chip", sim="verilator", prompt_ids=ids, max_tokens=64)
    assert result["tokens"] == wanted
    assert simulate(tmp_path / "chip", sim="icarus", prompt_ids=ids, max_tokens=4)["tokens"] == wanted[:4]
    assert max(result["cycles_per_token"][1:]) <= 6400
