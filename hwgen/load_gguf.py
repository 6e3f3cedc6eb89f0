"""GGUF files of the llama architecture, plain or quantised."""

from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel, LazyTensors
from hwgen.model_config import ModelConfig, file_names, size_problems, tensor_problems
from hwgen.tokenizer import Tokenizer

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
OUTSIDE = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
INSIDE = {
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v",
    "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}
ROPE_FACTORS = "rope_freqs.weight"
# Metadata under `llama.` -> the one value with which a model computes plain Llama.
PLAIN = {
    "expert_count": 0, "rope.scaling.type": "none", "rope.scale_linear": 1.0, "attention.causal": True,
    "attention.clamp_kqv": 0.0, "attention.max_alibi_bias": 0.0, "attention.scale": 0.0, "logit_scale": 1.0,
    "embedding_scale": 1.0, "residual_scale": 1.0, "use_parallel_residual": False,
}
SIZES = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "context_length")
OPTIONAL_SIZES = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
                  "attention.sliding_window")
NAMES = {
    "vocab": f"rows of {OUTSIDE['embed']}", "hidden": "llama.embedding_length", "layers": "llama.block_count",
    "heads": "llama.attention.head_count", "kv_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.attention.key_length", "ffn": "llama.feed_forward_length", "max_context": "llama.context_length",
    "norm_eps": "llama.attention.layer_norm_rms_epsilon", "rope_theta": "llama.rope.freq_base",
    "bos": "tokenizer.ggml.bos_token_id", "eos": "tokenizer.ggml.eos_token_id (or eot, eom)"}
DAMAGE = (ValueError, LookupError, OverflowError, TypeError, MemoryError)


def load_gguf(path: Path, *, weights: bool = True) -> FloatModel:
    """Reads a GGUF file; see `hwgen.load.load`."""
    reader, fields = _open(path)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(path, fields, stored)
    tensors = _tensors(path, stored, config) if weights else {}
    return FloatModel(config, tensors, Tokenizer.from_gguf(fields), str(path))


def _open(path: Path) -> tuple[GGUFReader, dict]:
    try:
        reader = GGUFReader(path)
        return reader, {key: field.contents() for key, field in reader.fields.items()}
    except DAMAGE as error:  # What the library runs into when sizes in the file point outside it.
        raise HwgenError(f"GGUF file {str(path)!r} is truncated or damaged ({error})") from error


def _config(path: Path, fields: dict, stored: dict) -> ModelConfig:
    wrong = _wrong_types(fields)
    problems = wrong or _unsupported(fields, stored)
    lacking = [f"llama.{name}" for name in (*SIZES, "attention.layer_norm_rms_epsilon")
               if fields.get(f"llama.{name}") is None]
    lacking += [] if OUTSIDE["embed"] in stored else [f"tensor {OUTSIDE['embed']}"]
    if lacking and not problems:
        problems.append(f"it lacks {', '.join(lacking)}")
    if not lacking and not wrong:
        config, more = _sizes(fields, stored)
        problems += more
    if problems:
        raise HwgenError(f"Model {str(path)!r} is not supported: {'; '.join(problems)}")
    return config


def _wrong_types(fields: dict) -> list[str]:
    whole = [f"llama.{name}" for name in (*SIZES, *OPTIONAL_SIZES)]
    whole += ["split.count", *(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "eom"))]
    numbers = ["llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"]
    kinds = [("one whole number", (int,), whole), ("one number", (int, float), numbers)]
    return [f"{name} must be {words}, not {fields[name]!r}" for words, types, names in kinds for name in names
            if name in fields and type(fields[name]) not in types]


def _unsupported(fields: dict, stored: dict) -> list[str]:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        return [f"general.architecture must be 'llama', not {architecture!r}"]
    problems = [f"llama.{name} must be {plain!r} or absent, not {fields[f'llama.{name}']!r}"
                for name, plain in PLAIN.items() if fields.get(f"llama.{name}", plain) != plain]
    # without a type the factor would scale positions linearly
    if "llama.rope.scaling.type" not in fields and fields.get("llama.rope.scaling.factor", 1.0) not in (0.0, 1.0):
        problems.append("llama.rope.scaling.factor must be 1 or absent without a llama.rope.scaling.type, not "
                        f"{fields['llama.rope.scaling.factor']!r}")
    window, context = fields.get("llama.attention.sliding_window"), fields.get("llama.context_length", 0)
    if window and window < context:
        problems.append(f"llama.attention.sliding_window must be absent or at least {context}, not {window}")
    if fields.get("split.count", 1) > 1:
        problems.append(f"split.count must be 1 (join the parts first), not {fields['split.count']}")
    if ROPE_FACTORS in stored and stored[ROPE_FACTORS].tensor_type.name not in TYPES:
        problems.append(f"tensor {ROPE_FACTORS} must be F32, not {stored[ROPE_FACTORS].tensor_type.name}")
    return problems


def _sizes(fields: dict, stored: dict) -> tuple[ModelConfig | None, list[str]]:
    def get(name, default=None):
        return fields.get(f"llama.{name}", default)

    hidden, heads = get("embedding_length"), get("attention.head_count")
    head_dim = get("attention.key_length", get("rope.dimension_count"))
    if head_dim is None:
        if heads < 1 or hidden % heads:
            return None, [f"llama.attention.key_length must be given where llama.embedding_length {hidden} is not "
                          f"a multiple of llama.attention.head_count {heads}"]
        head_dim = hidden // heads
    problems = [f"llama.{name} must equal the head size {head_dim}, not {get(name)}"
                for name in ("rope.dimension_count", "attention.value_length") if get(name, head_dim) != head_dim]
    eos = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    eos = tuple(dict.fromkeys(token for token in eos if token is not None))
    config = ModelConfig(
        vocab=int(stored[OUTSIDE["embed"]].shape[-1]), hidden=hidden, layers=get("block_count"), heads=heads,
        kv_heads=get("attention.head_count_kv", heads), head_dim=head_dim, ffn=get("feed_forward_length"),
        norm_eps=float(get("attention.layer_norm_rms_epsilon")), max_context=get("context_length"),
        tied=OUTSIDE["head"] not in stored, attention_bias="blk.0.attn_q.bias" in stored,
        output_bias="blk.0.attn_output.bias" in stored, mlp_bias="blk.0.ffn_gate.bias" in stored,
        bos=fields.get("tokenizer.ggml.bos_token_id"), eos_ids=eos,
        rope_theta=float(get("rope.freq_base", 10000.0)), rope_factors=_rope_factors(stored),
    )
    return config, problems + size_problems(config, NAMES)


def _rope_factors(stored: dict) -> tuple[float, ...] | None:
    if ROPE_FACTORS not in stored:
        return None
    factors = stored[ROPE_FACTORS]
    if factors.tensor_type.name not in TYPES:
        return None
    return tuple(dequantize(factors.data, factors.tensor_type).astype(float).ravel().tolist())


def _tensors(path: Path, stored: dict, config: ModelConfig) -> LazyTensors:
    names = file_names(config, OUTSIDE, "blk", INSIDE)
    found = {name: (tuple(reversed(tensor.shape.tolist())), tensor.tensor_type.name)
             for name, tensor in stored.items()}
    if problems := tensor_problems(config, names, found, TYPES, (ROPE_FACTORS,)):
        raise HwgenError(f"Model {str(path)!r} has unusable weights: {'; '.join(problems)}")
    readers = {name: partial(_read, stored[file].data, stored[file].tensor_type, _permuted_heads(name, config))
               for name, file in names.items()}
    return LazyTensors(readers, repr(str(path)))


def _permuted_heads(name: str, config: ModelConfig) -> int:
    """Number of heads whose rows are permuted in the file, 0 where none are."""
    part = name.rpartition(".")[2].removesuffix("_bias")
    return {"q": config.heads, "k": config.kv_heads}.get(part, 0)


def _read(data: np.ndarray, kind: GGMLQuantizationType, permuted_heads: int) -> np.ndarray:
    array = np.array(dequantize(data, kind), np.float32)
    if not permuted_heads:
        return array
    # GGUF rotates neighbouring rows (2i, 2i+1); the canonical order has the pair half a head apart.
    pairs = array.reshape(permuted_heads, -1, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
