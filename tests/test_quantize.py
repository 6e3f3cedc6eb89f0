"""The quantiser: exact rewriting, exponents in the hardware's range, biases, refusals, and the loss it costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_model import SHAPES, random_model

import hwgen.calibrate
from hwgen.arithmetic import tables
from hwgen.arithmetic.mxfp4 import is_mxfp4
from hwgen.balance import centre_values, channel_order, pair_scales, scale_pairs, scale_up
from hwgen.calibrate import Statistics, calibrate, calibration_tokens
from hwgen.errors import HwgenError
from hwgen.evaluate import default_tokens, evaluate, standard_error
from hwgen.float_model import logits, sample
from hwgen.fold import fold_layer, group_rows, reading_columns, reorder
from hwgen.integer_graph import MATRICES
from hwgen.load import load
from hwgen.quantize import bias_block, check_context, exponent, matrix, quantize, rope_table
from hwgen.ranges import worst_case
from hwgen.reference import Reference, batch_logits

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"
EXAMPLE = Path(__file__).parents[1] / "examples" / "model"


def scores_and_values(config, w, y):
    """Attention logits and the head outputs' contribution of folded weights on inputs y [T, hidden] at position 0."""
    repeat = config.heads // config.kv_heads
    q, k, v = (y @ w[n].T + w.get(f"{n}_bias", 0) for n in "qkv")
    q = q.reshape(len(y), config.kv_heads, repeat, -1)
    k, v = (a.reshape(len(y), config.kv_heads, -1) for a in (k, v))
    mixed = np.repeat(v[:, :, None], repeat, 2).reshape(len(y), -1) @ w["o"].T
    return np.einsum("tgrd,sgd->grts", q, k), mixed


@pytest.mark.parametrize("shape", SHAPES)
def test_balancing_changes_no_function(shape):
    model = random_model(shape)
    config = model.config
    random = np.random.default_rng(0)
    folded = {n: a.astype(np.float64) for n, a in fold_layer(config, model.layer(0)).items()}
    y = random.standard_normal((9, config.hidden))
    before = scores_and_values(config, folded, y)
    up = (y @ folded["up"].T + folded.get("up_bias", 0)) @ folded["down"].T
    groups, pairs = config.kv_heads, config.head_dim // 2
    k = random.standard_normal((50, groups, pairs, 2)) * np.arange(1, pairs + 1)[:, None]
    q = random.standard_normal((50, groups, config.heads // groups, pairs, 2))
    scale = pair_scales(q, k)
    assert np.ptp(np.log2(scale)) > 0.5
    scale_pairs(config, folded, scale)
    peaks = np.exp2(random.integers(-9, 9, groups))
    values = centre_values(config, folded, peaks, 512)
    assert np.all((values * peaks > 16) & (values * peaks <= 32))
    up_peak, h = np.exp2(random.integers(-9, 9, (2, config.ffn)))
    scale = scale_up(folded, up_peak, h)
    assert 16 < (scale * up_peak).max() <= 32
    after = scores_and_values(config, folded, y)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after[1], before[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose((y @ folded["up"].T + folded.get("up_bias", 0)) @ folded["down"].T, up, rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_order_of_the_residual_changes_no_function(shape):
    model = random_model(shape)
    columns = reading_columns(model)
    assert columns.shape == (2 * model.config.layers + 1, model.config.hidden)
    order = channel_order(columns)
    turned = reorder(model, order)
    assert sorted(order) == list(range(model.config.hidden))
    assert not np.array_equal(turned.tensors["embed"], model.tensors["embed"])
    tokens = sample(model, 2, 20, seed=0)
    np.testing.assert_allclose(logits(turned, tokens), logits(model, tokens), rtol=1e-3, atol=1e-3)


def test_channels_that_are_read_weakly_lie_together():
    columns = np.ones((3, 64))
    columns[:, [5, 40]] = 1e-3, 0
    assert channel_order(columns)[-2:].tolist() == [5, 40]


def test_a_channel_that_once_outlies_all_others_does_not_cost_them_their_bits():
    random = np.random.default_rng(0)
    h, down = random.standard_normal((200, 64)), random.standard_normal((16, 64))
    h[0, 9] *= 1e5
    folded = {"up": np.ones((64, 8)), "down": down.copy()}
    scale = scale_up(folded, np.abs(h).max(0), np.sqrt(np.square(h).mean(0)))

    def error(vectors, matrix):
        frac = exponent(np.abs(vectors).max(), -63, 63)
        got = np.rint(np.ldexp(vectors, frac)) @ np.ldexp(matrix, -frac).T
        return np.square(got - h @ down.T)[1:].mean()

    assert error(h * scale, folded["down"]) < error(h, down) / 20


def test_pair_scales_even_out_an_outlying_pair():
    random = np.random.default_rng(0)
    k = random.standard_normal((200, 1, 4, 2)) * np.array([1, 1, 1, 100])[:, None]
    q = random.standard_normal((200, 1, 1, 4, 2))
    scale = pair_scales(q, k)
    assert scale[0, 3] * 10 < scale[0, :3].min()


def test_rows_are_group_major():
    config = random_model("odd sizes").config
    q, k, v = (np.arange(n)[:, None] + base for n, base in ((144, 0), (48, 1000), (48, 2000)))
    rows = group_rows(config, q, k, v)[:, 0].reshape(2, 5, 24)
    assert rows[1, 0, 0] == 72
    assert rows[1, 3, 0] == 1024
    assert rows[1, 4, 23] == 2047


@pytest.mark.parametrize("shape", SHAPES)
def test_the_integer_graph_is_near_the_float_model(shape):
    model = random_model(shape)
    graph = quantize(model)
    tokens = sample(model, 4, 60, seed=3)
    wanted, got = logits(model, tokens), np.ldexp(batch_logits(graph, tokens).astype(float), -12)
    assert np.abs(got - wanted).mean() < 0.03 * wanted.std()


@pytest.mark.parametrize("outlier", [1, 1e-6, 1e5, 1e12])
@pytest.mark.parametrize("shape", SHAPES)
def test_exponents_stay_in_the_hardware_range(shape, outlier):
    model = random_model(shape, outlier=outlier)
    graph = quantize(model, allow_wrap=True)
    j = graph.norm_exponent
    least = tables.rsqrt(max(1, graph.norm_epsilon))[1]
    for layer in graph.layers:
        fracs = [value for name, value in vars(layer).items() if name.endswith("_frac")]
        assert all(-63 <= f <= 63 for f in fracs)
        for frac in (layer.attn_norm_frac, layer.ffn_norm_frac):
            assert least - j - frac >= 0
            assert -64 <= -j - frac <= 63
        assert 31 - 3 - layer.att_frac >= 0
        shifts = (26 - layer.q_frac, 26 - layer.k_frac, 28 - layer.silu_frac, 12 + layer.silu_frac - layer.h_frac)
        assert all(0 <= s <= 63 for s in shifts)
    assert least - j - graph.final_norm_frac >= 0
    if graph.final_gain is not None:
        assert 0 <= graph.final_norm_frac + graph.final_gain_frac - graph.final_frac <= 63
        assert max(abs(graph.final_norm_frac), abs(graph.final_gain_frac), abs(graph.final_frac)) <= 63


def test_no_clipping_on_calibration_text():
    model = random_model("odd sizes")
    text = sample(model, 2, 30, seed=1)
    graph = quantize(model, calibration=text)
    inner, seen = Reference(graph, 2), []
    norm = inner._norm
    inner._norm = lambda x, frac: seen.append(norm(x, frac)) or seen[-1]
    inner.logits(text)
    peak = max(np.abs(s).max() for s in seen)
    assert 8192 <= peak < 32767


def test_bias_blocks_are_close():
    random = np.random.default_rng(0)
    bias = np.concatenate([[0, 1, -1, 1e-30, 5e4, 8255 * 2.0**-12, 8191.7, -8191.9],
                           random.standard_normal(2000) * np.exp2(random.integers(-10, 10, 2000))])
    block = bias_block(bias)
    elements = block.elements[:, 0].astype(np.int64)
    assert not elements[:, 2:].any()
    assert np.abs(elements).max() <= 127
    worth = np.ldexp(64.0 * elements[:, 0] + elements[:, 1], block.scales[:, 0].astype(int) - 127 - 12)
    assert np.all(np.abs(worth - bias) <= np.abs(bias) * 2.0**-12)
    assert worth[:3].tolist() == [0, 1, -1]


@pytest.mark.parametrize("shape", SHAPES)
def test_mxfp4_where_it_is_asked_for_but_for_matrices_with_a_bias(shape):
    model = random_model(shape)
    layers = set() if model.config.mlp_bias else set(MATRICES)
    ends = {"embed", "head"}
    for weights, head, named in (("mxint8", "mxint8", set()), ("mxfp4", "mxint8", layers), ("mxint8", "mxfp4", ends),
                                 ("mxfp4", "mxfp4", layers | ends)):
        graph = quantize(model, weights=weights, head=head, calibration=[[1, 2, 3]])
        assert graph.mxfp4 == named
        held = {"embed": graph.embed, "head": graph.output, **{m: getattr(graph.layers[0], m) for m in MATRICES}}
        assert {name for name, matrix in held.items() if is_mxfp4(matrix.elements)} == named
    with pytest.raises(HwgenError, match="Format of weights must be mxint8 or mxfp4, not 'fp4'"):
        quantize(model, weights="fp4")


def test_a_matrix_with_bias_has_one_more_block():
    weight, bias = np.ones((3, 40)), np.array([0.5, 0, -2])
    assert matrix(weight).scales.shape == (3, 2)
    mx = matrix(weight, bias)
    assert mx.elements.shape == (3, 3, 32)
    assert mx.length == 96


def test_rope_table():
    config = random_model("odd sizes").config
    table = rope_table(config, 70)
    assert table.shape == (70, 24)
    assert table[0].tolist() == [16384, 0] * 12
    angle = 69 * 10000 ** (-2 / 24)
    assert table[69, 2:4].tolist() == [round(np.cos(angle) * 16384), round(np.sin(angle) * 16384)]


def test_context():
    config = random_model("odd sizes").config
    assert check_context(config, None) == 70
    assert check_context(replace(config, max_context=2048), None) == 512
    assert quantize(random_model("odd sizes"), context=7).rope.shape == (7, 24)
    for wrong in (0, 71):
        with pytest.raises(HwgenError, match=f"Context must be 1 to 70 .*, not {wrong}"):
            check_context(config, wrong)


def test_calibration_text_differs_from_evaluation_text():
    model = random_model("odd sizes")
    ours = np.stack(calibration_tokens(model, 70))
    assert ours.shape[1] == 70
    assert not np.array_equal(ours[:4, 1:], sample(model, len(ours), 70, seed=0)[:4, 1:])


def test_calibration_input_is_checked():
    model = random_model("odd sizes")
    with pytest.raises(HwgenError, match="Token id must be 0 to 49, not 50"):
        quantize(model, calibration=[1, 50])
    with pytest.raises(HwgenError, match="Calibration must hold at least 1 token, not 0"):
        quantize(model, calibration=[])
    with pytest.raises(HwgenError, match="Calibration text needs a tokenizer"):
        quantize(model, calibration="text")


def test_long_calibration_text_is_read_in_parts(monkeypatch):
    """Logits of a whole text would not fit into memory; the parts give what the whole gives."""
    model, sizes = random_model("odd sizes"), []
    text = np.arange(8 * 16).reshape(8, 16) % 50

    class Watched(Statistics):
        def observe(self, name, array):
            sizes.append(array.size if name == "logits" else 0)
            super().observe(name, array)

    monkeypatch.setattr(hwgen.calibrate, "Statistics", Watched)
    whole = calibrate(model, 16, text)
    assert max(sizes) == 8 * 16 * 50
    sizes.clear()
    monkeypatch.setattr(hwgen.calibrate, "_VALUES", 3 * 16 * 50)
    parts = calibrate(model, 16, text)
    assert max(sizes) == 3 * 16 * 50 and sum(sizes) == 8 * 16 * 50
    assert all(np.allclose(parts.peak[name], peak, rtol=1e-5) for name, peak in whole.peak.items())
    assert np.allclose(parts.rms("0.h"), whole.rms("0.h"), rtol=1e-5)


def test_values_that_leave_float32_are_refused():
    with pytest.raises(HwgenError, match="must stay finite in float32, but .* does not on calibration text"):
        quantize(random_model("odd sizes", outlier=1e37), allow_wrap=True)


def test_large_sums_need_allow_wrap():
    model = random_model("odd sizes", outlier=1e6)
    with pytest.raises(HwgenError, match="below 131072 where the worst case exceeds Q19.12, not .*--allow-wrap"):
        quantize(model)
    bounds = worst_case(quantize(model, allow_wrap=True))
    assert max(bounds.values()) > 2**19


def test_worst_case_bounds_hold():
    model = random_model("untied, biases")
    graph = quantize(model)
    bounds = worst_case(graph)
    assert bounds.keys() == {"logits"} | {f"0.{n}" for n in ("qkv", "o", "gate", "up", "down", "scores",
                                                            "sum of values", "residual")}
    assert np.abs(batch_logits(graph, sample(model, 2, 40, seed=0))).max() * 2.0**-12 <= bounds["logits"]


def test_same_model_same_graph():
    assert quantize(random_model("odd sizes")).signature() == quantize(random_model("odd sizes")).signature()
    other = quantize(random_model("odd sizes"), seed=1)
    assert other.context == 70


def test_the_example_model_in_mxfp4():
    model = load(EXAMPLE)
    result = evaluate(model, quantize(model, weights="mxfp4"), tokens=1000)
    assert result["kl"] <= 0.02 and result["top1"] >= 0.93 and not result["overflow"]


@pytest.mark.full
@pytest.mark.skipif(not STORIES.exists(), reason=f"{STORIES.name} is not beside the checkout")
@pytest.mark.parametrize(("head", "kl", "top1"), [("mxint8", 0.25, 0.75), ("mxfp4", 0.32, 0.71)])
def test_stories260k_in_mxfp4(head, kl, top1):
    model = load(STORIES)
    result = evaluate(model, quantize(model, weights="mxfp4", head=head), tokens=4000)
    assert result["kl"] <= kl and result["top1"] >= top1 and not result["overflow"]


@pytest.mark.skipif(not STORIES.exists(), reason=f"{STORIES.name} is not beside the checkout")
@pytest.mark.parametrize(("tokens", "top1"), [(1500, 0.94), pytest.param(20000, 0.95, marks=pytest.mark.full)])
def test_stories260k_loses_little(tokens, top1):
    model = load(STORIES)
    result = evaluate(model, quantize(model), tokens=tokens)
    assert result["tokens"] >= tokens
    assert result["kl"] <= 0.010
    assert result["top1"] >= top1
    assert result["ppl_int"] < 1.02 * result["ppl_float"]
    assert not result["overflow"]


def test_measuring_is_bounded_by_default_and_says_how_sure_it_is():
    model = random_model("odd sizes")
    assert default_tokens(model.config) == 20000
    large = replace(model.config, vocab=49152, hidden=576, layers=30, ffn=1536)
    assert 1500 < default_tokens(large) < 3000
    seen = []
    few = evaluate(model, quantize(model), tokens=320, on_progress=lambda *news: seen.append(news))
    assert few["tokens"] == 320
    assert 0 < few["kl_error"] < few["kl"] and 0 < few["top1_error"] < 0.1
    assert seen[0] == ("drawing text", 0, 40) and seen[-1] == ("measuring", 6, 8)


def test_the_standard_error_is_that_of_whole_sequences():
    random = np.random.default_rng(0)
    assert standard_error(random.standard_normal(10000)) == pytest.approx(0.01, rel=0.05)
    assert standard_error(np.ones(1)) is None


def filled(kind: str, array: np.ndarray) -> np.ndarray:
    """Values of the size of `array` as float32's ends have them."""
    values = {"zeros": [0], "subnormals": [1e-45, -1e-40], "all sizes": [0, 1e-45, -1e-40, 1e-38, 1],
              "huge": [1e37, -1e37], "largest": [3.4e38, -3.4e38, 0]}[kind]
    return np.random.default_rng(0).choice(np.float32(values), array.shape)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["zeros", "subnormals", "all sizes", "huge", "largest"])
@pytest.mark.parametrize("part", ["embed", "0.attn_norm", "0.q", "0.k_bias", "0.v", "0.o", "0.gate", "0.up",
                                  "0.down_bias", "norm", "head", "all"])
def test_weights_at_the_ends_of_float32(part, kind):
    """Whatever a tensor holds, quantising and measuring give an answer or one sentence."""
    model = random_model("untied, biases")
    tensors = {name: filled(kind, array) if part in (name, "all") else array for name, array in model.tensors.items()}
    model = replace(model, tensors=tensors)
    try:
        graph = quantize(model, calibration=[[1, 2, 3, 4, 5]], context=5, allow_wrap=True)
    except HwgenError as error:
        assert kind in ("huge", "largest")
        assert "must stay finite in float32" in str(error)
        return
    evaluate(model, graph, tokens=10)
    if kind == "subnormals":
        zeros = {name: np.zeros_like(array) if part in (name, "all") else array for name, array in tensors.items()}
        same = quantize(replace(model, tensors=zeros), calibration=[[1, 2, 3, 4, 5]], context=5, allow_wrap=True)
        np.testing.assert_array_equal(batch_logits(graph, [[1, 2, 3]]), batch_logits(same, [[1, 2, 3]]))


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_exponents_of_peaks_of_any_size(real):
    with np.errstate(all="raise"):
        for peak in (0, 1e-45, 1e-40, 1e-38, 1e-30):
            assert exponent(real(peak), -63, 63) == 63
        for peak in (1e30, 3.4e38, np.inf):
            assert exponent(real(peak), -63, 63) == -63
        assert exponent(real(1), -63, 63) == 13
        assert exponent(real(16000), -63, 63) == 0
