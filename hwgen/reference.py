"""The integer reference: what every chip of a graph must answer, bit for bit.

One path serves single steps and whole batches: arrays are [batch, position, ...], and a cache holds keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hwgen.arithmetic import tables, vector
from hwgen.arithmetic.fast import Operand, product
from hwgen.arithmetic.fixed import Q_FRACTION
from hwgen.arithmetic.mx import BLOCK, SCALE_BIAS, Mx, quantize_int, quantize_weighted, shift_block
from hwgen.errors import HwgenError
from hwgen.integer_graph import MATRICES, IntegerGraph, LayerGraph
from hwgen.model_config import end_ids

_CHUNK = 1 << 22
_BIAS_ELEMENTS = np.array([64, 1] + [0] * (BLOCK - 2), np.int8)
_FAR = 17 << 12
_EXP2 = tables.exp2_negative(np.arange(_FAR + 1)).astype(np.int32)
"""Every numerator by distance from the maximum; 0 from _FAR on."""
Ends = int | Iterable[int] | None
"""Ids that end a run: one, several, or none."""


class Reference:
    """Decodes sequences in lockstep. `overflow` is sticky: set once any sum or residual left 32 bits."""

    def __init__(self, graph: IntegerGraph, batch: int = 1):
        self.graph = graph
        self.overflow = False
        config = graph.config
        self._layers = [{name: Operand(getattr(layer, name)) for name in MATRICES} for layer in graph.layers]
        self._output = Operand(graph.output)
        self._caches = [_Cache(batch, graph.context, config.kv_heads, config.head_dim) for _ in graph.layers]

    def step(self, token: int, position: int) -> np.ndarray:
        """Logits int64 [vocab], int32 values worth 2^-12, after `token` at `position`; keeps its key and value."""
        return self._logits(self._one(token, position))[0, 0]

    def feed(self, token: int, position: int):
        """As `step` without logits, as the chip does for all prompt tokens but the last."""
        self._one(token, position)

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Logits int32 [batch, T, vocab] of sequences [batch, T] that start at position 0."""
        return self._logits(self._body(np.asarray(tokens), 0)).astype(np.int32)

    def generate(self, prompt: Sequence[int], max_tokens: int, start_pos: int = 0, eos: Ends = -1) -> list[int]:
        """The tokens after `prompt`, greedily, ties to the lowest id; positions before `start_pos` are in the cache.

        Ends after any token of `eos` (given out too; an id or several, -1: the model's, None: none), after
        `max_tokens`, or when the position reaches the context.
        """
        ends = end_ids(self.graph.config.eos_ids if eos == -1 else eos)
        prompt = check_request(self.graph.config.vocab, self.graph.context, prompt, max_tokens, start_pos)
        for position, token in enumerate(prompt[:-1], start_pos):
            self.feed(token, position)
        token, position, out = prompt[-1], start_pos + len(prompt) - 1, []
        while True:
            _, token = vector.argmax(self.step(token, position))
            out.append(token)
            position += 1
            if token in ends or len(out) == max_tokens or position == self.graph.context:
                return out

    def _one(self, token: int, position: int) -> np.ndarray:
        return self._body(np.array([[_token(self.graph.config.vocab, token)]]), self._position(position))

    def _position(self, position: int) -> int:
        if not 0 <= position < self.graph.context:
            raise HwgenError(f"Position must be 0 to {self.graph.context - 1}, not {position}")
        return position

    def _raise(self, flag):
        self.overflow = self.overflow or bool(np.any(flag))

    def _body(self, tokens: np.ndarray, first: int) -> np.ndarray:
        embed = self.graph.embed
        dots = embed.elements[tokens].astype(np.int64) * 64
        x, flag = shift_block(dots, embed.scales[tokens].astype(np.int64)[..., None] - SCALE_BIAS)
        columns = slice(self.graph.config.hidden)
        x, flag = (a.reshape(*tokens.shape, -1)[..., columns] for a in (x, flag))
        self._raise(flag)
        for layer, operands, cache in zip(self.graph.layers, self._layers, self._caches, strict=True):
            x = self._add(x, self._attention(layer, operands, cache, x, first))
            x = self._add(x, self._feed_forward(layer, operands, x))
        return x

    def _add(self, x, y):
        total, flag = vector.add(x, y)
        self._raise(flag)
        return total

    def _norm(self, x, frac: int):
        register = vector.norm_register(x, vector.norm_shift(x), self.graph.norm_epsilon)
        return vector.scale(x, tuple(r[..., None] for r in register), -self.graph.norm_exponent - frac)

    def _matmul(self, values, frac: int, w: Operand):
        """Rows of `w` times int16 vectors [B, T, n] worth 2^-frac."""
        x = quantize_int(values, frac)
        if w.tensor.blocks > x.blocks:
            x = _with_bias_block(x)
        flat = Mx(x.elements.reshape(-1, x.blocks, BLOCK), x.scales.reshape(-1, x.blocks), x.length)
        out, flag = product(Operand(flat), w)
        self._raise(flag)
        return out.reshape(*values.shape[:-1], -1)

    def _attention(self, layer: LayerGraph, operands, cache: _Cache, x, first: int):
        config = self.graph.config
        lead, groups, dim = x.shape[:2], config.kv_heads, config.head_dim
        normed = self._norm(x, layer.attn_norm_frac)
        rows = self._matmul(normed, layer.attn_norm_frac, operands["qkv"]).reshape(*lead, groups, -1, dim)
        table = self.graph.rope[first : first + lead[1], None, None].astype(np.int64)
        q = quantize_int(vector.rope(rows[..., :-2, :], table, 26 - layer.q_frac), layer.q_frac)
        k = quantize_int(vector.rope(rows[..., -2:-1, :], table, 26 - layer.k_frac)[..., 0, :], layer.k_frac)
        cache.put(first, k, quantize_int(rows[..., -1, :], Q_FRACTION))
        heads = self._attend(q, cache, first, layer.att_frac)
        return self._matmul(heads.reshape(*lead, -1), layer.att_frac, operands["o"])

    def _attend(self, q: Mx, cache: _Cache, first: int, frac: int):
        """int16 [B, T, groups, heads of a group, head_dim] of queries [B, T, groups, heads of a group, blocks, 32]."""
        batch, length, groups, repeat = q.scales.shape[:4]
        # All rows up to a multiple of 32 positions, so that a chunk's last block is whole.
        rows = max(1, _CHUNK // (batch * groups * repeat * self.graph.context))
        out = np.empty((batch, length, groups, repeat, self.graph.config.head_dim), np.int64)
        for start in range(0, length, rows):
            part = slice(start, min(start + rows, length))
            count = part.stop - start
            # [B, groups, queries x heads of a group, ...]
            own = Mx(*(np.moveaxis(a[:, part], 1, 2).reshape(batch, groups, count * repeat, *a.shape[4:])
                       for a in (q.elements, q.scales)), q.length)
            last = np.repeat(np.arange(first + start, first + part.stop), repeat)
            result = self._attend_rows(own, cache, last, frac)
            out[:, part] = np.moveaxis(result.reshape(batch, groups, count, repeat, -1), 1, 2)
        return out

    def _attend_rows(self, q: Mx, cache: _Cache, last, frac: int):
        """int16 [B, groups, rows, head_dim]; row r sees positions 0..last[r]."""
        span = int(last[-1]) + 1
        k, v = cache.keys(span), cache.values(span)
        scores, flag = product(Operand(q), Operand(k))
        seen = np.arange(span) <= last[:, None]
        if flag is not None:
            self._raise(flag & seen)
        scores = np.where(seen, scores, -(1 << 40))
        distance = scores.max(-1, keepdims=True) - scores
        p = _EXP2[np.minimum(distance, _FAR)]
        mantissa, exponent = tables.reciprocal(p.sum(-1, dtype=np.int64))
        sums = []
        for block in range(v.blocks):
            weighted = quantize_weighted(p, v.scales[:, :, None, :, block])
            elements = _blocks_of_positions(v.elements[..., block, :])
            bare = Mx(elements, np.full(elements.shape[:-1], SCALE_BIAS, np.uint8), v.length)
            total, flag = product(Operand(weighted), Operand(bare))
            sums.append(total)
            if flag is not None:
                channels = min(BLOCK, self.graph.config.head_dim - BLOCK * block)
                self._raise(flag[..., :channels])
        total = np.concatenate(sums, -1)[..., : self.graph.config.head_dim]
        return vector.scale(total, (mantissa[..., None], exponent[..., None]), -3 - frac)

    def _feed_forward(self, layer: LayerGraph, operands, x):
        normed = self._norm(x, layer.ffn_norm_frac)
        gate = self._matmul(normed, layer.ffn_norm_frac, operands["gate"])
        up = self._matmul(normed, layer.ffn_norm_frac, operands["up"])
        active = vector.silu(gate, 28 - layer.silu_frac)
        h = vector.mul(up, active, Q_FRACTION + layer.silu_frac - layer.h_frac)
        return self._matmul(h, layer.h_frac, operands["down"])

    def _logits(self, x):
        graph = self.graph
        y, frac = self._norm(x, graph.final_norm_frac), graph.final_norm_frac
        if graph.final_gain is not None:
            y = vector.mul(y, graph.final_gain, frac + graph.final_gain_frac - graph.final_frac)
            frac = graph.final_frac
        return self._matmul(y, frac, self._output)


class _Cache:
    """Keys and values of one layer: MXINT8, blocks inside a head, int8 [batch, groups, context, blocks, 32]."""

    def __init__(self, batch: int, context: int, groups: int, dim: int):
        shape = (batch, groups, context, -(-dim // BLOCK))
        self._dim = dim
        self._k, self._v = ((np.zeros((*shape, BLOCK), np.int8), np.zeros(shape, np.uint8)) for _ in range(2))

    def put(self, first: int, k: Mx, v: Mx):
        """Stores [B, T, groups, blocks, 32] from position `first` on."""
        rows = slice(first, first + k.scales.shape[1])
        for (elements, scales), new in ((self._k, k), (self._v, v)):
            elements[:, :, rows] = np.moveaxis(new.elements, 1, 2)
            scales[:, :, rows] = np.moveaxis(new.scales, 1, 2)

    def keys(self, span: int) -> Mx:
        return Mx(self._k[0][:, :, :span], self._k[1][:, :, :span], self._dim)

    def values(self, span: int) -> Mx:
        return Mx(self._v[0][:, :, :span], self._v[1][:, :, :span], self._dim)


def generate(graph: IntegerGraph, prompt: Sequence[int], max_tokens: int, eos: Ends = -1) -> list[int]:
    """The new tokens of one run from position 0; see `Reference.generate`."""
    return Reference(graph).generate(prompt, max_tokens, eos=eos)


def batch_logits(graph: IntegerGraph, tokens: np.ndarray) -> np.ndarray:
    """Logits int32 [B, T, vocab] of token ids [B, T], the same bits as `Reference.step` gives one by one."""
    tokens = np.asarray(tokens)
    for token in (tokens.min(), tokens.max()):
        _token(graph.config.vocab, token)
    if tokens.shape[1] > graph.context:
        raise HwgenError(f"Sequences must be at most {graph.context} tokens long (the context), not {tokens.shape[1]}")
    return Reference(graph, len(tokens)).logits(tokens)


def check_request(vocab: int, context: int, prompt: Iterable[int], max_tokens: int, start_pos: int = 0) -> list[int]:
    """The prompt as a list; HwgenError where a chip of such a vocabulary and context could not take the run."""
    prompt = [_token(vocab, token) for token in prompt]
    room = context - start_pos
    if not 0 <= start_pos < context:
        raise HwgenError(f"Start position must be 0 to {context - 1}, not {start_pos}")
    if not prompt:
        raise HwgenError("Prompt must be at least 1 token long, not 0")
    if len(prompt) > room:
        limit = "the context" if start_pos == 0 else f"the context from position {start_pos} on"
        raise HwgenError(f"Prompt must be at most {room} tokens long ({limit}), not {len(prompt)}")
    if max_tokens < 1:
        raise HwgenError(f"Maximum of new tokens must be at least 1, not {max_tokens}")
    return prompt


def _token(vocab: int, token) -> int:
    if not 0 <= token < vocab:
        raise HwgenError(f"Token id must be 0 to {vocab - 1}, not {token}")
    return int(token)


def _with_bias_block(x: Mx) -> Mx:
    shape = x.scales.shape[:-1]
    elements = np.broadcast_to(_BIAS_ELEMENTS, (*shape, 1, BLOCK))
    scales = np.full((*shape, 1), SCALE_BIAS, np.uint8)
    return Mx(np.concatenate([x.elements, elements], -2), np.concatenate([x.scales, scales], -1), x.length + BLOCK)


def _blocks_of_positions(values):
    """[..., positions, 32 channels] to [..., 32 channels, blocks of 32 positions, 32], padded with zeros."""
    pad = [(0, 0)] * (values.ndim - 2) + [(0, -values.shape[-2] % BLOCK), (0, 0)]
    values = np.swapaxes(np.pad(values, pad), -1, -2)
    return values.reshape(*values.shape[:-1], -1, BLOCK)
