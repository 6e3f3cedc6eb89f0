"""What each rounding of an integer graph costs, by taking one at a time back to float on the same text.

The graph is emulated in float32: the same rewritten weights, with every choice of a format switched on or off. With
none it is the float model, with all it is the integer graph but for the grain of single block sums, which the emulation
rounds once a product; how far the two are from each other is part of the answer.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hwgen import float_model
from hwgen.arithmetic import tables, vector
from hwgen.arithmetic.fixed import Q_FRACTION
from hwgen.arithmetic.mx import BLOCK, ELEMENT_FRACTION, Mx, blocked
from hwgen.evaluate import compare, draw, standard_error, worth
from hwgen.float_model import FloatModel
from hwgen.fold import gain_factor
from hwgen.integer_graph import IntegerGraph, LayerGraph, matrix_shape
from hwgen.model_config import ROPE_FRACTION
from hwgen.quantize import OnProgress, Prepared, unwatched
from hwgen.reference import Reference
from hwgen.rope import rotation

TOKENS = 1280
"""Compared, all choices on the same ones."""

FORMATS = {
    "weights": "matrices of the layers, embedding and head in blocks of 32",
    "operands": "vectors that matrices multiply, in MXINT8",
    "keys": "keys of the cache, in MXINT8",
    "values": "values of the cache, in MXINT8",
    "queries": "queries, in MXINT8",
    "attention weights": "softmax numerators times the scales of values, in MXINT8",
}
"""What the formats alone cost: all that is stored or multiplied in blocks."""
VECTORS = {
    "attention norm": "attn_norm_frac", "q": "q_frac", "k": "k_frac", "attention output": "att_frac",
    "feed-forward norm": "ffn_norm_frac", "silu": "silu_frac", "h": "h_frac", "final norm": "final_norm_frac",
}
"""int16 vectors with an exponent from calibration: class -> its field in the graph."""
REST = {
    "sums": "products and residual on the grid of Q19.12",
    "exp2": "softmax numerators from a table, Q0.15",
    "sigmoid": "sigmoid from a table",
    "reciprocals": "1/sqrt of the norms and 1/sum of softmax from tables",
    "rotation": "cosine and sine in Q1.14",
}
TABLES = ("exp2", "sigmoid", "reciprocals")
CHOICES = (*FORMATS, *VECTORS, *REST)
GROUPS = {"KV cache": ("keys", "values"), "all int16 vectors": tuple(VECTORS), "all tables": TABLES}
"""Choices that are taken back together, too."""
_ONE = np.float32(1)
_ELEMENTS = np.float32(1 << ELEMENT_FRACTION)
_GRID = np.float32(1 << Q_FRACTION)


def explain(model: FloatModel, prepared: Prepared, graph: IntegerGraph, tokens: int = TOKENS, seed: int = 0,
            on_progress: OnProgress = unwatched) -> dict:
    """Costs of the choices in `graph`, which was made of `prepared`, which was made of `model`.

    `rows` of CHOICES and GROUPS: `choice`, `meaning`, and over the same drawn `tokens` `kl` and `top1` with it alone in
    float, `cost` = KL of all choices - `kl`, `cost_error` its standard error over whole sequences, dearest first.
    Besides: `integers` (the graph itself), `emulation` (all choices), `formats` (FORMATS alone, all else float32), each
    with kl, kl_error and top1; `tokens`.
    """
    held = model.in_memory()
    text = draw(held, graph.context, tokens, seed, on_progress)
    emulation = Emulation(prepared, graph)
    inputs, following = text[:, :-1], text[:, 1:]
    wanted = float_model.logits(held, inputs)
    every = set(CHOICES)
    parts = {choice: (choice,) for choice in CHOICES} | GROUPS
    runs = {"emulation": every, "formats": set(FORMATS)}
    runs |= {name: every.difference(part) for name, part in parts.items()}
    total = len(runs) + 1
    found = {}
    on_progress("measuring the integers", 0, total)
    reference = worth(Reference(graph, len(inputs)).logits(inputs))
    found["integers"] = compare(wanted, reference, following) / inputs.shape[1]
    for n, (name, choices) in enumerate(runs.items(), 1):
        on_progress(f"measuring {name}", n, total)
        found[name] = compare(wanted, emulation.logits(inputs, choices), following) / inputs.shape[1]
    rows = [_row(name, found["emulation"], found[name], graph) for name in parts]
    return {"rows": sorted(rows, key=lambda row: -row["cost"]), "tokens": int(inputs.size)} | {
        name: {"kl": float(found[name][0].mean()), "kl_error": standard_error(found[name][0]),
               "top1": float(found[name][1].mean())} for name in ("integers", "emulation", "formats")}


def _row(choice: str, every: np.ndarray, without: np.ndarray, graph: IntegerGraph) -> dict:
    cost = every[0] - without[0]
    return {"choice": choice, "meaning": _meaning(choice, graph), "kl": float(without[0].mean()),
            "top1": float(without[1].mean()), "cost": float(cost.mean()), "cost_error": standard_error(cost)}


def _meaning(choice: str, graph: IntegerGraph) -> str:
    if choice in GROUPS:
        return ", ".join(GROUPS[choice])
    if choice not in VECTORS:
        return (FORMATS | REST)[choice]
    name = VECTORS[choice]
    fracs = [graph.final_norm_frac] if choice == "final norm" else [getattr(layer, name) for layer in graph.layers]
    low, high = min(fracs), max(fracs)
    grain = f"2^{-low}" if low == high else f"2^{-high} to 2^{-low}"
    return f"int16 vector, one is worth {grain}"


class Emulation:
    """A graph in float32 with any set of CHOICES rounded as the graph rounds, and the others not at all."""

    def __init__(self, prepared: Prepared, graph: IntegerGraph):
        self.graph = graph
        self.config = graph.config
        self._model = prepared.model
        self._exact = [prepared.layer(i)[0] for i in range(self.config.layers)]
        self._stored = [{name: _values(getattr(layer, name)) for name in ("qkv", "o", "gate", "up", "down")}
                        for layer in graph.layers]

    @cached_property
    def _embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact and stored."""
        return self._model.tensors["embed"], _values(self.graph.embed)[:, : self.config.hidden]

    @cached_property
    def _heads(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact and stored, with the last gain in both where it is no vector of its own."""
        if self.graph.head is None:
            return self._embeddings
        gain = self._model.tensors["norm"] * gain_factor(self.config)
        return self._model.tensors["head"] * gain, _values(self.graph.head)[:, : self.config.hidden]

    def logits(self, tokens: np.ndarray, choices: set[str]) -> np.ndarray:
        """Logits float32 [B, T, vocab] of token ids [B, T]."""
        x = self._sums(self._embeddings["weights" in choices][tokens], choices)
        turn = self._turn(tokens.shape[1], choices)
        for i, layer in enumerate(self.graph.layers):
            x = x + self._attention(i, layer, x, turn, choices)
            x = x + self._feed_forward(i, layer, x, choices)
        return self._output(x, choices)

    def _attention(self, i: int, layer: LayerGraph, x, turn, choices):
        config, (batch, length) = self.config, x.shape[:2]
        y = self._norm(x, layer.attn_norm_frac, "attention norm", choices)
        rows = self._product(i, "qkv", y, choices).reshape(batch, length, config.kv_heads, -1, config.head_dim)
        q, k, v = _rotate(rows[..., :-2, :], turn), _rotate(rows[..., -2:-1, :], turn)[..., 0, :], rows[..., -1, :]
        q, k = _int16(q, layer.q_frac, "q" in choices), _int16(k, layer.k_frac, "k" in choices)
        q = _mx(q) if "queries" in choices else q
        k = _mx(k) if "keys" in choices else k
        heads = self._attend(q, k, v, choices)
        heads = _int16(heads, layer.att_frac, "attention output" in choices)
        return self._product(i, "o", heads, choices)

    def _attend(self, q, k, v, choices):
        """[B, T, heads * head_dim] of q [B, T, groups, heads of a group, d], k and v [B, T, groups, d]."""
        batch, length, groups, repeat, dim = q.shape
        q, (k, v) = q.transpose(0, 2, 3, 1, 4), (array.transpose(0, 2, 1, 3)[:, :, None] for array in (k, v))
        scores = self._sums(q @ k.swapaxes(-1, -2), choices)
        scores = np.where(np.tri(length, dtype=bool), scores, np.float32(-np.inf))
        distance = scores.max(-1, keepdims=True) - scores
        p = _exp2(distance) if "exp2" in choices else np.exp2(-distance)
        out = np.empty((batch, groups, repeat, length, dim), np.float32)
        for start in range(0, dim, BLOCK):
            part = v[..., start : start + BLOCK]
            # a position's values share a scale, which goes with p
            scale = _block_scale(part)[..., 0]
            elements = _element(part, scale[..., None]) if "values" in choices else part / _nonzero(scale)[..., None]
            weights = p * scale[..., None, :]
            out[..., start : start + BLOCK] = (_mx(weights) if "attention weights" in choices else weights) @ elements
        share = _reciprocal(p.sum(-1)) if "reciprocals" in choices else _ONE / p.sum(-1)
        out = self._sums(out, choices) * share[..., None]
        return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, -1)

    def _feed_forward(self, i: int, layer: LayerGraph, x, choices):
        y = self._norm(x, layer.ffn_norm_frac, "feed-forward norm", choices)
        gate, up = self._product(i, "gate", y, choices), self._product(i, "up", y, choices)
        if "sigmoid" in choices:
            active = gate * np.ldexp(tables.sigmoid(_grid(gate)).astype(np.float32), -16)
        else:
            active = float_model.silu(gate)
        active = _int16(active, layer.silu_frac, "silu" in choices)
        return self._product(i, "down", _int16(up * active, layer.h_frac, "h" in choices), choices)

    def _output(self, x, choices):
        graph = self.graph
        rounds = "final norm" in choices
        y = self._norm(x, graph.final_norm_frac, "final norm", choices)
        if graph.final_gain is not None and rounds:
            gain = np.ldexp(graph.final_gain.astype(np.float32), -graph.final_gain_frac)
            y = _int16(y * gain, graph.final_frac, rounds)
        elif graph.final_gain is not None:
            y = y * (self._model.tensors["norm"] * gain_factor(self.config))
        y = _mx(y) if "operands" in choices else y
        return self._sums(y @ self._heads["weights" in choices].T, choices)

    def _norm(self, x, frac: int, name: str, choices):
        j = self.graph.norm_exponent
        if "reciprocals" in choices:
            fixed = _grid(x)
            mantissa, exponent = vector.norm_register(fixed, vector.norm_shift(fixed), self.graph.norm_epsilon)
            rate = np.ldexp(mantissa.astype(np.float64), Q_FRACTION + j - exponent)
        else:
            square = np.square(x, dtype=np.float64).sum(-1) + self.config.norm_eps * self.config.hidden
            rate = np.exp2(float(j)) / np.sqrt(square)
        return _int16(x * rate[..., None].astype(np.float32), frac, name in choices)

    def _product(self, i: int, name: str, x, choices):
        exact = self._exact[i]
        columns = matrix_shape(self.config, name)[1]
        stored = self._stored[i][name] if "weights" in choices else None
        out = (_mx(x) if "operands" in choices else x) @ (exact[name] if stored is None else stored[:, :columns]).T
        if (bias := exact.get(f"{name}_bias")) is not None:
            # of a bias block, whose operand is [1, 1/64, 0...]
            at = -(-columns // BLOCK) * BLOCK
            out = out + (bias if stored is None else stored[:, at] + np.ldexp(stored[:, at + 1], -ELEMENT_FRACTION))
        return self._sums(out, choices)

    def _sums(self, values, choices):
        return np.floor(values * _GRID + np.float32(0.5)) / _GRID if "sums" in choices else values

    def _turn(self, length: int, choices):
        """Cosine and sine [T, 1, 1, pairs]."""
        if "rotation" in choices:
            pairs = np.ldexp(self.graph.rope[:length].astype(np.float32), -ROPE_FRACTION)
            return tuple(pairs[:, None, None, part::2] for part in (0, 1))
        return tuple(part[:, None, None] for part in rotation(self.config, np.arange(length)))


def _values(tensor: Mx) -> np.ndarray:
    """All columns of a matrix, padding and bias block included, float32."""
    return Mx(tensor.elements, tensor.scales, tensor.blocks * BLOCK).to_float().astype(np.float32)


def _rotate(x, turn):
    """Adjacent pairs of x [B, T, groups, n, head_dim] turned."""
    cos, sin = turn
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, odd * cos + even * sin], -1).reshape(x.shape)


def _grid(x) -> np.ndarray:
    """x in units of Q19.12, rounded half up."""
    return np.floor(x.astype(np.float64) * (1 << Q_FRACTION) + 0.5).astype(np.int64)


def _int16(x, frac: int, rounds: bool):
    if not rounds:
        return x
    # powers of two by multiplication, which is much faster than ldexp
    units = np.floor(x * np.float32(2.0**frac) + np.float32(0.5))
    return np.clip(units, -(1 << 15), (1 << 15) - 1) * np.float32(2.0**-frac)


def _block_scale(blocks):
    """Power of two at or below the largest magnitude of each block [..., n] -> [..., 1]; 0 for a block of zeros."""
    most = np.abs(blocks).max(-1, keepdims=True)
    return np.where(most > 0, np.ldexp(_ONE, np.frexp(most)[1] - 1), np.float32(0))


def _nonzero(scale):
    return np.where(scale > 0, scale, _ONE)


def _element(blocks, scale):
    """MXINT8 elements, in units of their scale."""
    units = np.rint(blocks / _nonzero(scale) * _ELEMENTS)
    return np.clip(units, -127, 127) / _ELEMENTS


def _mx(x):
    """MXINT8 of the last axis, in float32: the rule of `quantize_float`, for values that are no longer integers."""
    blocks = blocked(x)
    scale = _block_scale(blocks)
    return (_element(blocks, scale) * scale).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


def _exp2(distance):
    far = np.float32(1 << 10)
    return np.ldexp(tables.exp2_negative(_grid(np.minimum(distance, far))).astype(np.float32), -15)


def _reciprocal(total):
    """1 / total of softmax numerators, from the table."""
    mantissa, exponent = tables.reciprocal(np.rint(np.ldexp(total.astype(np.float64), 15)).astype(np.int64))
    return np.ldexp(mantissa.astype(np.float64), 15 - exponent).astype(np.float32)
