"""The evaluator against what was measured: cycles in RTL simulation and gates by Yosys, on designs not fitted to.

tests/measured holds figures of emitted chips; `python -m bench.calibration` measures others.
"""

import json
from pathlib import Path
from statistics import median

import torch

from bench.calibration import predicted_cycles
from explore.logic_area import gates
from explore.space import knobs_of
from hwgen.design import Design, TileClass
from hwgen.model_config import ModelConfig

MEASURED = Path(__file__).parent / "measured"


def _lines(name):
    return [json.loads(line) for line in (MEASURED / name).read_text().splitlines()]


def _design(values):
    classes = tuple(TileClass(**{**c, "shares": tuple(c["shares"])}) for c in values["classes"])
    return Design(**{**values, "classes": classes, "node_class": tuple(values["node_class"])})


def _pairs(fitted):
    return [(predicted_cycles(ModelConfig.from_dict(m["config"]), _design(m["design"]), m["context"], m["position"]),
             m["cycles"]) for m in _lines("cycles.jsonl") if m["fitted"] == fitted]


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


def test_gates_of_designs_not_fitted():
    errors = {"router": [], "control": []}
    for m in _lines("logic_area.jsonl"):
        if not m["fitted"]:
            tile = TileClass("t", m["fetch"], m["stations"], m["vlen"], m["lanes"])
            logic = gates(knobs_of(Design(2, 2, flit_bits=m["flit"], buffer_flits=m["buf"], multicast=m["mc"],
                                          classes=(tile,))))
            for name, values in errors.items():
                values.append(abs(float(getattr(logic, name)) / m[name] - 1))
    assert all(len(values) >= 12 and median(values) <= 0.05 and max(values) <= 0.15 for values in errors.values())
