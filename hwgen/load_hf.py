"""Hugging Face folders: config.json and safetensors of the Llama family.

Accepted are the model types that compute exactly what Llama does: llama, mistral and qwen2 without sliding windows.
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel, LazyTensors
from hwgen.model_config import Llama3Scaling, ModelConfig, size_problems, tensor_shapes
from hwgen.tokenizer import Tokenizer

MODEL_TYPES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
            "max_position_embeddings")
OUTSIDE = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
INSIDE = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def load_hf(folder: Path, *, weights: bool = True) -> FloatModel:
    """Reads a Hugging Face folder; see `hwgen.load.load`."""
    config = read_config(folder)
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file.is_file() else None
    tensors = _tensors(folder, config) if weights else {}
    return FloatModel(config, tensors, tokenizer, str(folder))


# config.json

def read_config(folder: Path) -> ModelConfig:
    """The sizes and options in a folder's config.json, or an `HwgenError` with every reason against it."""
    file = folder / "config.json"
    if not file.is_file():
        raise HwgenError(f"Model folder {str(folder)!r} must hold a config.json (or give a GGUF file)")
    raw = _json_object(file)
    problems = _unsupported(raw)
    lacking = [name for name in REQUIRED if raw.get(name) is None]
    # Only llama takes the number of heads for absent key-value heads; the others have fixed numbers.
    if raw.get("model_type") in ("mistral", "qwen2") and raw.get("num_key_value_heads") is None:
        lacking.append("num_key_value_heads")
    if lacking:
        problems.append(f"config.json lacks {', '.join(lacking)}")
    wrong = _wrong_types(raw)
    problems += wrong
    if not lacking and not wrong:
        config, more = _config(raw)
        problems += more
    if problems:
        raise HwgenError(f"Model {str(folder)!r} is not supported: {'; '.join(problems)}")
    return config


def _json_object(file: Path) -> dict:
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be JSON, not damaged ({error})") from error
    if not isinstance(raw, dict):
        raise HwgenError(f"{file.name} of {str(file.parent)!r} must be a JSON object, not {type(raw).__name__}")
    return raw


def _unsupported(raw: dict) -> list[str]:
    """Reasons in options, as far as sizes do not matter."""
    problems = []
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        problems.append(f"model_type must be {', '.join(MODEL_TYPES)}, not {kind!r}")
    architectures = raw.get("architectures") or []
    if kind in MODEL_TYPES and architectures and architectures != [MODEL_TYPES[kind]]:
        problems.append(f"architectures must be [{MODEL_TYPES[kind]!r}], not {architectures!r}")
    if (activation := raw.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act must be 'silu', not {activation!r}")
    if raw.get("quantization_config") is not None:
        problems.append("quantization_config must be absent (weights in F32, F16 or BF16)")
    if any((raw.get(name) or 0) > 1 for name in ("num_local_experts", "num_experts", "n_routed_experts")):
        problems.append("mixture of experts must be absent")
    return problems + _sliding(raw, kind)


def _sliding(raw: dict, kind: str | None) -> list[str]:
    layers = raw.get("layer_types") or []
    if any(layer != "full_attention" for layer in layers):
        return ["layer_types must all be 'full_attention'"]
    if kind not in ("mistral", "qwen2"):
        return []
    window = raw.get("sliding_window", 4096)
    used = kind == "mistral" or raw.get("use_sliding_window", False)
    if used and window is not None and window < raw.get("max_position_embeddings", math.inf):
        return [f"sliding_window must be absent or at least max_position_embeddings, not {window}"]
    return []


def _wrong_types(raw: dict) -> list[str]:
    whole = [*REQUIRED, "num_key_value_heads", "head_dim", "bos_token_id"]
    problems = [f"{name} must be a whole number, not {raw[name]!r}" for name in whole
                if raw.get(name) is not None and type(raw[name]) is not int]
    problems += [f"{name} must be a number, not {raw[name]!r}" for name in ("rms_norm_eps", "rope_theta")
                 if raw.get(name) is not None and type(raw[name]) not in (int, float)]
    if any(type(token) is not int for token in _ids(raw.get("eos_token_id"))):
        problems.append(f"eos_token_id must be a whole number or a list of them, not {raw['eos_token_id']!r}")
    return problems


def _ids(value) -> tuple:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _config(raw: dict) -> tuple[ModelConfig | None, list[str]]:
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    head_dim = raw.get("head_dim")
    if head_dim is None:
        if heads < 1 or hidden % heads:
            return None, [f"head_dim must be given where hidden_size {hidden} is not a multiple of "
                          f"num_attention_heads {heads}"]
        head_dim = hidden // heads
    theta, scaling, problems = _rope(raw)
    llama, eos = raw.get("model_type") == "llama", _ids(raw.get("eos_token_id"))
    bias = llama and bool(raw.get("attention_bias", False))
    config = ModelConfig(
        vocab=raw["vocab_size"], hidden=hidden, layers=raw["num_hidden_layers"], heads=heads,
        kv_heads=heads if raw.get("num_key_value_heads") is None else raw["num_key_value_heads"],
        head_dim=head_dim, ffn=raw["intermediate_size"], norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        max_context=raw["max_position_embeddings"], tied=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=bias or raw.get("model_type") == "qwen2", output_bias=bias,
        mlp_bias=llama and bool(raw.get("mlp_bias", False)), bos=raw.get("bos_token_id"),
        eos=eos[0] if eos else None, eos_ids=eos, rope_theta=theta, rope_scaling=scaling,
    )
    return config, problems + size_problems(config)


def _rope(raw: dict) -> tuple[float, Llama3Scaling | None, list[str]]:
    """Base, scaling and problems, from `rope_parameters` (newer) or `rope_theta` and `rope_scaling` (older)."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        return 1.0, None, [f"rope parameters must be an object, not {rope!r}"]
    rope = {"rope_theta": raw.get("rope_theta", 10000.0)} | rope
    problems = []
    partial_factor = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if partial_factor not in (None, 1.0):
        problems.append(f"partial_rotary_factor must be 1, not {partial_factor!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling, fields = None, ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    wanted = ("rope_theta", *fields) if kind == "llama3" else ("rope_theta",)
    wrong = [name for name in wanted if type(rope.get(name)) not in (int, float)]
    if wrong:
        problems.append(f"rope parameters must hold the numbers {', '.join(wrong)}")
    elif kind == "llama3":
        scaling = Llama3Scaling(*(float(rope[name]) for name in fields[:3]), int(rope[fields[3]]))
    if kind not in ("default", "llama3"):
        problems.append(f"rope_type must be 'default' or 'llama3', not {kind!r}")
    return 1.0 if wrong else float(rope["rope_theta"]), scaling, problems


# safetensors

@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        data = np.memmap(self.file, DTYPES[self.dtype], "r", self.offset, self.shape)
        if self.dtype != "BF16":
            return np.array(data, np.float32)
        # BF16 is the upper half of a float32.
        return (data.astype(np.uint32) << 16).view(np.float32)


def _tensors(folder: Path, config: ModelConfig) -> LazyTensors:
    entries = {}
    for file in _weight_files(folder):
        entries |= _header(file)
    problems, readers = [], {}
    for name, shape in tensor_shapes(config).items():
        entry = entries.get(file_name(name))
        if entry is None:
            problems.append(f"tensor {file_name(name)} is missing")
        elif entry.shape != shape:
            problems.append(f"tensor {file_name(name)} must have shape {list(shape)}, not {list(entry.shape)}")
        elif entry.dtype not in DTYPES:
            problems.append(f"tensor {file_name(name)} must be {', '.join(DTYPES)}, not {entry.dtype}")
        else:
            readers[name] = partial(_read, entry)
    problems += _extra(entries, config)
    if problems:
        raise HwgenError(f"Model {str(folder)!r} has unusable weights: {'; '.join(problems)}")
    return LazyTensors(readers, repr(str(folder)))


def _read(entry: _Entry) -> np.ndarray:
    return entry.read()


def _extra(entries: dict, config: ModelConfig) -> list[str]:
    """Tensors that nothing here computes with: a sign of an architecture that only looks like Llama."""
    known = {file_name(name) for name in tensor_shapes(config)} | {OUTSIDE["head"]}
    extra = sorted(name for name in entries if name not in known and not name.endswith("rotary_emb.inv_freq"))
    if not extra:
        return []
    return [f"{len(extra)} tensors must be absent in a Llama model, such as {extra[0]}"]


def file_name(name: str) -> str:
    """The canonical tensor name as Hugging Face spells it."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    layer, part = name.split(".")
    stem, bias = part.removesuffix("_bias"), part.endswith("_bias")
    return f"model.layers.{layer}.{INSIDE[stem]}.{'bias' if bias else 'weight'}"


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise HwgenError(f"{index.name} of {str(folder)!r} must have a weight_map of names to files")
        files = [folder / shard for shard in sorted(set(shards.values()))]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise HwgenError(f"Model folder {str(folder)!r} must hold {', '.join(missing)}")
    return files


def _header(file: Path) -> dict[str, _Entry]:
    """The tensors of a safetensors file. Read here because the library's numpy side knows no BF16."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise HwgenError(f"Weight file {str(file)!r} is truncated or no safetensors file: its header does not "
                             f"fit in {size} bytes")
        text = stream.read(length)
    try:
        raw = json.loads(text)
        entries = {name: _Entry(file, 8 + length + value["data_offsets"][0], tuple(value["shape"]), value["dtype"])
                   for name, value in raw.items() if name != "__metadata__"}
        end = 8 + length + max((v["data_offsets"][1] for k, v in raw.items() if k != "__metadata__"), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise HwgenError(f"Weight file {str(file)!r} must be safetensors, not damaged in its header") from error
    if end > size:
        raise HwgenError(f"Weight file {str(file)!r} is truncated: it must hold {end} bytes, not {size}")
    return entries
