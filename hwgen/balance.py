"""Exact changes of a layer's folded float weights that make its vectors round better.

A rotary pair of keys may be scaled against that of its queries, a value head against the columns of o, the rows of up
against the columns of down, and the channels of the residual may stand in any order: the model computes the same
function, but rounds other numbers. (Turning a pair is exact too and halves the error of keys, but mixes rows of unlike
size, and rounding those loses as much.)
"""

from __future__ import annotations

import numpy as np

from hwgen.arithmetic.mx import BLOCK
from hwgen.model_config import ModelConfig

_PAIRS = BLOCK // 2
_QUERY_WEIGHT = 0.3
"""A rounding error of a query moves the scores of all positions alike where keys are alike: it counts less."""
_SWEEPS = 2
_HOPELESS = 1e15
_QUERIES = 512
_STEPS = np.arange(-8, 9) / 8
_PHASES = np.arange(16) / 16
_LEAST = 1e-6
_TARGET = 32.0
"""Peak of values and of `up`: far above the Q19.12 grain, far below its limit."""


def pair_scales(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Scale [groups, pairs] for the keys; the queries take its inverse.

    From samples of rotated queries [N, groups, heads of a group, pairs, 2] and keys [N, groups, pairs, 2], the query
    scale folded in: minimises the expected square of a score's rounding error, one block of 16 pairs at a time.
    """
    scale = np.ones(k.shape[1:3])
    # Far beyond any window; False for NaN too
    if not max(np.abs(q).max(initial=0), np.abs(k).max(initial=0)) < _HOPELESS:
        return scale
    q = q[:: -(-q.shape[0] * q.shape[2] // _QUERIES)]
    for group in range(k.shape[1]):
        for start in range(0, k.shape[2], _PAIRS):
            block = slice(start, start + _PAIRS)
            queries = q[:, group, :, block]
            scale[group, block] = _block_scales(queries.reshape(-1, *queries.shape[2:]), k[:, group, block])
    return scale


def _block_scales(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Coordinate descent over the pairs of one block: q [M, pairs, 2], k [N, pairs, 2] -> scale [pairs].

    The error is E[grain of k]^2 * |q|^2 + weight * E[grain of q]^2 * variance of k, where the grain is the power of two
    below the block's largest magnitude.
    """
    q, k = q.astype(np.float64), k.astype(np.float64)
    q_power, k_power = np.square(q).sum(-1).mean(0), k.var(0).sum(-1)
    q_peak, k_peak = np.abs(q).max(-1), np.abs(k).max(-1)
    log = 0.3 * np.log2(_positive(np.sqrt(q_power))) - 0.7 * np.log2(_positive(k_peak.max(0)))
    log = np.clip(log - log.mean(), -8, 8)

    def best(candidates):
        """The row of least error of log2 scales [candidates, pairs]."""
        scale = np.exp2(candidates)[:, None]
        keys = _grain((k_peak * scale).max(-1)) * (q_power / scale[:, 0] ** 2).sum(-1)
        queries = _grain((q_peak / scale).max(-1)) * (k_power * scale[:, 0] ** 2).sum(-1)
        return candidates[np.argmin(keys + _QUERY_WEIGHT * queries)]

    for _ in range(_SWEEPS):
        for pair in range(len(log)):
            log = best(log + _STEPS[:, None] * np.eye(len(log))[pair])
        log = best(log + _PHASES[:, None])
    return np.exp2(log)


def scale_pairs(config: ModelConfig, folded: dict, scale: np.ndarray):
    """Applies `pair_scales` to the rows of q and k (adjacent-pair order) and their biases, in place."""
    repeat = config.heads // config.kv_heads
    for name, factor, copies in (("k", scale, 1), ("q", 1 / scale, repeat)):
        rows = np.repeat(np.repeat(factor, 2, 1), copies, 0).ravel().astype(np.float32)
        for key in (name, f"{name}_bias"):
            if key in folded:
                folded[key] = (folded[key].T * rows).T


def centre_values(config: ModelConfig, folded: dict, peak: np.ndarray, context: int) -> np.ndarray:
    """Scales value heads by powers of two against the columns of o, in place; returns the scales [kv_heads].

    `peak` [kv_heads]: largest magnitude of each value head. A sum over `context` positions keeps fourfold room.
    """
    scale = _power_towards(min(_TARGET, 2.0**17 / context), peak)
    rows = np.repeat(scale, config.head_dim).astype(np.float32)
    for key in ("v", "v_bias"):
        if key in folded:
            folded[key] = (folded[key].T * rows).T
    columns = np.repeat(scale, config.head_dim * config.heads // config.kv_heads)
    folded["o"] = folded["o"] / columns.astype(np.float32)
    return scale


def scale_up(folded: dict, up: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Scales the rows of up against the columns of down, in place; returns the scale of each channel [ffn].

    `up` [ffn]: largest magnitude of each channel; `h` [ffn]: root mean square of each channel of silu(gate) * up. A
    block of h rounds to the grain of its largest channel, and so does a block of down: the scale makes a channel as
    large in the one, beside its fellows, as in the other. Without it a single channel may cost all others their bits.
    """
    columns = np.linalg.norm(folded["down"].astype(np.float64), axis=0)
    log = (np.log2(_positive(columns, _LEAST)) - np.log2(_positive(h.astype(np.float64), _LEAST))) / 2
    even = np.exp2(np.clip(log - np.median(log), -20, 20))
    scale = (even * _power_towards(_TARGET, (up * even).max())).astype(np.float32)
    for key in ("up", "up_bias"):
        if key in folded:
            folded[key] = (folded[key].T * scale).T
    folded["down"] = folded["down"] / scale
    return scale


def channel_order(columns: np.ndarray) -> np.ndarray:
    """The channels of the residual, in falling order of what reads them.

    `columns` [matrices, hidden]: norm of each channel's column in every matrix that reads the normalised residual. In
    most models the smallest columns belong to the few channels that are much larger than all others: they come to lie
    in one block, together with channels that hardly matter, and no longer spoil the grain of many.
    """
    return np.argsort(-np.log2(np.maximum(columns, np.finfo(np.float32).tiny)).mean(0), kind="stable")


def _power_towards(target: float, peak: np.ndarray) -> np.ndarray:
    """The power of two, 2^-20 to 2^20, that brings `peak` below `target` and above half of it; 1 for a peak of 0."""
    peak = np.where((peak > 0) & np.isfinite(peak), peak, target)
    # what is this small meets the limit, and its quotient could leave float32
    exponent = np.floor(np.log2(target / np.maximum(peak, target * 2.0**-40)))
    return np.exp2(np.clip(exponent, -20, 20))


def _positive(values: np.ndarray, least: float = 1e-3) -> np.ndarray:
    """`values`, none below `least` times the largest; ones where there is none."""
    most = values.max(initial=0)
    return np.maximum(values, most * least) if most > 0 else np.ones_like(values)


def _grain(peak):
    """Mean square of the power of two below each peak [..., samples]."""
    return np.exp2(2.0 * np.frexp(peak)[1]).mean(-1)
