"""The evaluator on other devices: the same figures on a GPU, and nothing left behind on the CPU."""

from dataclasses import fields

import pytest
import torch

from explore import stages
from explore.evaluate import default_space, evaluate
from explore.scenario import Scenario
from explore.workload import read_workload


@pytest.fixture(scope="module")
def scenario():
    return Scenario(read_workload("llama-3.1-8b", weights="mxfp4"), 3)


@pytest.fixture(scope="module")
def designs():
    return default_space().random(4096, torch.Generator().manual_seed(0))


def _tensors(result):
    for field in fields(result):
        value = getattr(result, field.name)
        for name, tensor in value.items() if isinstance(value, dict) else [("", value)]:
            yield f"{field.name} {name}", tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(designs, scenario):
    ours, theirs = (dict(_tensors(evaluate(designs.to(device), scenario))) for device in ("cpu", "cuda"))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name].cpu(), tensor, rtol=1e-5, atol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_all_is_made_on_the_device_of_the_designs(designs, scenario, monkeypatch):
    """The device `meta` has shapes and no values: an operation with a tensor of the CPU fails there as on a GPU."""
    monkeypatch.setattr(stages, "bands", lambda count, *_: count.new_zeros(len(count), 6))  # looks values up
    assert {tensor.device.type for _, tensor in _tensors(evaluate(designs[:8].to("meta"), scenario))} == {"meta"}
