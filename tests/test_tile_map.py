"""Maps of one design tile by tile, and the closed form against them."""

from dataclasses import replace

import pytest
from explore_designs import design, scenario

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


def test_every_local_output_carries_all_gathers():
    maps = tile_map(design(), scenario())
    local = [flits for (_, _, out), flits in maps.links.items() if out == "local"]
    assert len(local) == 24 and min(local) >= maps.sent.sum() * (1 - 1e-9)
