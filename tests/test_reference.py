"""The reference against a plain per-position reading of the number rules, and its run-end rules."""

from dataclasses import replace

import numpy as np
import pytest
from random_model import SHAPES, random_model

from hwgen.arithmetic import tables, vector
from hwgen.arithmetic.mx import BLOCK, Mx, matmul, quantize_int, quantize_weighted, shift_block
from hwgen.errors import HwgenError
from hwgen.quantize import quantize
from hwgen.reference import Reference, batch_logits, generate


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


@pytest.fixture(scope="module")
def graph():
    return quantize(random_model("odd sizes"), context=40)


def test_generation_is_greedy(graph):
    tokens = generate(graph, [3, 4], 6, eos=None)
    assert len(tokens) == 6
    logits = batch_logits(graph, np.array([[3, 4, *tokens[:-1]]]))[0]
    assert logits[1:].argmax(-1).tolist() == tokens


def test_generation_ends_after_eos(graph):
    tokens = generate(graph, [3, 4], 6, eos=None)
    assert generate(graph, [3, 4], 6, eos=tokens[2]) == tokens[: tokens.index(tokens[2]) + 1]


def test_generation_ends_after_any_of_several_ends(graph):
    tokens = generate(graph, [3, 4], 6, eos=None)
    assert len(set(tokens[:5])) == 4 and 4 not in tokens
    for ends in ([tokens[4], tokens[3], tokens[3]], (49, 4, tokens[3]), [tokens[3]]):
        assert generate(graph, [3, 4], 6, eos=ends) == tokens[:4]
        model = replace(graph, config=replace(graph.config, eos_ids=tuple(ends)))
        assert generate(model, [3, 4], 6) == Reference(model).generate([3, 4], 6) == tokens[:4]
    assert generate(graph, [3, 4], 6, eos=[]) == tokens


def test_generation_ends_at_the_context(graph):
    prompt = [5, 6] * 20
    assert len(generate(graph, prompt, 99, eos=None)) == 1
    assert len(generate(graph, prompt[:37], 99, eos=None)) == 4


def test_generation_goes_on_from_a_cache(graph):
    tokens = generate(graph, [3, 4], 6, eos=None)
    reference = Reference(graph)
    first = reference.generate([3, 4], 2, eos=None)
    assert first + reference.generate(first[-1:], 4, start_pos=3, eos=None) == tokens


def test_ties_go_to_the_lowest_id(graph):
    same = replace(graph.embed, elements=np.repeat(graph.embed.elements[7:8], 50, 0),
                   scales=np.repeat(graph.embed.scales[7:8], 50, 0))
    assert generate(replace(graph, embed=same), [9], 3, eos=None) == [0, 0, 0]


def test_prompt_tokens_before_the_last_make_no_logits(graph):
    # Logits that overflow must not raise the flag where the chip skips the head.
    huge = replace(graph, final_frac=-40, final_gain_frac=-40 - graph.final_norm_frac)
    reference = Reference(huge)
    reference.feed(3, 0)
    assert not reference.overflow
    reference.step(3, 1)
    assert reference.overflow


@pytest.mark.parametrize(("prompt", "tokens", "start", "message"), [
    ([50], 1, 0, "Token id must be 0 to 49, not 50"), ([1, -1], 1, 0, "Token id must be 0 to 49, not -1"),
    ([1] * 41, 1, 0, r"Prompt must be at most 40 tokens long \(the context\), not 41"),
    ([1] * 3, 1, 38, r"Prompt must be at most 2 tokens long \(the context from position 38 on\), not 3"),
    ([], 1, 0, "Prompt must be at least 1 token long, not 0"),
    ([1], 0, 0, "Maximum of new tokens must be at least 1, not 0"),
    ([1], 1, 40, "Start position must be 0 to 39, not 40"),
])
def test_requests_are_checked(graph, prompt, tokens, start, message):
    with pytest.raises(HwgenError, match=message):
        Reference(graph).generate(prompt, tokens, start)
