"""What a Hugging Face config.json says of a model of the Llama family.

Accepted are the model types that compute exactly what Llama does: llama, mistral and qwen2, these two up to the length
of their sliding windows. Of a vision-language model around one of them (idefics3 and smolvlm, as SmolVLM is) it is the
language part. Where a key is absent, what transformers takes for it is taken.
"""

import json
import math
from pathlib import Path

from hwgen.errors import HwgenError, shown
from hwgen.model_config import (
    LARGEST,
    ROPE_FACTOR_MAX,
    ROPE_FACTOR_MIN,
    Llama3Scaling,
    ModelConfig,
    end_ids,
    size_problems,
)
from hwgen.rope import longrope_attention, yarn_attention, yarn_divisors

MODEL_TYPES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
VISION_TYPES = {"idefics3": "Idefics3ForConditionalGeneration", "smolvlm": "SmolVLMForConditionalGeneration"}
"""Models of images and text whose language part, `text_config`, is one of MODEL_TYPES."""
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
            "max_position_embeddings")
NAMES = {
    "vocab": "vocab_size", "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "ffn": "intermediate_size",
    "max_context": "max_position_embeddings", "norm_eps": "rms_norm_eps", "rope_theta": "rope_theta",
    "bos": "bos_token_id", "eos": "eos_token_id"}
SLIDING_WINDOW, MAX_WINDOW_LAYERS = 4096, 28
"""What Mistral and Qwen2 take where a config.json says nothing."""
LLAMA3_NUMBERS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ROPE_NUMBERS = {
    "default": (), "linear": ("factor",), "dynamic": ("factor",), "llama3": LLAMA3_NUMBERS,
    "yarn": ("factor", "original_max_position_embeddings"), "longrope": ("original_max_position_embeddings",)}
"""Type of RoPE -> numbers that its parameters must hold besides the base."""
ROPE_OPTIONS = {"yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
                "longrope": ("attention_factor", "factor")}
ROPE_FACTORS = ("factor", "attention_factor", "beta_fast", "beta_slow")


def json_object(file: Path) -> dict:
    """The object in a JSON file. Raises HwgenError for any other contents."""
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be JSON, not damaged ({error})") from error
    if not isinstance(raw, dict):
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be a JSON object, not {shown(raw)}")
    return raw


def parse_config(raw: dict, name: str) -> ModelConfig:
    """The sizes and options in the contents of a config.json, of its language part where it has a vision tower.

    `name` is used in the `HwgenError`, which has every reason against the model.
    """
    if has_vision(raw):
        raw = _language_part(raw, name)
    wrong = _wrong_types(raw)
    problems = wrong or _unsupported(raw)
    lacking = [name for name in REQUIRED if raw.get(name) is None]
    # Only llama takes the number of heads for absent key-value heads; the others have fixed numbers.
    if raw.get("model_type") in ("mistral", "qwen2") and raw.get("num_key_value_heads") is None:
        lacking.append("num_key_value_heads")
    if lacking:
        problems.append(f"config.json lacks {', '.join(lacking)}")
    if not lacking and not wrong:
        config, more = _config(raw)
        problems += more
    if problems:
        raise HwgenError(f"Model {name!r} is not supported: {'; '.join(problems)}")
    return config


def has_vision(raw: dict) -> bool:
    """Whether the model of this config.json has a vision tower before its language part."""
    return raw.get("model_type") in tuple(VISION_TYPES)


def are_token_ids(value) -> bool:
    """Whether it is a whole number, a list of them, or None."""
    return all(map(_is_whole, value if isinstance(value, list) else () if value is None else (value,)))


def _language_part(raw: dict, name: str) -> dict:
    """`text_config` as the config.json of a model of its own; what it lacks of these may stand beside it."""
    text, architecture = raw.get("text_config"), VISION_TYPES[raw["model_type"]]
    if raw.get("architectures") not in (None, [], [architecture]):
        problem = f"architectures must be [{architecture!r}], not {shown(raw['architectures'])}"
    elif not isinstance(text, dict):
        problem = f"text_config must be an object, not {shown(text)}"
    elif None not in (ties := [part.get("tie_word_embeddings") for part in (raw, text)]) and ties[0] != ties[1]:
        problem = (f"tie_word_embeddings must be the same in text_config as beside it, {shown(ties[0])}, "
                   f"not {shown(ties[1])}")
    else:
        problem = None
    if problem:
        raise HwgenError(f"Model {name!r} is not supported: {problem}")
    shared = {key: raw.get(key) for key in
              ("tie_word_embeddings", "quantization_config", "bos_token_id", "eos_token_id")}
    # the class named there is that of the language part inside the other model
    own = {key: value for key, value in text.items()
           if key != "architectures" and (value is not None or key not in shared)}
    # of ends of text the outer ones count first
    outer = {key: value for key, value in shared.items() if key == "eos_token_id" and value is not None}
    return shared | own | outer


def _unsupported(raw: dict) -> list[str]:
    """Reasons in options, as far as sizes do not matter."""
    problems = []
    kind = raw.get("model_type")
    if kind not in tuple(MODEL_TYPES):
        problems.append(f"model_type must be {', '.join(MODEL_TYPES)}, {', '.join(VISION_TYPES)}, not {shown(kind)}")
    elif raw.get("architectures") not in (None, [], [MODEL_TYPES[kind]]):
        problems.append(f"architectures must be [{MODEL_TYPES[kind]!r}], not {shown(raw['architectures'])}")
    if (activation := raw.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act must be 'silu', not {shown(activation)}")
    if raw.get("quantization_config") is not None:
        problems.append("quantization_config must be absent (weights in F32, F16 or BF16)")
    problems += [f"{name} must be absent (no mixture of experts), not {shown(raw[name])}"
                 for name in ("num_local_experts", "num_experts", "n_routed_experts")
                 if raw.get(name) not in (None, 0)]
    return problems


def _wrong_types(raw: dict) -> list[str]:
    kinds = [("a whole number", _is_whole, [*REQUIRED, "num_key_value_heads", "head_dim", "bos_token_id"]),
             ("a finite number", _is_finite, ["rms_norm_eps", "rope_theta"]),
             ("true or false", lambda value: type(value) is bool,
              ["tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"])]
    problems = [f"{name} must be {words}, not {shown(raw[name])}" for words, right, names in kinds for name in names
                if raw.get(name) is not None and not right(raw[name])]
    if not are_token_ids(raw.get("eos_token_id")):
        problems.append(f"eos_token_id must be a whole number or a list of them, not {shown(raw['eos_token_id'])}")
    return problems


def _is_whole(value) -> bool:
    return type(value) is int


def _is_finite(value) -> bool:
    """Whether it is a number that a float can hold: JSON has larger ones, and Python reads Infinity and NaN, too."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _config(raw: dict) -> tuple[ModelConfig | None, list[str]]:
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    head_dim = raw.get("head_dim")
    if head_dim is None:
        if heads < 1 or hidden % heads:
            return None, [f"head_dim must be given where hidden_size {shown(hidden)} is not a multiple of "
                          f"num_attention_heads {shown(heads)}"]
        head_dim = hidden // heads
    rope, problems = _rope(raw, head_dim)
    window, more = _window(raw)
    eps = raw.get("rms_norm_eps")
    llama = raw.get("model_type") == "llama"
    bias = llama and bool(raw.get("attention_bias", False))
    config = ModelConfig(
        vocab=raw["vocab_size"], hidden=hidden, layers=raw["num_hidden_layers"], heads=heads,
        kv_heads=heads if raw.get("num_key_value_heads") is None else raw["num_key_value_heads"],
        head_dim=head_dim, ffn=raw["intermediate_size"], norm_eps=1e-6 if eps is None else float(eps),
        max_context=raw["max_position_embeddings"], tied=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=bias or raw.get("model_type") == "qwen2", output_bias=bias,
        mlp_bias=llama and bool(raw.get("mlp_bias", False)), bos=raw.get("bos_token_id"),
        eos_ids=tuple(end_ids(raw.get("eos_token_id"))), window=window, **rope)
    return config, problems + more + size_problems(config, NAMES)


def _window(raw: dict) -> tuple[int | None, list[str]]:
    """Positions that a token sees where some layers see less than the longest context, and problems."""
    kind, layers = raw.get("model_type"), raw.get("layer_types")
    if layers is not None:
        kinds = ("full_attention", "sliding_attention")
        strange = [layer for layer in layers if layer not in kinds] if isinstance(layers, list) else [layers]
        if strange:
            return None, [f"layer_types must be a list of {' and '.join(map(repr, kinds))}, not {shown(strange[0])}"]
        if len(layers) != raw["num_hidden_layers"]:
            return None, [f"layer_types must be a list of num_hidden_layers {shown(raw['num_hidden_layers'])}, "
                          f"not {len(layers)}"]
        slides = "sliding_attention" in layers
    elif kind == "qwen2":
        first = raw.get("max_window_layers", MAX_WINDOW_LAYERS)
        if not _is_whole(first):
            return None, [f"max_window_layers must be a whole number, not {shown(first)}"]
        slides = raw.get("use_sliding_window", False) and first < raw["num_hidden_layers"]
    else:
        slides = kind == "mistral"
    window = raw.get("sliding_window", None if kind == "llama" else SLIDING_WINDOW)
    if kind == "qwen2" and not raw.get("use_sliding_window", False):
        window = None
    if not slides or (window is None and layers is None):
        return None, []
    if window is None:
        return None, [f"layer_types must all be 'full_attention' without a sliding window, not {shown(layers)}"]
    if not _is_whole(window) or window < 1:
        return None, [f"sliding_window must be null or a whole number from 1, not {shown(window)}"]
    return (window if window < raw["max_position_embeddings"] else None), []


def _rope(raw: dict, head_dim: int) -> tuple[dict, list[str]]:
    """The fields of a ModelConfig about RoPE, and problems.

    They come from `rope_parameters` (newer) or `rope_theta` and `rope_scaling` (older).
    """
    given = [raw[name] for name in ("rope_parameters", "rope_scaling") if raw.get(name)]
    if len(given) == 2 and given[0] != given[1]:
        return {}, ["rope_parameters and rope_scaling must be equal where both are given"]
    rope = given[0] if given else {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        return {}, [f"rope parameters must be one object for all layers, not {shown(rope)}"]
    kind, longest = rope.get("rope_type", rope.get("type", "default")), raw["max_position_embeddings"]
    rope = {"rope_theta": raw.get("rope_theta", 10000.0), "original_max_position_embeddings": longest} | rope
    if raw.get("original_max_position_embeddings") is not None:
        rope["original_max_position_embeddings"] = raw["original_max_position_embeddings"]
    partial_factor = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    problems = []
    if partial_factor not in (None, 1.0):
        problems.append(f"partial_rotary_factor must be 1, not {shown(partial_factor)}")
    if kind not in tuple(ROPE_NUMBERS):
        problems.append(f"rope_type must be {', '.join(map(repr, ROPE_NUMBERS))}, not {shown(kind)}")
        return {}, problems
    problems += _rope_problems(rope, kind, head_dim)
    return ({}, problems) if problems else (_rope_fields(rope, kind, head_dim, longest), [])


def _rope_problems(rope: dict, kind: str, head_dim: int) -> list[str]:
    """Why the parameters of this type are none."""
    wanted = ("rope_theta", *ROPE_NUMBERS[kind])
    lacking = [name for name in wanted if rope.get(name) is None]
    held = [name for name in (*wanted, *ROPE_OPTIONS.get(kind, ())) if rope.get(name) is not None]
    wrong = [name for name in held if not _is_finite(rope[name])]
    problems = []
    if lacking:
        problems.append(f"rope parameters must hold the numbers {', '.join(lacking)}")
    problems += [f"{name} must be a finite number, not {shown(rope[name])}" for name in wrong]
    if kind != "llama3":
        problems += [f"{name} must be {ROPE_FACTOR_MIN:g} to {ROPE_FACTOR_MAX:g}, not {shown(rope[name])}"
                     for name in ROPE_FACTORS if name in held and name not in wrong
                     and not ROPE_FACTOR_MIN <= rope[name] <= ROPE_FACTOR_MAX]
        problems += [f"{name} must be at least 0, not {shown(rope[name])}" for name in ("mscale", "mscale_all_dim")
                     if name in held and name not in wrong and rope[name] < 0]
    original, least = "original_max_position_embeddings", 2 if kind == "longrope" else 1
    if original in held and original not in wrong and not least <= rope[original] <= LARGEST["max_context"]:
        problems.append(f"{original} must be {least} to {LARGEST['max_context']}, not {shown(rope[original])}")
    if kind == "yarn" and "rope_theta" in held and "rope_theta" not in wrong and not rope["rope_theta"] > 1:
        problems.append(f"rope_theta must be above 1 for yarn, not {shown(rope['rope_theta'])}")
    for name in ("short_factor", "long_factor") if kind == "longrope" else ():
        factors = rope.get(name)
        if not isinstance(factors, list) or len(factors) != head_dim // 2 or not all(map(_is_finite, factors)):
            problems.append(f"{name} must be a list of {shown(head_dim // 2)} numbers, one for each frequency, "
                            f"not {shown(factors)}")
    return problems


def _rope_fields(rope: dict, kind: str, head_dim: int, longest: int) -> dict:
    """The fields of a ModelConfig about RoPE; `longest` is the model's longest context."""
    theta = float(rope["rope_theta"])
    fields = {"rope_theta": theta}
    if kind == "llama3":
        *numbers, original = (rope[name] for name in LLAMA3_NUMBERS)
        return fields | {"rope_scaling": Llama3Scaling(*map(float, numbers), int(original))}
    # `dynamic` is plain up to the longest context, and nothing longer is built
    if kind in ("default", "dynamic") or not 2 <= head_dim <= LARGEST["head_dim"]:
        return fields
    original = rope["original_max_position_embeddings"]
    if kind == "linear":
        return fields | {"rope_factors": (float(rope["factor"]),) * (head_dim // 2)}
    attention = rope.get("attention_factor")
    if kind == "yarn":
        factor = rope["factor"]
        ends = (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
        divisors = yarn_divisors(theta, head_dim, factor, original, *ends, whole=bool(rope.get("truncate", True)))
        if attention is None:
            attention = yarn_attention(factor, rope.get("mscale"), rope.get("mscale_all_dim"))
        return fields | {"rope_factors": divisors, "rope_attention": float(attention)}
    short, long = (tuple(map(float, rope[name])) for name in ("short_factor", "long_factor"))
    if attention is None:
        attention = longrope_attention(rope.get("factor") or longest / original, original)
    return fields | {"rope_factors": short, "rope_attention": float(attention),
                     "rope_context": int(original) if long != short and original < longest else None}
