"""The float32 model: what the integer graph is calibrated and measured against.

Arrays are [batch, position, channels]; heads and their channels are separate axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hwgen.errors import HwgenError
from hwgen.model_config import ModelConfig, layer_shapes
from hwgen.rope import rotate, rotation
from hwgen.tokenizer import Tokenizer

Observe = Callable[[str, np.ndarray], None]

# Float32 values in one temporary: bounds the memory of a long batch whatever its shape.
CHUNK = 1 << 24


class LazyTensors(Mapping):
    """Name -> float32 array, read from the file at each access and checked to be finite."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]], source: str):
        self._readers = dict(readers)
        self._source = source

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._readers[name]()
        # A sum is NaN or infinite if one element is; it spares a mask as large as the tensor.
        with np.errstate(all="ignore"):
            total = array.sum(dtype=np.float64)
        if not np.isfinite(total):
            bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise HwgenError(f"Tensor {name} of {self._source} must be finite, not NaN or infinite in {bad} of "
                             f"{array.size} elements")
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


@dataclass
class FloatModel:
    """A loaded model: its sizes, its weights by canonical name (float32), its tokenizer if it has one.

    `notes`: what a user must know about how the files were read, a sentence each. They are told, and kept nowhere.
    """

    config: ModelConfig
    tensors: Mapping[str, np.ndarray] = field(repr=False)
    tokenizer: Tokenizer | None
    source: str
    notes: tuple[str, ...] = ()

    def in_memory(self) -> FloatModel:
        """The same model with every weight held in memory, for repeated use."""
        return replace(self, tensors={name: self.tensors[name] for name in self.tensors})

    def layer(self, i: int) -> dict[str, np.ndarray]:
        """The weights of layer i, by name without the number."""
        return {name: self.tensors[f"{i}.{name}"] for name in layer_shapes(self.config)}

    def head(self) -> np.ndarray:
        """The output matrix [vocab, hidden]: the embedding where tied."""
        return self.tensors["embed" if self.config.tied else "head"]


def logits(model: FloatModel, tokens: np.ndarray, observe: Observe | None = None) -> np.ndarray:
    """Logits [B, T, vocab] of token ids [B, T], each position seeing itself and what is before it.

    Weights are read layer by layer. `observe(name, array)` is called, possibly for parts of the batch, with
    `{i}.attn_in, {i}.attn_normed, {i}.q_raw, {i}.k_raw, {i}.q, {i}.k, {i}.v, {i}.att, {i}.o, {i}.ffn_in,
    {i}.ffn_normed, {i}.gate, {i}.up, {i}.silu, {i}.h, {i}.down` and `final_in, final_normed, logits`: `_raw` is before
    RoPE, `att` the heads' sums before o, `_normed` without the gain, `o` and `down` what is added to the residual.
    """
    config, tokens = model.config, np.asarray(tokens)
    length = tokens.shape[1]
    x = model.tensors["embed"][tokens]
    turn = rotation(config, np.arange(length))
    parts = _batches(config, *tokens.shape)
    for i in range(config.layers):
        weights = model.layer(i)
        for part in parts:
            x[part] = _layer(config, weights, x[part], turn, lambda k, v: (k, v), _watch(observe, f"{i}."))
    return _head(config, model.tensors["norm"], model.head(), x, _watch(observe, ""))


class FloatDecoder:
    """Step-by-step decoding of `batch` sequences in lockstep, up to `context` positions, with a key-value cache."""

    def __init__(self, model: FloatModel, batch: int, context: int):
        self.config = model.config
        self.batch, self.context, self.position = batch, context, 0
        self._model = model.in_memory()
        self._layers = [self._model.layer(i) for i in range(self.config.layers)]
        shape = (self.config.layers, 2, batch, context, self.config.kv_heads, self.config.head_dim)
        self._cache = np.zeros(shape, np.float32)

    def reset(self):
        """Starts again at position 0."""
        self.position = 0

    def step(self, tokens: np.ndarray, observe: Observe | None = None) -> np.ndarray:
        """Takes token ids [batch], returns logits [batch, vocab]; raises ValueError beyond `context`."""
        if self.position >= self.context:
            raise ValueError(f"Position must be below the context {self.context}, not {self.position}")
        x = self._model.tensors["embed"][np.asarray(tokens)][:, None]
        turn = rotation(self.config, np.array([self.position]))
        for i, weights in enumerate(self._layers):
            x = _layer(self.config, weights, x, turn, self._appender(i), _watch(observe, f"{i}."))
        self.position += 1
        return _head(self.config, self._model.tensors["norm"], self._model.head(), x, _watch(observe, ""))[:, 0]

    def _appender(self, i: int):
        cache, position = self._cache[i], self.position

        def append(k, v):
            cache[0, :, position], cache[1, :, position] = k[:, 0], v[:, 0]
            return cache[0, :, : position + 1], cache[1, :, : position + 1]

        return append


def sample(model: FloatModel, batch: int, length: int, *, seed: int, temperature: float = 1.0,
           on_step: Callable[[int], None] = lambda position: None) -> np.ndarray:
    """Token ids [batch, length] drawn from the model; each row starts with BOS, or a random id if there is none.

    `on_step` is called before every position after the first.
    """
    random = np.random.default_rng(seed)
    tokens = np.empty((batch, length), np.int64)
    bos = model.config.bos
    tokens[:, 0] = random.integers(model.config.vocab, size=batch) if bos is None else bos
    decoder = FloatDecoder(model, batch, length)
    for t in range(length - 1):
        on_step(t)
        # Gumbel's trick: the largest of logits + noise is a draw from their softmax.
        noise = random.gumbel(size=(batch, model.config.vocab))
        tokens[:, t + 1] = np.argmax(decoder.step(tokens[:, t]) / temperature + noise, axis=1)
    return tokens


def _watch(observe: Observe | None, prefix: str) -> Observe:
    if observe is None:
        return lambda name, array: None
    return lambda name, array: observe(prefix + name, array)


def _batches(config: ModelConfig, batch: int, length: int) -> list[slice]:
    widest = max(config.ffn, config.heads * config.head_dim, config.hidden)
    size = max(1, CHUNK // max(1, length * widest))
    return [slice(start, start + size) for start in range(0, batch, size)]


def _layer(config, weights, x, turn, append, see: Observe) -> np.ndarray:
    """One layer: residual x [b, T, hidden] to the next; `append(k, v)` gives all keys and values to attend to."""
    x = x + _attention(config, weights, x, turn, append, see)
    return x + _feed_forward(config, weights, x, see)


def _attention(config, weights, x, turn, append, see: Observe) -> np.ndarray:
    see("attn_in", x)
    normed = _normalise(x, config.norm_eps)
    see("attn_normed", normed)
    normed = normed * weights["attn_norm"]
    heads = (*x.shape[:2], -1, config.head_dim)
    q, k, v = (_linear(weights, name, normed).reshape(heads) for name in "qkv")
    see("q_raw", q)
    see("k_raw", k)
    q, k = rotate(q, *turn), rotate(k, *turn)
    for name, array in zip("qkv", (q, k, v), strict=True):
        see(name, array)
    att = _attend(q, *append(k, v)).reshape(*x.shape[:2], -1)
    see("att", att)
    out = _linear(weights, "o", att)
    see("o", out)
    return out


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Softmax attention of the last positions: q [b, T, heads, d] over k, v [b, S, kv_heads, d], S >= T."""
    batch, length, heads, head_dim = q.shape
    span, kv_heads = k.shape[1:3]
    q = q.reshape(batch, length, kv_heads, heads // kv_heads, head_dim).transpose(0, 2, 3, 1, 4)
    k, v = (array.transpose(0, 2, 1, 3)[:, :, None] for array in (k, v))
    rows = max(1, CHUNK // (batch * heads * span))
    out = [_attend_rows(q[..., start : start + rows, :], k, v, span - length + start)
           for start in range(0, length, rows)]
    return np.concatenate(out, axis=-2).transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, head_dim)


def _attend_rows(q, k, v, first: int) -> np.ndarray:
    scores = q @ k.swapaxes(-1, -2) * np.float32(1 / math.sqrt(q.shape[-1]))
    seen = np.arange(k.shape[-2]) <= np.arange(first, first + q.shape[-2])[:, None]
    scores = np.where(seen, scores, np.float32(-np.inf))
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weight @ v / weight.sum(axis=-1, keepdims=True)


def _feed_forward(config, weights, x, see: Observe) -> np.ndarray:
    see("ffn_in", x)
    normed = _normalise(x, config.norm_eps)
    see("ffn_normed", normed)
    normed = normed * weights["ffn_norm"]
    gate, up = _linear(weights, "gate", normed), _linear(weights, "up", normed)
    see("gate", gate)
    see("up", up)
    active = silu(gate)
    see("silu", active)
    see("h", active * up)
    out = _linear(weights, "down", active * up)
    see("down", out)
    return out


def _head(config, gain, head, x, see: Observe) -> np.ndarray:
    see("final_in", x)
    normed = _normalise(x, config.norm_eps)
    see("final_normed", normed)
    out = (normed * gain) @ head.T
    see("logits", out)
    return out


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x); exp overflows to infinity for very negative x, which gives the right 0."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def _normalise(x: np.ndarray, eps: float) -> np.ndarray:
    # the square overflows to infinity for a very large x, which gives 0, as in every other float32 implementation
    with np.errstate(over="ignore"):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))


def _linear(weights, name: str, x: np.ndarray) -> np.ndarray:
    out = x @ weights[name].T
    bias = weights.get(f"{name}_bias")
    return out if bias is None else out + bias
