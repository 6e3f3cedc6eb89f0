"""What each rounding costs: an emulation that is the float model at one end and the integer graph at the other."""

from dataclasses import replace

import numpy as np
import pytest
from random_model import SHAPES, random_model

from hwgen.explain import CHOICES, FORMATS, GROUPS, Emulation, explain
from hwgen.float_model import logits, sample
from hwgen.quantize import prepare, rounded
from hwgen.reference import batch_logits


@pytest.mark.parametrize("weights", ["mxint8", "mxfp4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_emulation_is_the_float_model_without_choices_and_the_graph_with_all(shape, weights):
    model = random_model(shape)
    prepared = prepare(model)
    graph = rounded(prepared, weights=weights, head=weights)
    emulation = Emulation(prepared, graph)
    tokens = sample(model, 4, 60, seed=3)
    wanted = logits(model, tokens)
    integers = np.ldexp(batch_logits(graph, tokens).astype(float), -12)
    np.testing.assert_allclose(emulation.logits(tokens, set()), wanted, atol=1e-4 * wanted.std())
    loss = np.abs(integers - wanted).mean()
    assert np.abs(emulation.logits(tokens, set(CHOICES)) - integers).mean() < 0.7 * loss


@pytest.mark.parametrize("shape", SHAPES)
def test_every_choice_changes_the_answer(shape):
    model = random_model(shape)
    prepared = prepare(model)
    emulation = Emulation(prepared, rounded(prepared))
    tokens = sample(model, 1, 20, seed=0)
    exact = emulation.logits(tokens, set())
    for choice in CHOICES:
        assert not np.array_equal(emulation.logits(tokens, {choice}), exact), choice


def test_a_spoilt_exponent_is_found_and_named():
    model = random_model("odd sizes")
    prepared = prepare(model)
    graph = rounded(prepared)
    spoilt = replace(graph, layers=tuple(replace(layer, h_frac=1) for layer in graph.layers))
    seen = []
    found = explain(model, prepared, spoilt, tokens=320, on_progress=lambda *news: seen.append(news))
    assert found["tokens"] >= 320
    assert {row["choice"] for row in found["rows"]} == {*CHOICES, *GROUPS}
    dearest = next(row for row in found["rows"] if row["choice"] not in GROUPS)
    assert dearest["choice"] == "h"
    assert dearest["cost"] > 5 * dearest["cost_error"] > 0
    assert dearest["meaning"] == "int16 vector, one is worth 2^-1"
    assert found["integers"]["kl"] > 1.5 * found["formats"]["kl"] > 0
    assert abs(found["integers"]["kl"] / found["emulation"]["kl"] - 1) < 0.5
    assert ("measuring formats", 2, len(CHOICES) + len(GROUPS) + 3) in seen
    assert set(FORMATS) < set(CHOICES)
