"""How far an integer graph is from its float model, on text that the float model writes."""

from __future__ import annotations

import numpy as np

from hwgen import float_model
from hwgen.arithmetic.fixed import Q_FRACTION
from hwgen.float_model import FloatModel
from hwgen.integer_graph import IntegerGraph
from hwgen.model_config import ModelConfig
from hwgen.quantize import OnProgress, unwatched
from hwgen.reference import Reference

TOKENS = 20000
"""Compared at most unless more are asked for."""
_WORK = 1 << 38
"""Multiply-adds by default: two minutes of two cores at most, most of them spent on the exact block sums."""
_SEQUENCES = 8
_VALUES = 1 << 25
"""Logits held at a time."""
_TOKENS_AT_A_TIME = 256


def default_tokens(config: ModelConfig) -> int:
    """Tokens that `evaluate` compares unless told: fewer the larger the model, so that its time is bounded."""
    return max(_SEQUENCES * 32, min(TOKENS, _WORK // config.parameters()))


def draw(model: FloatModel, context: int, tokens: int, seed: int,
         on_progress: OnProgress = unwatched) -> np.ndarray:
    """Text of the float model at temperature 1, [sequences, length + 1]: at least `tokens` predictions in all.

    Sequences are as long as the context, but at least eight of them: the error of a mean is known from their means.
    """
    length = max(1, min(context, tokens // _SEQUENCES))
    batch = -(-tokens // length)
    return float_model.sample(model, batch, length + 1, seed=seed,
                              on_step=lambda t: on_progress("drawing text", t, length))


def evaluate(model: FloatModel, graph: IntegerGraph, tokens: int | None = None, seed: int = 0,
             on_progress: OnProgress = unwatched) -> dict[str, float]:
    """Draws at least `tokens` predictions (default: `default_tokens`) from the float model and compares on them.

    `kl`: mean of KL(float || integer) in nats; `top1`: share of positions with the same greedy token; `kl_error`,
    `top1_error`: their standard errors, from the means of whole sequences; `ppl_float`, `ppl_int`: perplexity of the
    drawn tokens; `tokens`: positions compared; `overflow`: whether any sum left 32 bits.
    """
    if tokens is None:
        tokens = default_tokens(model.config)
    # drawing holds the weights in memory, too
    held = model.in_memory()
    text = draw(held, graph.context, tokens, seed, on_progress)
    batch, length = text.shape[0], text.shape[1] - 1
    sums, overflow = [], False
    step = max(1, min(_VALUES // model.config.vocab, _TOKENS_AT_A_TIME) // length)
    for start in range(0, batch, step):
        on_progress("measuring", start, batch)
        rows = text[start : start + step]
        reference = Reference(graph, len(rows))
        wanted, got = float_model.logits(held, rows[:, :-1]), worth(reference.logits(rows[:, :-1]))
        sums.append(compare(wanted, got, rows[:, 1:]))
        overflow = overflow or reference.overflow
    means = np.concatenate(sums, 1) / length
    with np.errstate(over="ignore"):
        perplexities = {"ppl_float": float(np.exp(means[2].mean())), "ppl_int": float(np.exp(means[3].mean()))}
    return {"kl": float(means[0].mean()), "kl_error": standard_error(means[0]), "top1": float(means[1].mean()),
            "top1_error": standard_error(means[1]), **perplexities, "tokens": batch * length, "overflow": overflow}


def compare(wanted: np.ndarray, got: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Sums over the positions of each sequence: [KL, same greedy token, loss of wanted, loss of got] x [sequences].

    `wanted`, `got`: logits [sequences, T, vocab]; `following`: the tokens after [sequences, T].
    """
    same = (wanted.argmax(-1) == got.argmax(-1)).sum(-1)
    wanted, got = _log_softmax(wanted), _log_softmax(got)
    kl = (np.exp(wanted) * (wanted - got)).sum((-2, -1), dtype=np.float64)
    losses = [-np.take_along_axis(log, following[..., None], -1).sum((-2, -1), dtype=np.float64)
              for log in (wanted, got)]
    return np.array([kl, same, *losses])


def standard_error(means: np.ndarray) -> float | None:
    """Of the mean of independent sequences' means; None where one sequence says nothing of it."""
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None


def worth(logits: np.ndarray) -> np.ndarray:
    """What the integer logits stand for, float32."""
    return np.ldexp(logits.astype(np.float32), -Q_FRACTION)


def _log_softmax(values: np.ndarray) -> np.ndarray:
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))
