"""Rotary position embedding: frequencies, what stretches them, and the rotation in Hugging Face's half-split order."""

import math

import numpy as np

from hwgen.model_config import ModelConfig


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each channel pair (i, i + head_dim/2), float64 [head_dim / 2]."""
    exponent = np.arange(0, config.head_dim, 2) / config.head_dim
    inverse = config.rope_theta ** -exponent
    if config.rope_factors is not None:
        return inverse / np.asarray(config.rope_factors, np.float64)
    scaling = config.rope_scaling
    if scaling is None:
        return inverse
    turns = scaling.original_context * inverse / (2 * math.pi)
    keep = np.clip((turns - scaling.low_freq) / (scaling.high_freq - scaling.low_freq), 0, 1)
    return inverse * (keep + (1 - keep) / scaling.factor)


def cos_sin(config: ModelConfig, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine for each position, times the attention factor: float64 [len(positions), head_dim / 2]."""
    angle = np.asarray(positions, np.float64)[:, None] * inverse_frequencies(config)
    return np.cos(angle) * config.rope_attention, np.sin(angle) * config.rope_attention


def rotation(config: ModelConfig, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in float32."""
    cos, sin = cos_sin(config, positions)
    return cos.astype(np.float32), sin.astype(np.float32)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotates x [..., T, n, head_dim] by cos and sin [T, head_dim / 2]."""
    low, high = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def yarn_divisors(theta: float, head_dim: int, factor: float, original: float, fast: float, slow: float,
                  *, whole: bool = True) -> tuple[float, ...]:
    """YaRN as one divisor per frequency: 1 for those that turn more than `fast` times in the `original` context,
    `factor` for those below `slow`, a ramp between. `whole`: the ramp begins and ends at whole pairs. theta > 1.
    """
    def pair(turns: float) -> float:
        """The pair, a fraction included, that turns so often."""
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(fast), pair(slow)
    if whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    # a ramp of no length is a step
    length = last - first or 0.001
    stretched = np.clip((np.arange(head_dim // 2) - first) / length, 0, 1)
    return tuple((1 / (1 - stretched + stretched / factor)).tolist())


def yarn_attention(factor: float, scale: float | None = None, scale_all: float | None = None) -> float:
    """YaRN's attention factor, which multiplies cosines and sines, where a model states none."""
    def spread(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    return spread(scale) / spread(scale_all) if scale and scale_all else spread(1.0)


def longrope_attention(factor: float, original: float) -> float:
    """LongRoPE's attention factor where a model states none; `original` > 1."""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
