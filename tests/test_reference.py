"""The reference against a plain per-position reading of the number rules, and its run-end rules."""

import numpy as np
import pytest

from hwgen.arithmetic import tables, vector
from hwgen.arithmetic.mx import BLOCK, Mx, matmul, quantize_int, quantize_weighted, shift_block
from hwgen.quantize import quantize
from hwgen.reference import Reference, batch_logits
from random_model import SHAPES, random_model

def plain_logits(graph, tokens):
    """Logits after the last token and the sticky flag, position by position, with nothing but the law's functions."""
    config, flags = graph.config, []

    def product(x, w):
        values, overflow = matmul(x, w)
        flags.append(overflow)
        return values

    def linear(values, frac, w):
        x = quantize_int(values, frac)
        if w.blocks > x.blocks:
            one = np.zeros((1, BLOCK), np.int8)
            one[0, :2] = 64, 1
            x = Mx(np.concatenate([x.elements, one]), np.append(x.scales, 127).astype(np.uint8), 0)
        return product(x, w)

    def norm(x, frac):
        register = vector.norm_register(x, vector.norm_shift(x), graph.norm_epsilon)
        return vector.scale(x, register, -graph.norm_exponent - frac)

    def add(a, b):
        total, overflow = vector.add(a, b)
        flags.append(overflow)
        return total

    def turn(rows, position, frac):
        return quantize_int(vector.rope(rows, graph.rope[position], 26 - frac), frac)

    def stack(items):
        return Mx(np.stack([i.elements for i in items]), np.stack([i.scales for i in items]), items[0].length)

    repeat, dim = config.heads // config.kv_heads, config.head_dim
    cache = [[([], []) for _ in range(config.kv_heads)] for _ in graph.layers]
    for position, token in enumerate(tokens):
        row = graph.embed[token]
        x, overflow = shift_block(row.elements.astype(np.int64) * 64, row.scales.astype(np.int64)[:, None] - 127)
        flags.append(overflow)
        x = x.ravel()[: config.hidden]
        for layer, groups in zip(graph.layers, cache, strict=True):
            qkv = linear(norm(x, layer.attn_norm_frac), layer.attn_norm_frac, layer.qkv)
            heads = []
            for rows, (keys, values) in zip(qkv.reshape(config.kv_heads, -1, dim), groups, strict=True):
                keys.append(turn(rows[repeat], position, layer.k_frac))
                values.append(quantize_int(rows[repeat + 1], 12))
                v = stack(values)
                for h in range(repeat):
                    scores = product(turn(rows[h], position, layer.q_frac), stack(keys))
                    p = vector.softmax_numerators(scores, scores.max())
                    mantissa, exponent = tables.reciprocal(p.sum())
                    sums = []
                    for block in range(v.blocks):
                        weighted = quantize_weighted(p, v.scales[:, block])
                        bare = np.zeros((BLOCK, weighted.blocks * BLOCK), np.int8)
                        bare[:, : len(p)] = v.elements[:, block].T
                        bare = bare.reshape(BLOCK, -1, BLOCK)
                        sums.append(product(weighted, Mx(bare, np.full(bare.shape[:2], 127, np.uint8), 0)))
                    heads.append(vector.scale(np.concatenate(sums)[:dim], (mantissa, exponent), -3 - layer.att_frac))
            x = add(x, linear(np.concatenate(heads), layer.att_frac, layer.o))
            y = norm(x, layer.ffn_norm_frac)
            gate, up = (linear(y, layer.ffn_norm_frac, w) for w in (layer.gate, layer.up))
            active = vector.silu(gate, 28 - layer.silu_frac)
            h = vector.mul(up, active, 12 + layer.silu_frac - layer.h_frac)
            x = add(x, linear(h, layer.h_frac, layer.down))
    y, frac = norm(x, graph.final_norm_frac), graph.final_norm_frac
    if config.tied:
        y = vector.mul(y, graph.final_gain, frac + graph.final_gain_frac - graph.final_frac)
        frac = graph.final_frac
    return linear(y, frac, graph.output), any(np.any(flag) for flag in flags)


@pytest.mark.parametrize("outlier", [1, 1000, 1e8])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_and_batches_follow_the_number_rules(shape, outlier):
    graph = quantize(random_model(shape, outlier=outlier), allow_wrap=True)
    tokens = np.random.default_rng(1).integers(graph.config.vocab, size=(2, 37))
    batch = batch_logits(graph, tokens)
    for row in range(2):
        reference = Reference(graph)
        steps = np.array([reference.step(token, position) for position, token in enumerate(tokens[row])])
        np.testing.assert_array_equal(steps, batch[row])
        assert len(np.unique(steps)) > 20
    for length in (1, 32, 33, 37):
        wanted, overflow = plain_logits(graph, tokens[1][:length])
        np.testing.assert_array_equal(wanted, batch[1, length - 1])
        reference = Reference(graph)
        for position, token in enumerate(tokens[1][: length - 1]):
            reference.feed(token, position)
        reference.step(tokens[1][length - 1], length - 1)
        assert reference.overflow == overflow
        if outlier == 1e8:
            assert overflow
        if outlier == 1:
            assert not overflow
