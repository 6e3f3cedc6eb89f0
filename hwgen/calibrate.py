"""What the float model's vectors are on calibration tokens: the peak of every channel, samples of queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel, logits, sample

_TOKENS = 1 << 13
_SEQUENCES = 8
_SAMPLES = 512
_VALUES = 1 << 26
"""Logits held at a time."""
_WORK = 1 << 37
"""Multiply-adds that self-generated text may cost, a bound on how many tokens are drawn from a large model."""


class Statistics:
    """Of vectors by name, as `float_model.logits` observes them.

    `peak`: name -> largest magnitude of each channel; `rms`: root of its mean square; `samples`: name of queries and
    keys after RoPE -> one position in `stride`, [N, heads, head_dim].
    """

    def __init__(self, stride: int = 1):
        self.peak: dict[str, np.ndarray] = {}
        self._squares: dict[str, np.ndarray] = {}
        self._positions: dict[str, int] = {}
        self._samples: dict[str, list[np.ndarray]] = {}
        self._stride = stride

    def observe(self, name: str, array: np.ndarray):
        """Takes one more part [B, T, channels...]."""
        self.peak[name] = np.maximum(self.peak.get(name, 0), np.abs(array).max((0, 1)))
        self._squares[name] = self._squares.get(name, 0) + np.square(array, dtype=np.float64).sum((0, 1))
        self._positions[name] = self._positions.get(name, 0) + array.shape[0] * array.shape[1]
        if name.endswith((".q", ".k")):
            # Not the first position: BOS has a key like no other.
            part = array[:, min(self._stride // 2, array.shape[1] - 1) :: self._stride]
            self._samples.setdefault(name, []).append(part.reshape(-1, *array.shape[2:]))

    def samples(self, name: str) -> np.ndarray:
        """Sampled vectors of `name`, [N, heads, head_dim]."""
        return np.concatenate(self._samples[name])

    def rms(self, name: str) -> np.ndarray:
        """Root of the mean square of each channel of `name`."""
        return np.sqrt(self._squares[name] / self._positions[name])

    def most(self, name: str) -> float:
        """Largest magnitude over all channels."""
        return float(np.max(self.peak[name]))


def calibrate(model: FloatModel, context: int, calibration=None, seed: int = 0,
              on_step: Callable[[int], None] = lambda position: None) -> Statistics:
    """Runs the float model over calibration tokens: a text, token ids [B, T] or [T], or None for text of its own.

    `on_step` is called for every position of text that is drawn.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # said below in words
        sequences = calibration_tokens(model, context, calibration, seed, on_step)
        statistics = Statistics(-(-sum(map(len, sequences)) // _SAMPLES))
        # weights are read once for many sequences of one length
        for length, alike in groupby(sequences, len):
            rows, step = np.stack(list(alike)), max(1, _VALUES // (length * model.config.vocab))
            for start in range(0, len(rows), step):
                logits(model, rows[start : start + step], statistics.observe)
    broken = [name for name, peak in statistics.peak.items() if not np.isfinite(peak).all()]
    if broken:
        raise HwgenError(f"Model's values must stay finite in float32, but {broken[0]} does not on calibration text")
    return statistics


def calibration_tokens(model: FloatModel, context: int, calibration=None, seed: int = 0,
                       on_step: Callable[[int], None] = lambda position: None) -> list[np.ndarray]:
    """Sequences of at most `context` token ids."""
    if calibration is None:
        size = max(256, min(_TOKENS, _WORK // model.config.parameters()))
        # a step costs the same for many sequences as for one
        length = min(context, 256, size // _SEQUENCES)
        # Another stream than evaluation's
        return list(sample(model, max(1, size // length), length, seed=(1 << 32) + seed, on_step=on_step))
    if isinstance(calibration, str):
        if model.tokenizer is None:
            raise HwgenError("Calibration text needs a tokenizer, and the model has none")
        if not calibration.strip():
            raise HwgenError("Calibration text must hold words, not nothing")
        calibration = model.tokenizer.encode(calibration)
    tokens = np.atleast_2d(np.asarray(calibration))
    if tokens.size == 0:
        raise HwgenError("Calibration must hold at least 1 token, not 0")
    if tokens.min() < 0 or tokens.max() >= model.config.vocab:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise HwgenError(f"Token id must be 0 to {model.config.vocab - 1}, not {wrong}")
    return [row[start : start + context] for row in tokens for start in range(0, tokens.shape[1], context)]
