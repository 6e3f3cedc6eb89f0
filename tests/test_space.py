"""The design space: rows and designs, splits, fixed knobs and what it refuses."""

from dataclasses import replace

import pytest
import torch
from explore_designs import design

from explore.space import CALIBRATED, Space, split
from hwgen.compiler import place
from hwgen.design import CHIP_RULES, TILE_RULES, Design, TileClass
from hwgen.errors import HwgenError


def test_decode_inverts_encode():
    space = Space(3)
    for row in space.random(60, torch.Generator().manual_seed(0)):
        made = space.decode(row)
        assert space.decode(space.encode(made)) == made


def test_values_are_the_generators():
    knobs = {knob.label: knob for knob in Space(1).knobs}
    assert knobs["buffer_flits"].values == tuple(CHIP_RULES["buffer_flits"].values)
    for name, values in CALIBRATED.items():
        assert knobs[name].values == values and set(values) <= set(CHIP_RULES[name].values)
    assert knobs["vlen.0"].values == tuple(TILE_RULES["vlen"].values)
    assert knobs["streams"].values == tuple(CHIP_RULES["streams"].values)


def test_snap_keeps_the_design():
    space = Space(2)
    rows = space.random(50, torch.Generator().manual_seed(1))
    snapped = space.snap(rows)
    assert torch.equal(space.snap(snapped), snapped)
    assert [space.decode(row) for row in rows] == [space.decode(row) for row in snapped]


def test_split_is_the_compilers():
    weights = [0.2, 0.5, 0.3]
    ours = split(torch.tensor([[17.0]], dtype=torch.float64), torch.tensor([weights], dtype=torch.float64))
    assert ours[0].tolist() == [b - a for a, b in place.split(17, weights)]


def test_fixed_knobs():
    space = Space(1, side=8, fixed={"width": 4, "vlen.0": 64})
    made = [space.decode(row) for row in space.random(20)]
    assert {(d.width, d.classes[0].vlen) for d in made} == {(4, 64)} and max(d.height for d in made) <= 8


@pytest.mark.parametrize(("arguments", "message"), [
    ({"classes": 9}, "Tile classes must be 1 to 8, not 9"), ({"side": 65}, "Side must be 1 to 64, not 65"),
    ({"fixed": {"vlen.0": 48}}, "vlen.0 must be one of the knob's values, not 48"),
    ({"fixed": {"depth": 1}}, "A fixed knob must be one of the space's, not 'depth'")])
def test_bad_spaces(arguments, message):
    with pytest.raises(HwgenError, match=message):
        Space(**arguments)


def test_designs_outside_the_space():
    mixed = Design(2, 2, classes=(TileClass("a"), TileClass("b")), node_class=(0, 1, 1, 0))
    with pytest.raises(HwgenError, match="Tile classes must be at most 1"):
        Space(1).encode(mixed)
    with pytest.raises(HwgenError, match="Tile classes must lie in an order"):
        Space(2).encode(mixed)
    with pytest.raises(HwgenError, match="link_registers must be 0 in a space, not 1"):
        Space(2).encode(replace(design(), link_registers=1))
    assert Space(2).decode(Space(2).encode(design())).classes[0].vlen == 64
