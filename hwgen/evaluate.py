"""How far an integer graph is from its float model, on text that the float model writes."""

from __future__ import annotations

import numpy as np

from hwgen import float_model
from hwgen.arithmetic.fixed import Q_FRACTION
from hwgen.float_model import FloatModel
from hwgen.integer_graph import IntegerGraph
from hwgen.reference import Reference

_VALUES = 1 << 25
"""Logits held at a time."""


@np.errstate(over="ignore", invalid="ignore")  # figures of a model that leaves float32 are no numbers
def evaluate(model: FloatModel, graph: IntegerGraph, tokens: int = 20000, seed: int = 0) -> dict[str, float]:
    """Draws at least `tokens` predictions at temperature 1 from the float model and compares on them.

    `kl`: mean of KL(float || integer) in nats; `top1`: share of positions with the same greedy token; `ppl_float`,
    `ppl_int`: perplexity of the drawn tokens; `tokens`: positions compared; `overflow`: whether any sum left 32 bits.
    """
    length = graph.context
    batch = -(-tokens // length)
    text = float_model.sample(model, batch, length + 1, seed=seed)
    held = model.in_memory() if model.config.parameters() < _VALUES else model
    sums, overflow = np.zeros(4), False
    step = max(1, _VALUES // (model.config.vocab * length))
    for start in range(0, batch, step):
        rows = text[start : start + step]
        reference = Reference(graph, len(rows))
        sums += _compare(float_model.logits(held, rows[:, :-1]), reference.logits(rows[:, :-1]), rows[:, 1:])
        overflow = overflow or reference.overflow
    kl, same, loss_float, loss_int = sums / (batch * length)
    with np.errstate(over="ignore"):
        perplexities = {"ppl_float": float(np.exp(loss_float)), "ppl_int": float(np.exp(loss_int))}
    return {"kl": float(kl), "top1": float(same), **perplexities, "tokens": batch * length, "overflow": overflow}


def _compare(wanted: np.ndarray, got: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Sums over positions of [KL, same greedy token, loss of float, loss of integer]."""
    same = (wanted.argmax(-1) == got.argmax(-1)).sum()
    wanted, got = _log_softmax(wanted), _log_softmax(np.ldexp(got.astype(np.float32), -Q_FRACTION))
    kl = (np.exp(wanted) * (wanted - got)).sum(dtype=np.float64)
    losses = [-np.take_along_axis(log, following[..., None], -1).sum(dtype=np.float64) for log in (wanted, got)]
    return np.array([kl, same, *losses])


def _log_softmax(values: np.ndarray) -> np.ndarray:
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))
