"""Maps of one design tile by tile, and the closed form against them."""

from dataclasses import replace
from statistics import median

import pytest
import torch
from explore_designs import design, scenario

from bench.explore_queries import frozen_queries
from bench.explore_suite import suite
from explore.arrangement import ARRANGEMENTS, node_classes
from explore.designer import Designer
from explore.tile_map import deviation, tile_map
from hwgen.design import Design, TileClass

COLUMNS = Design(6, 4, pipeline_stages=2, classes=(TileClass("a", vlen=64), TileClass("b", vlen=32)),
                 node_class=(0, 0, 0, 1, 1, 1) * 4)
MIXED = Design(6, 4, classes=(TileClass("a", vlen=64), TileClass("b", vlen=32)), node_class=(0,) * 12 + (1,) * 12)


@pytest.mark.parametrize(("made", "formats"), [(design(), {}), (MIXED, {}), (MIXED, {"weights": "mxfp4"}),
                                               (COLUMNS, {}), (replace(design(), pipeline_stages=4, streams=2), {}),
                                               (Design(3, 1, multicast=False), {}),
                                               (Design(2, 3, multicast=False), {})])
def test_weights_add_up_and_links_agree(made, formats):
    asked = scenario(formats=formats)
    maps = tile_map(made, asked)
    assert maps.weights.sum() == asked.workload.weight_elements
    assert maps.wmem_kib.shape == (made.height, made.width)
    off = deviation(made, asked, maps)
    assert set(off) == {"row", "column", "local", "matrix"}
    assert all(abs(value) <= 0.10 for value in off.values()), off


@pytest.mark.parametrize("multicast", [True, False])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("second", [TileClass("b", vlen=32), TileClass("b", vlen=64, shares=(0, 0, 1))])
def test_links_agree_wherever_the_classes_lie(second, arrangement, multicast):
    for width, height in ((8, 2), (4, 4)):
        half = width * height // 2
        made = Design(width, height, classes=(TileClass("a", vlen=64), second), multicast=multicast,
                      node_class=node_classes(width, height, [half, half], arrangement))
        off = deviation(made, scenario())
        assert all(abs(value) <= 0.07 for value in off.values()), off


def test_every_local_output_carries_all_gathers():
    maps = tile_map(design(), scenario())
    local = [flits for (_, _, out), flits in maps.links.items() if out == "local"]
    assert len(local) == 24 and min(local) >= maps.sent.sum() * (1 - 1e-9)


def test_links_of_proposals_agree():
    """The closed form is within 10 % of the real routes for whatever the agent proposes, and nearer as a rule."""
    designer, worst = Designer.load(), []
    queries = [query.scenario for query in frozen_queries(20, designer.codec)]
    for number, asked in enumerate(suite() + queries):
        problem = designer.problem(asked)
        actions = designer.propose(problem, problem.goal, 1, torch.Generator().manual_seed(number))
        made = problem.space.decode(problem.codec.designs(actions)[0])
        worst.append(max(abs(value) for value in deviation(made, asked).values()))
        assert worst[-1] <= 0.10, (asked, made)
    assert median(worst) <= 0.03
