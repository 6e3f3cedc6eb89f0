"""report.html of a model with a vision tower: what it says of the tower and of the image."""

import re

import pytest
import torch

from explore.action import Codec
from explore.amounts import amount
from explore.problem import Problem
from explore.report import figures_of, report_html
from explore.scenario import Scenario
from explore.search import Search, search
from explore.space import Space
from explore.workload import read_workload

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pages():
    """Name -> (page with its white space made one, figures, search), of one design for a model with and one without."""
    codec, found = Codec(Space(2, side=6)), {}
    for name in ("smolvlm-256m", "smollm2-135m"):
        result = search(Problem(Scenario(read_workload(name), 7, context=256), codec), None, 64, seed=1)
        found[name] = " ".join(report_html(result, {}).split()), figures_of(result.figures(result.best)), result
    return found


def first_token(page):
    return re.search(r"<b>([^<]*)</b><span>to the first token(, image included)?</span>", page).groups()


def test_the_page_counts_the_tower(pages):
    page, figures, _ = pages["smolvlm-256m"]
    assert "256,484,928 parameters" in page
    assert ("The chip holds the language part. The vision tower (93,510,912 parameters, 1024 patches, 64 tokens an "
            "image) is counted in area and in time to the first token; <code>hwgen generate</code> does not emit it."
            ) in page
    area, share = re.search(r"</i>vision (\S+) mm2 \((\S+) %\)", page).groups()
    # 8.25 bits at 57.8 Mb/mm2 for 12 layers of 4 x 768 x 768 + 2 x 768 x 3,072 weights, 768 x 768 of patches and
    # 576 x 12,288 of the connector
    assert float(area) == pytest.approx(13.22, abs=0.05) and float(share) == pytest.approx(
        100 * float(area) / figures["area"], abs=0.1)


def test_the_first_token_includes_the_image(pages):
    page, figures, result = pages["smolvlm-256m"]
    assert first_token(page) == (amount(figures["ttft_s"], "s", 3), ", image included")
    # the same chip without the image: its prompt alone, at the pace of a step for each position
    problem = result.problem
    bare = Problem(Scenario(read_workload("smollm2-135m"), 7, context=256), problem.codec)
    alone = Search(bare, result.actions, bare.outcomes(result.actions), result.scores, 0.0)
    without = float(alone.figures(result.best).ttft_s)
    tower = problem.scenario.workload.vision.macs / (
        figures["peak_tok_s"] * problem.scenario.workload.macs_per_token(problem.scenario.at))
    assert figures["ttft_s"] > without + tower


def test_the_page_of_a_model_without_a_tower_does_not_speak_of_one(pages):
    page, figures, _ = pages["smollm2-135m"]
    assert first_token(page) == (amount(figures["ttft_s"], "s", 3), None)
    assert "tower" not in page and "does not emit" not in page and not re.search(r"</i>vision [1-9]", page)
