"""The evaluator against what was measured: cycles in RTL simulation and gates by Yosys, on designs not fitted to.

tests/measured holds figures of emitted chips; `python -m bench.calibration` measures others.
"""

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from bench.calibration import predicted_cycles
from explore.logic_area import gates, router_gates
from explore.space import knobs_of
from hwgen.design import Design, TileClass
from hwgen.model_config import ModelConfig
from hwgen.noc.turns import sides_of

MEASURED = Path(__file__).parent / "measured"


def _lines(name):
    return [json.loads(line) for line in (MEASURED / name).read_text().splitlines()]


def _design(values):
    classes = tuple(TileClass(**{**c, "shares": tuple(c["shares"])}) for c in values["classes"])
    return Design(**{**values, "classes": classes, "node_class": tuple(values["node_class"])})


def _pairs(fitted, name="cycles.jsonl"):
    return [(predicted_cycles(ModelConfig.from_dict(m["config"]), _design(m["design"]), m["context"], m["position"]),
             m["cycles"]) for m in _lines(name) if m["fitted"] == fitted]


def _ranks(values):
    return torch.tensor(values, dtype=torch.float64).argsort().argsort().double()


def test_cycles_of_designs_not_fitted():
    pairs = _pairs(False)
    assert len(pairs) >= 12
    assert median(abs(p / m - 1) for p, m in pairs) <= 0.06
    assert max(abs(p / m - 1) for p, m in pairs) <= 0.20
    ranks = torch.stack([_ranks(column) for column in zip(*pairs, strict=True)])
    assert torch.corrcoef(ranks)[0, 1] >= 0.95


def test_cycles_of_fitted_designs():
    assert median(abs(p / m - 1) for p, m in _pairs(True)) <= 0.04


def test_cycles_of_streams_and_stages():
    pairs = _pairs(False, "streams.jsonl")
    assert len(pairs) >= 12
    assert median(abs(p / m - 1) for p, m in pairs) <= 0.06
    assert max(abs(p / m - 1) for p, m in pairs) <= 0.20
    assert median(abs(p / m - 1) for p, m in _pairs(True, "streams.jsonl")) <= 0.05


def test_gates_of_designs_not_fitted():
    errors = []
    for m in _lines("logic_area.jsonl"):
        if not m["fitted"]:
            tile = TileClass("t", m["fetch"], m["stations"], m["vlen"], m["lanes"])
            logic = gates(knobs_of(Design(2, 2, flit_bits=m["flit"], buffer_flits=m["buf"], multicast=m["mc"],
                                          classes=(tile,))))
            errors.append(abs(float(logic.control) / m["control"] - 1))
    assert len(errors) >= 12 and median(errors) <= 0.05 and max(errors) <= 0.15


def test_gates_of_routers_not_fitted():
    errors = []
    for m in _lines("router_area.jsonl"):
        ports, flit_bits, flits = (torch.tensor(float(m[name])) for name in ("ports", "flit", "buf"))
        predicted = float(router_gates(ports, ports * (ports - 1), flit_bits, flits))
        errors.append((m["fitted"], abs(predicted / m["ge"] - 1)))
    others = [error for fitted, error in errors if not fitted]
    assert len(others) >= 12 and median(others) <= 0.02 and max(others) <= 0.06
    assert max(error for fitted, error in errors if fitted) <= 0.035


def test_gates_of_whole_tiles_and_routers_not_fitted():
    """What `python -m bench.calibration area --pairs 12` measured; routers are the mean of a mesh."""
    errors = {"tile": [], "router": []}
    for m in _lines("tile_area.jsonl"):
        tile = TileClass("t", m["fetch"], m["stations"], m["vlen"], m["lanes"])
        logic = gates(knobs_of(Design(m["width"], m["height"], flit_bits=m["flit"], buffer_flits=m["buf"],
                                      multicast=m["mc"], classes=(tile,))))
        assert not m["fitted"]
        for part, found in errors.items():
            found.append(abs(float(getattr(logic, part)) / m[part] - 1))
    for found in errors.values():
        assert len(found) >= 12 and median(found) <= 0.10 and max(found) <= 0.15


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 4), (2, 1), (2, 2), (3, 5), (8, 8)])
def test_the_mean_router_has_the_ports_of_the_mesh(width, height):
    logic = gates(knobs_of(Design(width, height)))
    ports = [1 + len(sides_of(width, height, x, y)) + ((x, y) == (0, 0)) for x in range(width) for y in range(height)]
    assert float(logic.ports) == pytest.approx(sum(ports) / len(ports))
    one = [router_gates(torch.tensor(p), torch.tensor(p * (p - 1)), torch.tensor(128), torch.tensor(4)) for p in ports]
    assert float(logic.router) == pytest.approx(float(sum(one)) / len(one), rel=1e-6)
