"""The quantiser: a float model and calibration tokens in, the integer graph out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hwgen.arithmetic import tables
from hwgen.arithmetic.mx import BLOCK, ELEMENT_FRACTION, LIMBS_MAX, SCALE_BIAS, Mx, quantize_float
from hwgen.arithmetic.mxfp4 import FORMATS, quantize_mxfp4
from hwgen.balance import centre_values, channel_order, pair_scales, scale_pairs, scale_up
from hwgen.calibrate import Statistics, calibrate
from hwgen.errors import HwgenError, shown
from hwgen.float_model import FloatModel
from hwgen.fold import fold_layer, gain_factor, group_rows, pair_order, reading_columns, reorder
from hwgen.integer_graph import MATRICES, IntegerGraph, LayerGraph, biased, norm_epsilon, norm_exponent
from hwgen.model_config import ROPE_FRACTION, ModelConfig
from hwgen.ranges import check_window
from hwgen.rope import cos_sin

DEFAULT_CONTEXT = 512
HEADROOM = 2.0
"""Largest vector value the exponents leave room for, over the largest that calibration saw."""
FRAC_MAX = 63

OnProgress = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how much."""


def unwatched(what: str, done: int, total: int):
    """Progress that nobody watches."""


_OBSERVED = ("attn_normed", "q", "k", "v", "att", "o", "ffn_normed", "gate", "up", "silu", "h", "down")


@dataclass(frozen=True)
class Prepared:
    """A float model ready to be rounded: the same function, with the residual's channels in order, and its statistics.

    `context`: the positions that a graph of it is for.
    """

    model: FloatModel
    context: int
    statistics: Statistics

    def layer(self, i: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Layer i's weights as they are rounded, and what its vectors reach.

        Weights: qkv (group-major), o, gate, up, down and their `_bias`, float32. Vectors: largest magnitudes, as
        calibration saw them, in the units of these weights.
        """
        config, statistics = self.model.config, self.statistics
        return _rewrite(config, self.model.layer(i), statistics, i, self.context)


def prepare(model: FloatModel, *, context: int | None = None, calibration=None, seed: int = 0,
            on_progress: OnProgress = unwatched) -> Prepared:
    """Orders and calibrates a model; see `quantize`."""
    context = check_context(model.config, context)
    on_progress("calibrating", 0, context)
    model = reorder(model, channel_order(reading_columns(model)))
    statistics = calibrate(model, context, calibration, seed, lambda t: on_progress("calibrating", t, context))
    return Prepared(model, context, statistics)


def quantize(model: FloatModel, *, weights: str = "mxint8", head: str = "mxint8", context: int | None = None,
             calibration=None, seed: int = 0, allow_wrap: bool = False,
             on_progress: OnProgress = unwatched) -> IntegerGraph:
    """The integer graph of `model` for `context` positions (default: the model's, at most 512).

    `weights` is the format of the layers' matrices (mxint8 or mxfp4; those with a bias stay MXINT8, as a bias needs
    its bits), `head` that of embedding and head. `calibration` is text, token ids, or None for text that the model
    itself writes (`seed`). Raises HwgenError where a sum could leave Q19.12 and calibration does not show four times
    the room, unless `allow_wrap`.
    """
    narrow_matrices(model.config, weights, head)
    prepared = prepare(model, context=context, calibration=calibration, seed=seed, on_progress=on_progress)
    return rounded(prepared, weights=weights, head=head, allow_wrap=allow_wrap, on_progress=on_progress)


def rounded(prepared: Prepared, *, weights: str = "mxint8", head: str = "mxint8", allow_wrap: bool = False,
            on_progress: OnProgress = unwatched) -> IntegerGraph:
    """The integer graph of a prepared model; see `quantize`."""
    model, context, statistics = prepared.model, prepared.context, prepared.statistics
    config = model.config
    mxfp4 = narrow_matrices(config, weights, head)
    layers, seen = [], {"logits": statistics.most("logits")}
    for i in range(config.layers):
        on_progress("quantising", i, config.layers)
        folded, reach = prepared.layer(i)
        check_finite({f"{i}.{name}": array for name, array in folded.items()})
        layers.append(_round_layer(config, folded, reach, mxfp4))
        seen |= {f"{i}.{name}": value for name, value in _largest_sums(reach, context).items()}
        following = f"{i + 1}.attn_in" if i + 1 < config.layers else "final_in"
        seen[f"{i}.residual"] = max(statistics.most(name) for name in (f"{i}.attn_in", f"{i}.ffn_in", following))
    embed = quantize_mxfp4 if "embed" in mxfp4 else quantize_float
    graph = IntegerGraph(
        config=config, context=context, embed=embed(model.tensors["embed"]), layers=tuple(layers), mxfp4=mxfp4,
        rope=rope_table(config, context), tokenizer=model.tokenizer, **_final(model, statistics, mxfp4))
    if not allow_wrap:
        check_window(graph, seen)
    return graph


def check_context(config: ModelConfig, context: int | None) -> int:
    """The context to build for; HwgenError beyond where the model is plain Llama."""
    longest, limit = config.longest_context()
    if context is None:
        return min(longest, DEFAULT_CONTEXT)
    if not 1 <= context <= longest:
        raise HwgenError(f"Context must be 1 to {longest} ({limit}), not {context}")
    return context


def narrow_matrices(config: ModelConfig, weights: str, head: str) -> frozenset[str]:
    """Names of the matrices in MXFP4; HwgenError for an unknown format."""
    for name, value in (("Format of weights", weights), ("Format of embedding and head", head)):
        if value not in FORMATS:
            raise HwgenError(f"{name} must be {' or '.join(FORMATS)}, not {shown(value)}")
    layers = [m for m in MATRICES if weights == "mxfp4" and not biased(config, m)]
    return frozenset(layers + (["embed", "head"] if head == "mxfp4" else []))


def rope_table(config: ModelConfig, context: int) -> np.ndarray:
    """int16 [context, head_dim]: [cos0, sin0, cos1, sin1, ...] times RoPE's attention factor, in Q1.14."""
    pairs = np.stack(cos_sin(config, np.arange(context)), -1).reshape(context, config.head_dim)
    return np.rint(pairs * (1 << ROPE_FRACTION)).astype(np.int16)


def exponent(peak: float, low: int, high: int) -> int:
    """e such that `peak` * HEADROOM * 2^e fits int16, limited to low..high, both within -63..63."""
    # beyond these the limits decide, and the quotient could leave its float type
    if not peak > 2.0**-90:
        return high
    if peak > 2.0**90:
        return low
    return int(np.clip(math.floor(math.log2(32767 / (peak * HEADROOM))), low, high))


def norm_frac_limit(config: ModelConfig) -> int:
    """Largest exponent of a normalised vector for which its right shift stays at least 0."""
    least = int(tables.rsqrt(max(1, norm_epsilon(config)))[1])
    return min(FRAC_MAX, least - norm_exponent(config))


def bias_block(bias: np.ndarray) -> Mx:
    """The block [hi, lo, 0...] of each row for bias [rows]: worth (64 hi + lo) * 2^(scale - 127 - 12)."""
    _, top = np.frexp(np.abs(bias.astype(np.float64)))
    # 64 * 127 + 127 = 8255 is just above 2^13
    code = np.where(bias == 0, 0, np.clip(top - 13 + 2 * ELEMENT_FRACTION + SCALE_BIAS, 0, 254))
    units = np.rint(np.ldexp(bias.astype(np.float64), 2 * ELEMENT_FRACTION + SCALE_BIAS - code)).astype(np.int64)
    high = np.clip((units + 32) >> 6, -127, 127)
    elements = np.zeros((len(bias), 1, BLOCK), np.int8)
    elements[:, 0, 0], elements[:, 0, 1] = high, np.clip(units - 64 * high, -127, 127)
    return Mx(elements, code.astype(np.uint8)[:, None], BLOCK)


def matrix(weight: np.ndarray, bias: np.ndarray | None = None, *, mxfp4: bool = False) -> Mx:
    """Blocks of weight [rows, columns], padded; MXINT8 with a bias block where there is a bias."""
    mx = quantize_mxfp4(weight) if mxfp4 else quantize_float(weight)
    if bias is not None:
        tail = bias_block(bias)
        mx = Mx(np.concatenate([mx.elements, tail.elements], 1), np.concatenate([mx.scales, tail.scales], 1), 0)
    return Mx(mx.elements, mx.scales, mx.blocks * BLOCK)


def check_finite(tensors: Mapping[str, np.ndarray]):
    """HwgenError where float32 cannot hold a weight any more with what was folded into it; names are for people."""
    broken = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if broken:
        raise HwgenError("Model's weights must stay finite in float32 with gains and scales folded in, but "
                         f"{broken[0]} does not")


@np.errstate(over="ignore", invalid="ignore")  # said in words by check_finite
def _rewrite(config: ModelConfig, weights: dict, statistics: Statistics, i: int, context: int) -> tuple[dict, dict]:
    """See `Prepared.layer`."""
    folded = fold_layer(config, weights)
    reach = {name: statistics.peak[f"{i}.{name}"] for name in _OBSERVED}
    q, k = _balance_scores(config, folded, *(statistics.samples(f"{i}.{name}") for name in "qk"), reach)
    value_scale = centre_values(config, folded, reach["v"].max(-1), context)
    up_scale = scale_up(folded, reach["up"], statistics.rms(f"{i}.h"))
    unit = 1 / float(gain_factor(config))
    reach |= {
        "q": q, "k": k, "v": reach["v"].max(-1) * value_scale,
        "att": reach["att"].reshape(config.kv_heads, -1).max(-1) * value_scale,
        "up": reach["up"] * up_scale, "h": reach["h"] * up_scale,
        "attn_normed": reach["attn_normed"] * unit, "ffn_normed": reach["ffn_normed"] * unit,
    }
    for end in ("", "_bias"):
        if f"q{end}" in folded:
            folded[f"qkv{end}"] = group_rows(config, *(folded.pop(f"{name}{end}") for name in "qkv"))
    return folded, reach


def _round_layer(config: ModelConfig, folded: dict, reach: dict, mxfp4: frozenset[str]) -> LayerGraph:
    """A layer of the graph from its weights and what its vectors reach."""
    limit = norm_frac_limit(config)
    silu_frac = exponent(reach["silu"].max(), 28 - FRAC_MAX, 28)
    h_low, h_high = max(-FRAC_MAX, 12 + silu_frac - FRAC_MAX), min(FRAC_MAX, 12 + silu_frac)
    return LayerGraph(
        **{name: matrix(folded[name], folded.get(f"{name}_bias"), mxfp4=name in mxfp4) for name in MATRICES},
        attn_norm_frac=exponent(reach["attn_normed"].max(), -FRAC_MAX, limit),
        q_frac=exponent(reach["q"].max(), 26 - FRAC_MAX, 26), k_frac=exponent(reach["k"].max(), 26 - FRAC_MAX, 26),
        att_frac=exponent(reach["att"].max(), -FRAC_MAX, 28),
        ffn_norm_frac=exponent(reach["ffn_normed"].max(), -FRAC_MAX, limit),
        silu_frac=silu_frac, h_frac=exponent(reach["h"].max(), h_low, h_high))


def _largest_sums(reach: dict, context: int) -> dict[str, float]:
    """By matrix the largest product that calibration saw."""
    value = reach["v"].max()
    sums = {"qkv": max(reach["q"].max(), reach["k"].max(), value), "up": reach["up"].max(),
            "sum of values": context * value, "scores": _score_peak(reach["q"], reach["k"])}
    sums |= {name: reach[name].max() for name in ("o", "gate", "down")}
    return {name: float(value) for name, value in sums.items()}


def _balance_scores(config: ModelConfig, folded: dict, q: np.ndarray, k: np.ndarray, peak: dict):
    """Scales the pairs of q and k in place, from samples [N, heads, head_dim] as the float model has them.

    Returns bounds of their rotated pairs' magnitudes: [kv_heads, heads of a group, pairs] and [kv_heads, 1, pairs].
    """
    order, factor = pair_order(config.head_dim), math.log2(math.e) / math.sqrt(config.head_dim)

    def pairs(array, scale):
        return array[..., order].reshape(*array.shape[:-2], config.kv_heads, -1, config.head_dim // 2, 2) * scale

    scale = pair_scales(pairs(q, factor), pairs(k, 1)[:, :, 0])
    scale_pairs(config, folded, scale)
    q_size, k_size = (np.hypot(*np.moveaxis(pairs(peak[name], f), -1, 0)) for name, f in (("q", factor), ("k", 1)))
    return q_size / scale[:, None], k_size * scale[:, None]


def _score_peak(q: np.ndarray, k: np.ndarray) -> float:
    """A bound of |q . k| from bounds of their pairs."""
    return float((q * k).sum(-1).max())


@np.errstate(over="ignore")
def _final(model: FloatModel, statistics: Statistics, mxfp4: frozenset[str]) -> dict:
    """The graph's fields about the last normalisation and the head."""
    config, gain = model.config, model.tensors["norm"] * gain_factor(model.config)
    peak = statistics.peak["final_normed"] / float(gain_factor(config))
    frac = exponent(peak.max(), -FRAC_MAX, norm_frac_limit(config))
    if not config.tied:
        head = model.tensors["head"] * gain
        check_finite({"head": head})
        return {"head": matrix(head, mxfp4="head" in mxfp4), "final_norm_frac": frac, "final_gain": None,
                "final_gain_frac": 0, "final_frac": 0}
    gain_frac = exponent(np.abs(gain).max() / HEADROOM, -FRAC_MAX, FRAC_MAX - max(frac, 0))
    final_frac = exponent((peak * np.abs(gain)).max(), max(-FRAC_MAX, frac + gain_frac - FRAC_MAX),
                          min(FRAC_MAX, frac + gain_frac))
    values = np.clip(np.rint(np.ldexp(gain.astype(np.float64), gain_frac)), -LIMBS_MAX, LIMBS_MAX).astype(np.int16)
    return {"head": None, "final_norm_frac": frac, "final_gain": values, "final_gain_frac": gain_frac,
            "final_frac": final_frac}
