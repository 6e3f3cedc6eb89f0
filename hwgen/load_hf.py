"""Hugging Face folders: config.json and safetensors of the Llama family.

Accepted are the model types that compute exactly what Llama does: llama, mistral and qwen2 without sliding windows.
Of a vision-language model around one of these (idefics3 and smolvlm, as SmolVLM is) the language part is read.
"""

import json
import math
from pathlib import Path
from reprlib import repr as shown

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel, LazyTensors
from hwgen.model_config import Llama3Scaling, ModelConfig, file_names, size_problems, tensor_problems
from hwgen.safetensors_file import DTYPES, stored_tensors
from hwgen.tokenizer import Tokenizer

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
OUTSIDE = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
INSIDE = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}
LANGUAGE, VISION = "model.text_model.", ("model.vision_model.", "model.connector.")
"""Beginnings of names of weights in a model of VISION_TYPES: in place of `model.`, and of those that are left out."""
VISION_NOTE = "the vision tower is left out: hwgen builds the language part"


def load_hf(folder: Path, *, weights: bool = True) -> FloatModel:
    """Reads a Hugging Face folder; see `hwgen.load.load`."""
    raw = _config_file(folder)
    config, vision = parse_config(raw, str(folder)), _has_vision(raw)
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file.is_file() else None
    tensors = _tensors(folder, config, vision) if weights else {}
    notes = (VISION_NOTE,) if vision else ()
    return FloatModel(config, tensors, tokenizer, str(folder), notes)


# config.json

def _config_file(folder: Path) -> dict:
    file = folder / "config.json"
    if not file.is_file():
        raise HwgenError(f"Model folder {str(folder)!r} must hold a config.json (or give a GGUF file)")
    return json_object(file)


def parse_config(raw: dict, name: str) -> ModelConfig:
    """The sizes and options in the contents of a config.json, of its language part where it has a vision tower.

    `name` is used in the `HwgenError`, which has every reason against the model.
    """
    if _has_vision(raw):
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


def _has_vision(raw: dict) -> bool:
    return raw.get("model_type") in tuple(VISION_TYPES)


def _language_part(raw: dict, name: str) -> dict:
    """`text_config` as the config.json of a model of its own; what it lacks of these may stand beside it."""
    text, architecture = raw.get("text_config"), VISION_TYPES[raw["model_type"]]
    if raw.get("architectures") not in (None, [], [architecture]):
        problem = f"architectures must be [{architecture!r}], not {raw['architectures']!r}"
    elif not isinstance(text, dict):
        problem = f"text_config must be an object, not {text!r}"
    elif None not in (ties := [part.get("tie_word_embeddings") for part in (raw, text)]) and ties[0] != ties[1]:
        problem = f"tie_word_embeddings must be the same in text_config as beside it, {ties[0]!r}, not {ties[1]!r}"
    else:
        problem = None
    if problem:
        raise HwgenError(f"Model {name!r} is not supported: {problem}")
    shared = ("tie_word_embeddings", "quantization_config", "bos_token_id", "eos_token_id")
    # the class named there is that of the language part inside the other model
    return {key: raw.get(key) for key in shared} | {
        key: value for key, value in text.items() if key != "architectures" and value is not None}


def json_object(file: Path) -> dict:
    """The object in a JSON file. Raises HwgenError for any other contents."""
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be JSON, not damaged ({error})") from error
    if not isinstance(raw, dict):
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be a JSON object, not {shown(raw)}")
    return raw


def _unsupported(raw: dict) -> list[str]:
    """Reasons in options, as far as sizes do not matter."""
    problems = []
    kind = raw.get("model_type")
    if kind not in tuple(MODEL_TYPES):
        problems.append(f"model_type must be {', '.join(MODEL_TYPES)}, {', '.join(VISION_TYPES)}, not {kind!r}")
    elif raw.get("architectures") not in (None, [], [MODEL_TYPES[kind]]):
        problems.append(f"architectures must be [{MODEL_TYPES[kind]!r}], not {raw['architectures']!r}")
    if (activation := raw.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act must be 'silu', not {activation!r}")
    if raw.get("quantization_config") is not None:
        problems.append("quantization_config must be absent (weights in F32, F16 or BF16)")
    problems += [f"{name} must be absent (no mixture of experts), not {raw[name]!r}"
                 for name in ("num_local_experts", "num_experts", "n_routed_experts")
                 if raw.get(name) not in (None, 0)]
    return problems + _sliding(raw, kind)


def _sliding(raw: dict, kind: str | None) -> list[str]:
    layers = raw.get("layer_types")
    if layers and not (isinstance(layers, list) and all(layer == "full_attention" for layer in layers)):
        return [f"layer_types must all be 'full_attention', not {layers!r}"]
    window, context = raw.get("sliding_window", 4096), raw.get("max_position_embeddings")
    used = kind == "mistral" or (kind == "qwen2" and raw.get("use_sliding_window", False))
    if not used or window is None or (type(window) is type(context) is int and window >= context):
        return []
    return [f"sliding_window must be null or at least max_position_embeddings {context}, not {window!r}"]


def _wrong_types(raw: dict) -> list[str]:
    kinds = [("a whole number", _is_whole, [*REQUIRED, "num_key_value_heads", "head_dim", "bos_token_id"]),
             ("a finite number", _is_finite, ["rms_norm_eps", "rope_theta"]),
             ("true or false", lambda value: type(value) is bool,
              ["tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"])]
    problems = [f"{name} must be {words}, not {shown(raw[name])}" for words, right, names in kinds for name in names
                if raw.get(name) is not None and not right(raw[name])]
    if not all(map(_is_whole, _ids(raw.get("eos_token_id")))):
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


def _ids(value) -> tuple:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _config(raw: dict) -> tuple[ModelConfig | None, list[str]]:
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    head_dim = raw.get("head_dim")
    if head_dim is None:
        if heads < 1 or hidden % heads:
            return None, [f"head_dim must be given where hidden_size {shown(hidden)} is not a multiple of "
                          f"num_attention_heads {shown(heads)}"]
        head_dim = hidden // heads
    theta, scaling, problems = _rope(raw)
    eps = raw.get("rms_norm_eps")
    llama, eos = raw.get("model_type") == "llama", _ids(raw.get("eos_token_id"))
    bias = llama and bool(raw.get("attention_bias", False))
    config = ModelConfig(
        vocab=raw["vocab_size"], hidden=hidden, layers=raw["num_hidden_layers"], heads=heads,
        kv_heads=heads if raw.get("num_key_value_heads") is None else raw["num_key_value_heads"],
        head_dim=head_dim, ffn=raw["intermediate_size"], norm_eps=1e-6 if eps is None else float(eps),
        max_context=raw["max_position_embeddings"], tied=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=bias or raw.get("model_type") == "qwen2", output_bias=bias,
        mlp_bias=llama and bool(raw.get("mlp_bias", False)), bos=raw.get("bos_token_id"),
        eos_ids=eos, rope_theta=theta, rope_scaling=scaling,
    )
    return config, problems + size_problems(config, NAMES)


def _rope(raw: dict) -> tuple[float, Llama3Scaling | None, list[str]]:
    """Base, scaling and problems, from `rope_parameters` (newer) or `rope_theta` and `rope_scaling` (older)."""
    given = [raw[name] for name in ("rope_parameters", "rope_scaling") if raw.get(name)]
    if len(given) == 2 and given[0] != given[1]:
        return 1.0, None, ["rope_parameters and rope_scaling must be equal where both are given"]
    rope = given[0] if given else {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        return 1.0, None, [f"rope parameters must be one object for all layers, not {rope!r}"]
    rope = {"rope_theta": raw.get("rope_theta", 10000.0)} | rope
    problems = []
    partial_factor = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if partial_factor not in (None, 1.0):
        problems.append(f"partial_rotary_factor must be 1, not {partial_factor!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling, fields = None, ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    wanted = ("rope_theta", *fields) if kind == "llama3" else ("rope_theta",)
    lacking = [name for name in wanted if rope.get(name) is None]
    wrong = [name for name in wanted if name not in lacking and not _is_finite(rope[name])]
    if kind not in ("default", "llama3"):
        problems.append(f"rope_type must be 'default' or 'llama3', not {kind!r}")
    if lacking:
        problems.append(f"rope parameters must hold the numbers {', '.join(lacking)}")
    problems += [f"{name} must be a finite number, not {shown(rope[name])}" for name in wrong]
    if lacking or wrong:
        return 1.0, None, problems
    if kind == "llama3":
        scaling = Llama3Scaling(*(float(rope[name]) for name in fields[:3]), int(rope[fields[3]]))
    return float(rope["rope_theta"]), scaling, problems


# weights

def _tensors(folder: Path, config: ModelConfig, vision: bool) -> LazyTensors:
    stored = {}
    for file in _weight_files(folder):
        stored |= stored_tensors(file)
    names = file_names(config, OUTSIDE, "model.layers", INSIDE)
    if vision:
        names = {name: file.replace("model.", LANGUAGE, 1) for name, file in names.items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in stored.items()
             if not (vision and name.startswith(VISION))}
    # A tied head may be stored all the same, and old files hold the rotary frequencies.
    if problems := tensor_problems(config, names, found, tuple(DTYPES), (OUTSIDE["head"], "rotary_emb.inv_freq")):
        raise HwgenError(f"Model {str(folder)!r} has unusable weights: {'; '.join(problems)}")
    return LazyTensors({name: stored[file].read for name, file in names.items()}, repr(str(folder)))


def _is_file_name(text) -> bool:
    return isinstance(text, str) and text == Path(text).name != ""


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(_is_file_name(shard) for shard in shards.values()):
            raise HwgenError(f"{index.name} of {str(folder)!r} must have a weight_map of names to files of the folder")
        files = [folder / shard for shard in sorted(set(shards.values()))]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise HwgenError(f"Model folder {str(folder)!r} must hold {', '.join(missing)}")
    return files
