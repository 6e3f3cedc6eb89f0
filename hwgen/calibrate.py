"""What the float model's vectors reach on calibration tokens: the largest magnitude of every channel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel, logits, sample

_TOKENS = 1 << 13
_WORK = 1 << 31
"""Multiply-adds that self-generated text may cost, a bound on how many tokens are drawn from a large model."""


@dataclass
class Statistics:
    """Name of a vector (as `float_model.logits` observes it) -> largest magnitude and mean square of each channel."""

    peak: dict[str, np.ndarray] = field(default_factory=dict)
    power: dict[str, np.ndarray] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def observe(self, name: str, array: np.ndarray):
        """Takes one more part [B, T, channels...]."""
        array = np.abs(array, dtype=np.float32)
        peak = array.max((0, 1))
        power = np.square(array).sum((0, 1), dtype=np.float64)
        self.peak[name] = np.maximum(self.peak.get(name, 0), peak)
        self.power[name] = self.power.get(name, 0) + power
        self.count[name] = self.count.get(name, 0) + array.shape[0] * array.shape[1]

    def most(self, name: str) -> float:
        """Largest magnitude over all channels."""
        return float(np.max(self.peak[name]))

    def rms(self, name: str) -> np.ndarray:
        """Root mean square of each channel."""
        return np.sqrt(self.power[name] / self.count[name])


def calibrate(model: FloatModel, context: int, calibration=None, seed: int = 0) -> Statistics:
    """Runs the float model over calibration tokens: a text, token ids [B, T] or [T], or None for text of its own."""
    statistics = Statistics()
    for sequence in calibration_tokens(model, context, calibration, seed):
        logits(model, sequence[None], statistics.observe)
    return statistics


def calibration_tokens(model: FloatModel, context: int, calibration=None, seed: int = 0) -> list[np.ndarray]:
    """Sequences of at most `context` token ids."""
    if calibration is None:
        size = max(256, min(_TOKENS, _WORK // model.config.parameters()))
        length = min(context, 256)
        # Another stream than evaluation's
        return list(sample(model, max(1, size // length), length, seed=(1 << 32) + seed))
    if isinstance(calibration, str):
        if model.tokenizer is None:
            raise HwgenError("Calibration text needs a tokenizer, and the model has none")
        calibration = model.tokenizer.encode(calibration)
    tokens = np.atleast_2d(np.asarray(calibration))
    if tokens.size == 0:
        raise HwgenError("Calibration must hold at least 1 token, not 0")
    if tokens.min() < 0 or tokens.max() >= model.config.vocab:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise HwgenError(f"Token id must be 0 to {model.config.vocab - 1}, not {wrong}")
    return [row[start : start + context] for row in tokens for start in range(0, tokens.shape[1], context)]
