"""Rotary position embedding: frequencies, and the rotation in Hugging Face's half-split order."""

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


def rotation(config: ModelConfig, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine for each position, float32 [len(positions), head_dim / 2]."""
    angle = np.asarray(positions, np.float64)[:, None] * inverse_frequencies(config)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotates x [..., T, n, head_dim] by cos and sin [T, head_dim / 2]."""
    low, high = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)
