"""Exact changes of a layer's folded float weights that make its vectors round better.

A query-key pair may turn by any angle and may be scaled against its partner, a value head against the columns of o, the
rows of up against the columns of down: the layer computes the same function, but rounds other numbers.
"""

from __future__ import annotations

import math

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
_ANGLES = np.arange(8) * math.pi / 16
_PHASES = np.arange(16) / 16
_TARGET = 32.0
"""Peak of values and of `up`: far above the Q19.12 grain, far below its limit."""


def pair_transform(q: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and angle [groups, pairs] for the keys (queries: the same angle, 1 / scale).

    From samples of rotated queries [N, groups, heads of a group, pairs, 2] and keys [N, groups, pairs, 2], the query
    scale folded in: minimises the expected square of a score's rounding error, one block of 16 pairs at a time.
    """
    scale, angle = np.ones(k.shape[1:3]), np.zeros(k.shape[1:3])
    # Far beyond any window; False for NaN too
    if not max(np.abs(q).max(initial=0), np.abs(k).max(initial=0)) < _HOPELESS:
        return scale, angle
    q = q[:: -(-q.shape[0] * q.shape[2] // _QUERIES)]
    for group in range(k.shape[1]):
        for start in range(0, k.shape[2], _PAIRS):
            block = slice(start, start + _PAIRS)
            queries = q[:, group, :, block].reshape(-1, *scale[group, block].shape, 2)
            search = _Search(queries, k[:, group, block])
            scale[group, block], angle[group, block] = search.run()
    return scale, angle


class _Search:
    """Coordinate descent over the pairs of one block: q [M, pairs, 2], k [N, pairs, 2] -> scale and angle [pairs].

    The error is E[grain of k]^2 * |q|^2 + weight * E[grain of q]^2 * variance of k, where the grain is the power of two
    below the block's largest magnitude.
    """

    def __init__(self, q: np.ndarray, k: np.ndarray):
        self._q, self._k = q.astype(np.float32), k.astype(np.float32)
        self._q_power = np.square(q, dtype=np.float64).sum(-1).mean(0)
        self._k_power = k.astype(np.float64).var(0).sum(-1)
        peak, size = (_positive(np.sqrt(a)) for a in (np.square(k).sum(-1).max(0), self._q_power))
        start = 0.3 * np.log2(size) - 0.7 * np.log2(peak)
        self._scale = np.clip(start - start.mean(), -8, 8)
        self._angle = np.zeros(len(start))
        pairs = range(len(start))
        self._k_peak = np.concatenate([self._peaks(self._k, p, self._scale[p : p + 1], np.zeros(1)) for p in pairs])
        self._q_peak = np.concatenate([self._peaks(self._q, p, -self._scale[p : p + 1], np.zeros(1)) for p in pairs])

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(_SWEEPS):
            for pair in range(len(self._scale)):
                self._improve(pair)
            phase = self._best(self._k_peak.max(0) * np.exp2(_PHASES)[:, None].astype(np.float32),
                               self._q_peak.max(0) * np.exp2(-_PHASES)[:, None].astype(np.float32),
                               self._scale + _PHASES[:, None])
            self._scale = self._scale + _PHASES[phase]
            self._k_peak *= np.float32(2 ** _PHASES[phase])
            self._q_peak *= np.float32(2 ** -_PHASES[phase])
        return np.exp2(self._scale), self._angle

    def _improve(self, pair: int):
        steps, angles = (a.ravel() for a in np.meshgrid(self._scale[pair] + _STEPS, _ANGLES, indexing="ij"))
        k, q = self._peaks(self._k, pair, steps, angles), self._peaks(self._q, pair, -steps, angles)
        scale = np.repeat(self._scale[None], len(steps), 0)
        scale[:, pair] = steps
        best = self._best(np.maximum(k, np.delete(self._k_peak, pair, 0).max(0, initial=0)),
                          np.maximum(q, np.delete(self._q_peak, pair, 0).max(0, initial=0)), scale)
        self._scale[pair], self._angle[pair] = steps[best], angles[best]
        self._k_peak[pair], self._q_peak[pair] = k[best], q[best]

    def _best(self, k_peak, q_peak, scale) -> int:
        """The candidate of least error: block peaks [candidates, samples], log2 scales [candidates, pairs]."""
        key = _grain(k_peak) * (self._q_power * np.exp2(-2 * scale)).sum(-1)
        query = _grain(q_peak) * (self._k_power * np.exp2(2 * scale)).sum(-1)
        return int(np.argmin(key + _QUERY_WEIGHT * query))

    @staticmethod
    def _peaks(samples, pair: int, scale, angle):
        """Largest magnitude in a pair [candidates, samples]."""
        first, second = samples[:, pair, 0], samples[:, pair, 1]
        cos, sin = (f(angle)[:, None].astype(np.float32) for f in (np.cos, np.sin))
        peak = np.maximum(np.abs(first * cos - second * sin), np.abs(second * cos + first * sin))
        return peak * np.exp2(scale)[:, None].astype(np.float32)


def turn_pairs(config: ModelConfig, folded: dict, scale: np.ndarray, angle: np.ndarray):
    """Applies a `pair_transform` to the rows of q and k (adjacent-pair order) and their biases, in place."""
    repeat = config.heads // config.kv_heads
    cos, sin = np.cos(angle), np.sin(angle)
    for name, factor, copies in (("k", scale, 1), ("q", 1 / scale, repeat)):
        for key in (name, f"{name}_bias"):
            if key in folded:
                rows = folded[key].reshape(config.kv_heads, copies, config.head_dim // 2, 2, -1).astype(np.float64)
                c, s, f = (a[:, None, :, None] for a in (cos, sin, factor))
                even, odd = rows[..., 0, :], rows[..., 1, :]
                turned = np.stack([(even * c - odd * s) * f, (odd * c + even * s) * f], -2)
                folded[key] = turned.reshape(folded[key].shape).astype(np.float32)


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


def centre_up(folded: dict, peak: float) -> float:
    """Scales the rows of up by a power of two against the columns of down, in place; returns the scale."""
    scale = np.float32(_power_towards(_TARGET, np.float64(peak)))
    for key in ("up", "up_bias"):
        if key in folded:
            folded[key] = folded[key] * scale
    folded["down"] = folded["down"] / scale
    return float(scale)


def _power_towards(target: float, peak: np.ndarray) -> np.ndarray:
    """The power of two, 2^-20 to 2^20, that brings `peak` below `target` and above half of it; 1 for a peak of 0."""
    exponent = np.floor(np.log2(target / np.where((peak > 0) & np.isfinite(peak), peak, target)))
    return np.exp2(np.clip(exponent, -20, 20))


def _positive(values: np.ndarray) -> np.ndarray:
    most = values.max(initial=0)
    return np.maximum(values, most * 1e-3) if most > 0 else np.ones_like(values)


def _grain(peak):
    """Mean square of the power of two below each peak [..., samples]."""
    return np.exp2(2.0 * np.frexp(peak)[1]).mean(-1)
