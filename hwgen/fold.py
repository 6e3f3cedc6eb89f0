"""Exact rewriting of float weights: what the integer graph folds in before it rounds anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from hwgen.float_model import FloatModel
from hwgen.integer_graph import norm_exponent
from hwgen.model_config import ModelConfig

_WRITERS = ("o", "down", "o_bias", "down_bias")
"""Weights whose rows are channels of the residual; of the other matrices over it they are the columns."""
_READERS = ("embed", "head", "norm", "attn_norm", "ffn_norm", "q", "k", "v", "gate", "up")


def pair_order(head_dim: int) -> np.ndarray:
    """Where the rows of a head come from: (i, i + d/2) become adjacent, [0, d/2, 1, d/2 + 1, ...]."""
    return np.arange(head_dim).reshape(2, -1).T.ravel()


class _Reordered(Mapping):
    """Weights by name with the channels of the residual in another order, each made when it is read."""

    def __init__(self, tensors: Mapping[str, np.ndarray], order: np.ndarray):
        self._tensors = tensors
        self._order = order

    def __getitem__(self, name: str) -> np.ndarray:
        array, kind = self._tensors[name], name.split(".")[-1]
        if kind in _WRITERS:
            return array[self._order]
        return array[..., self._order] if kind in _READERS else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def reorder(model: FloatModel, order: np.ndarray) -> FloatModel:
    """The same function with the channels of the residual in `order` [hidden]."""
    return replace(model, tensors=_Reordered(model.tensors, order))


def reading_columns(model: FloatModel) -> np.ndarray:
    """Norm of each residual channel's columns in what reads each normalisation, gain included.

    [normalisations, hidden]: attention and feed-forward of every layer, then the head.
    """
    readers = [(f"{i}.{norm}", [f"{i}.{name}" for name in names]) for i in range(model.config.layers)
               for norm, names in (("attn_norm", "qkv"), ("ffn_norm", ("gate", "up")))]
    readers.append(("norm", ["embed" if model.config.tied else "head"]))
    columns = []
    for norm, names in readers:
        squares = sum(np.square(model.tensors[name], dtype=np.float64).sum(0) for name in names)
        columns.append(np.abs(model.tensors[norm]) * np.sqrt(squares))
    return np.array(columns)


def gain_factor(config: ModelConfig) -> np.float32:
    """sqrt(hidden) / 2^j: what the hardware's normalisation leaves out."""
    return np.float32(math.sqrt(config.hidden) / 2.0 ** norm_exponent(config))


def fold_layer(config: ModelConfig, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A layer's weights with gains, query scale and row order folded in, float32.

    Names are q, k, v, o, gate, up, down and their `_bias`; q and k rows are in adjacent-pair order, inputs of q, k, v,
    gate and up are the normalised vector times 2^j / sqrt(hidden).
    """
    order = pair_order(config.head_dim)
    folded = {name: array for name, array in weights.items() if not name.endswith("_norm")}
    factor = gain_factor(config)
    for names, norm in (("qkv", "attn_norm"), (("gate", "up"), "ffn_norm")):
        for name in names:
            folded[name] = weights[name] * (weights[norm] * factor)
    for name, scale in (("q", math.log2(math.e) / math.sqrt(config.head_dim)), ("k", 1.0)):
        for key in (name, f"{name}_bias"):
            if key in folded:
                rows = folded[key].reshape(-1, config.head_dim, *folded[key].shape[1:])[:, order]
                folded[key] = (rows * np.float32(scale)).reshape(folded[key].shape)
    return folded


def group_rows(config: ModelConfig, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rows of q, k and v [rows, ...] in one matrix, group-major: for every KV head its queries, its key, its value."""
    parts = [array.reshape(config.kv_heads, -1, *array.shape[1:]) for array in (q, k, v)]
    return np.concatenate(parts, 1).reshape(-1, *q.shape[1:])
