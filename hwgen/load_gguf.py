"""GGUF files that compute what Llama does, plain or quantised, in one file or split."""

import re
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, ReaderTensor
from gguf.quants import dequantize

from hwgen.errors import HwgenError, listed, shown
from hwgen.float_model import FloatModel, LazyTensors
from hwgen.isa import ENDS
from hwgen.model_config import (
    LARGEST,
    ROPE_FACTOR_MAX,
    ROPE_FACTOR_MIN,
    ModelConfig,
    file_names,
    size_problems,
    tensor_problems,
    tensor_shapes,
)
from hwgen.rope import yarn_attention, yarn_divisors
from hwgen.tokenizer import Tokenizer, gguf_ends, gguf_notes


def _is_read(kind: GGMLQuantizationType) -> bool:
    """Whether the library makes numbers of this type: asked with one block of zeros."""
    block = np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8)
    try:
        dequantize(block, kind)
    except NotImplementedError:
        return False
    return True


TYPES = tuple(kind.name for kind in GGMLQuantizationType if _is_read(kind))


@dataclass(frozen=True)
class _Architecture:
    """How files of one `general.architecture` differ from others.

    `paired`: rows of q and k lie as the rotation takes them, i and i + d/2 next to each other. `biased`: q, k and v
    have biases in every file; elsewhere a bias that a file has nowhere is zero.
    """

    paired: bool
    biased: bool


ARCHITECTURES = {"llama": _Architecture(paired=True, biased=False), "qwen2": _Architecture(paired=False, biased=True)}
VERSIONS = (2, 3)
OUTSIDE = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
INSIDE = {
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v",
    "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}
ROPE_FACTORS, ROPE_SHORT, ROPE_LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
ROPE_TYPES = ("none", "linear", "yarn", "longrope")
YARN_FAST, YARN_SLOW = 32.0, 1.0
"""YaRN's ramp in every model: llama.cpp reads no other for these architectures."""
# Metadata under the architecture's name -> the one value with which a model computes plain Llama.
PLAIN = {
    "expert_count": 0, "attention.causal": True,
    "attention.clamp_kqv": 0.0, "attention.max_alibi_bias": 0.0, "attention.scale": 0.0, "logit_scale": 1.0,
    "embedding_scale": 1.0, "residual_scale": 1.0, "use_parallel_residual": False,
}
SIZES = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "context_length")
OPTIONAL_SIZES = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
                  "attention.sliding_window", "rope.scaling.original_context_length")
ROPE_NUMBERS = ("rope.freq_base", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor",
                "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast",
                "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier")
NORM_EPS = "attention.layer_norm_rms_epsilon"
NAMES = {
    "hidden": "embedding_length", "layers": "block_count", "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv", "head_dim": "attention.key_length", "ffn": "feed_forward_length",
    "max_context": "context_length", "norm_eps": NORM_EPS, "rope_theta": "rope.freq_base"}
GENERAL_NAMES = {
    "vocab": f"rows of {OUTSIDE['embed']}", "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id (or eot, eom)"}
TOKEN_IDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "eom", "fim_pad", "fim_rep",
                                                                 "fim_sep"))
PART_NAME = re.compile(r"(.*)-[0-9]{5}-of-[0-9]{5}\.gguf", re.DOTALL)
PIECE = 1 << 22
"""Bytes of two tensors that are compared at a time."""
DAMAGE = (ValueError, LookupError, OverflowError, TypeError, MemoryError, AttributeError, RecursionError)


def load_gguf(path: Path, *, weights: bool = True) -> FloatModel:
    """Reads a GGUF file, or all files of a split one given any of them; see `hwgen.load.load`."""
    fields, stored = _whole(path)
    config = _config(path, fields, stored)
    tensors = _tensors(path, fields, stored, config) if weights else {}
    return FloatModel(config, tensors, Tokenizer.from_gguf(fields), str(path), _notes(fields, config))


def _notes(fields: dict, config: ModelConfig) -> tuple[str, ...]:
    left = gguf_ends(fields, config.vocab)[1][ENDS:]
    return gguf_notes(fields) + ((f"more than {ENDS} tokens end a text; a run does not end after {shown(list(left))}",)
                                 if left else ())


# files

class _Reader(GGUFReader):
    """The library's reader, which takes what lies behind the end of a file for empty."""

    def _get(self, offset, dtype, count=1, override_order=None):
        values = super()._get(offset, dtype, count, override_order)
        if len(values) != count:
            raise ValueError("it ends too early")
        return values


@dataclass(frozen=True)
class _File:
    path: Path
    fields: dict
    tensors: list[ReaderTensor]

    def number(self, name: str, default: int) -> int:
        """A whole number of the metadata."""
        value = self.fields.get(name, default)
        if type(value) is not int:
            raise HwgenError(f"{name} of GGUF file {str(self.path)!r} must be one whole number, not {shown(value)}")
        return value


def _open(path: Path) -> _File:
    _check_header(path)
    try:
        with np.errstate(all="ignore"):  # of sizes that leave 64 bits
            reader = _Reader(path)
        return _File(path, {key: _contents(field) for key, field in reader.fields.items()}, reader.tensors)
    except DAMAGE as error:  # What the library runs into when sizes in the file point outside it.
        if unknown := re.search(r"([0-9]+)\)? is not a valid GGMLQuantizationType", str(error)):
            raise HwgenError(f"GGUF file {str(path)!r} must hold tensors of known types, not of number {unknown[1]}: "
                             "it is damaged, or its type is newer or older than what is read") from error
        raise HwgenError(f"GGUF file {str(path)!r} is truncated or damaged ({str(error)[:200]}){_join_hint(path)}"
                         ) from error


def _check_header(path: Path):
    """HwgenError for an order of bytes or a version that is not read, by the version, which is stored after GGUF."""
    with open(path, "rb") as file:
        start = file.read(8)
    if len(start) < 8 or start[:4] != b"GGUF":
        raise HwgenError(f"GGUF file {str(path)!r} is truncated or damaged (it must begin with GGUF and a version)")
    (version,), (swapped,) = struct.unpack("<I", start[4:]), struct.unpack(">I", start[4:])
    if version & 0xFFFF == 0 and swapped:
        raise HwgenError(f"GGUF file {str(path)!r} must be little-endian, not big-endian; `gguf-convert-endian FILE "
                         "little` of the gguf package converts a copy of it in place")
    if version not in VERSIONS:
        raise HwgenError(f"Version of GGUF file {str(path)!r} must be {' or '.join(map(str, VERSIONS))}, not {version}")


def _contents(field):
    """A field's value; text that is no UTF-8 with escapes in place of its bytes, as only a tokenizer may mind."""
    try:
        return field.contents()
    except UnicodeDecodeError:
        texts = [bytes(field.parts[i]).decode("utf-8", "backslashreplace") for i in field.data]
        return texts if field.types[0].name == "ARRAY" else texts[0]


def _join_hint(path: Path) -> str:
    """What to do with a file that was cut with other tools, as its name says."""
    return "; join its parts into one file first" if re.search(r"\.gguf.*(part|split)", path.name) else ""


def _whole(path: Path) -> tuple[dict, dict[str, ReaderTensor]]:
    """The metadata, and all tensors by name."""
    file = _open(path)
    if file.number("split.count", 1) <= 1:
        return file.fields, {tensor.name: tensor for tensor in file.tensors}
    parts = _parts(file)
    stored = {tensor.name: tensor for part in parts for tensor in part.tensors}
    held = sum(len(part.tensors) for part in parts)
    wanted = parts[0].number("split.tensors.count", held)
    if not len(stored) == held == wanted:
        raise HwgenError(f"Split GGUF model {str(path)!r} must have {wanted} tensors (split.tensors.count), each in "
                         f"one of its {len(parts)} files, not {held} of {len(stored)} names")
    return parts[0].fields, stored


def _parts(file: _File) -> list[_File]:
    """All files of a split model, in order, given any of them."""
    count, no = file.number("split.count", 1), file.number("split.no", 0)
    named = PART_NAME.fullmatch(file.path.name)

    def path(i: int) -> Path:
        return file.path.with_name(f"{named[1]}-{i + 1:05}-of-{count:05}.gguf")

    if not named or path(no).name != file.path.name:
        raise HwgenError(f"File of a split GGUF model must be named NAME-{no + 1:05}-of-{count:05}.gguf, as its "
                         f"split.no and split.count say, not {file.path.name!r}")
    if missing := [path(i).name for i in range(count) if not path(i).is_file()]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""  # names of files in full, however long
        raise HwgenError(f"Split GGUF model {str(file.path)!r} must have {', '.join(missing[:3])}{more} beside it")
    parts = [file if i == no else _open(path(i)) for i in range(count)]
    for i, part in enumerate(parts):
        numbers = part.number("split.no", 0), part.number("split.count", 1)
        if numbers != (i, count):
            raise HwgenError(f"GGUF file {str(part.path)!r} must have split.no {i} and split.count {count}, not "
                             f"{numbers[0]} and {numbers[1]}")
    return parts


# metadata

def _config(path: Path, fields: dict, stored: dict) -> ModelConfig:
    problems = _other_kind(fields)
    if not problems:
        problems, config = _checked(fields["general.architecture"], fields, stored)
    if problems:
        raise HwgenError(f"Model {str(path)!r} is not supported: {'; '.join(problems)}")
    return config


def _other_kind(fields: dict) -> list[str]:
    """The reason why nothing else in the file matters."""
    if (kind := fields.get("general.type", "model")) != "model":
        merge = " (merge the adapter into its base first)" if kind == "adapter" else ""
        return [f"general.type must be 'model' or absent{merge}, not {shown(kind)}"]
    if (architecture := fields.get("general.architecture")) not in tuple(ARCHITECTURES):
        return [f"general.architecture must be {' or '.join(map(repr, ARCHITECTURES))}, not {shown(architecture)}"]
    return []


def _checked(architecture: str, fields: dict, stored: dict) -> tuple[list[str], ModelConfig | None]:
    """Reasons against the model, and its configuration where they allow one."""
    wrong, config = _wrong_types(architecture, fields), None
    problems = wrong or _unsupported(architecture, fields, stored)
    lacking = [f"{architecture}.{name}" for name in (*SIZES, NORM_EPS) if fields.get(f"{architecture}.{name}") is None]
    lacking += [] if OUTSIDE["embed"] in stored else [f"tensor {OUTSIDE['embed']}"]
    if lacking and not problems:
        problems.append(f"it lacks {', '.join(lacking)}")
    if not lacking and not wrong:
        config, more = _sizes(architecture, fields, stored)
        problems += more
    return problems, config


def _wrong_types(architecture: str, fields: dict) -> list[str]:
    whole = [*(f"{architecture}.{name}" for name in (*SIZES, *OPTIONAL_SIZES)), *TOKEN_IDS]
    numbers = [f"{architecture}.{name}" for name in (NORM_EPS, *ROPE_NUMBERS)]
    kinds = [("one whole number", (int,), whole), ("one number", (int, float), numbers)]
    return [f"{name} must be {words}, not {shown(fields[name])}" for words, types, names in kinds for name in names
            if name in fields and type(fields[name]) not in types]


def _unsupported(architecture: str, fields: dict, stored: dict) -> list[str]:
    def get(name, default=None):
        return fields.get(f"{architecture}.{name}", default)

    problems = [f"{architecture}.{name} must be {plain!r} or absent, not {shown(get(name))}"
                for name, plain in PLAIN.items() if get(name, plain) != plain]
    if (window := get("attention.sliding_window", 0)) < 0:
        problems.append(f"{architecture}.attention.sliding_window must be 0 (none), more or absent, not {window}")
    problems += [f"tensor {name} must be F32, not {stored[name].tensor_type.name}"
                 for name in (ROPE_FACTORS, ROPE_SHORT, ROPE_LONG)
                 if name in stored and stored[name].tensor_type.name not in TYPES]
    return problems + _rope_problems(architecture, fields, stored)


def _rope_problems(architecture: str, fields: dict, stored: dict) -> list[str]:
    """Why what the metadata say about RoPE cannot be built."""
    def get(name, default=None):
        return fields.get(f"{architecture}.rope.{name}", default)

    if (kind := get("scaling.type", "linear")) not in ROPE_TYPES:
        return [f"{architecture}.rope.scaling.type must be {', '.join(map(repr, ROPE_TYPES))} or absent, "
                f"not {shown(kind)}"]
    problems = [f"{architecture}.rope.{name} must be {ROPE_FACTOR_MIN:g} to {ROPE_FACTOR_MAX:g} or absent, "
                f"not {shown(get(name))}" for name in ("scaling.factor", "scale_linear", "scaling.attn_factor")
                if get(name) and not ROPE_FACTOR_MIN <= get(name) <= ROPE_FACTOR_MAX]
    original, longest = get("scaling.original_context_length"), LARGEST["max_context"]
    if original is not None and not 1 <= original <= longest:
        problems.append(f"{architecture}.rope.scaling.original_context_length must be 1 to {longest}, not {original}")
    lacking = [name for name in (ROPE_SHORT, ROPE_LONG) if kind == "longrope" and name not in stored]
    if lacking:
        problems.append(f"tensors must be present for {architecture}.rope.scaling.type 'longrope': {listed(lacking)}")
    return problems + (_yarn_problems(architecture, fields) if kind == "yarn" and not problems else [])


def _yarn_problems(architecture: str, fields: dict) -> list[str]:
    """Numbers of YaRN that readers of these files disagree about."""
    def get(name, default):
        return fields.get(f"{architecture}.rope.{name}", default)

    stated = yarn_attention(_rope_scale(architecture, fields))
    plain = {"yarn_ext_factor": (1.0, -1.0), "yarn_attn_factor": (1.0, stated), "yarn_beta_fast": (YARN_FAST,),
             "yarn_beta_slow": (YARN_SLOW,), "yarn_log_multiplier": (0.0,)}
    problems = [f"{architecture}.rope.scaling.{name} must be {values[0]:g} or absent, "
                f"not {shown(get(f'scaling.{name}', None))}" for name, values in plain.items()
                if not any(np.isclose(get(f"scaling.{name}", values[0]), value, rtol=1e-4) for value in values)]
    if not get("freq_base", 10000.0) > 1:
        problems.append(f"{architecture}.rope.freq_base must be above 1 for 'yarn', "
                        f"not {shown(get('freq_base', None))}")
    return problems


def _rope_scale(architecture: str, fields: dict) -> float:
    """What positions are divided by; a factor of 0 counts as none."""
    factor = fields.get(f"{architecture}.rope.scaling.factor", fields.get(f"{architecture}.rope.scale_linear"))
    return float(factor or 1.0)


def _rope(architecture: str, fields: dict, stored: dict, head_dim: int, context: int) -> dict:
    """The fields of a ModelConfig about RoPE, of metadata in which `_rope_problems` finds none."""
    def get(name, default=None):
        return fields.get(f"{architecture}.rope.{name}", default)

    kind, scale = get("scaling.type", "linear"), _rope_scale(architecture, fields)
    theta, attention = float(get("freq_base", 10000.0)), float(get("scaling.attn_factor", 1.0))
    original = max(1, get("scaling.original_context_length", context))
    divisors, limit = _vector(stored, ROPE_FACTORS), None
    if kind == "longrope":
        divisors, long = _vector(stored, ROPE_SHORT), _vector(stored, ROPE_LONG)
        limit = original if original < context and not np.array_equal(divisors, long) else None
    if kind == "yarn":
        attention *= yarn_attention(scale)
    right_size = 2 <= head_dim <= LARGEST["head_dim"]
    if kind == "yarn" and right_size and theta > 1:
        stretched = np.array(yarn_divisors(theta, head_dim, scale, original, YARN_FAST, YARN_SLOW))
        divisors = stretched if divisors is None or divisors.shape != stretched.shape else divisors * stretched
    elif kind not in ("none", "yarn") and right_size and scale != 1:
        divisors = (np.ones(head_dim // 2) if divisors is None else divisors) * scale
    return {"rope_theta": theta, "rope_factors": None if divisors is None else tuple(divisors.tolist()),
            "rope_attention": attention, "rope_context": limit}


def _sizes(architecture: str, fields: dict, stored: dict) -> tuple[ModelConfig | None, list[str]]:
    def get(name, default=None):
        return fields.get(f"{architecture}.{name}", default)

    hidden, heads = get("embedding_length"), get("attention.head_count")
    head_dim = get("attention.key_length", get("rope.dimension_count"))
    if head_dim is None:
        if heads < 1 or hidden % heads:
            return None, [f"{architecture}.attention.key_length must be given where {architecture}.embedding_length "
                          f"{hidden} is not a multiple of {architecture}.attention.head_count {heads}"]
        head_dim = hidden // heads
    problems = [f"{architecture}.{name} must equal the head size {head_dim}, not {get(name)}"
                for name in ("rope.dimension_count", "attention.value_length") if get(name, head_dim) != head_dim]
    vocab, biases = int(stored[OUTSIDE["embed"]].shape[-1:].sum()), _biases(stored)
    bos, ends = gguf_ends(fields, vocab)
    window = get("attention.sliding_window", 0)
    config = ModelConfig(
        vocab=vocab, hidden=hidden, layers=get("block_count"), heads=heads,
        kv_heads=get("attention.head_count_kv", heads), head_dim=head_dim, ffn=get("feed_forward_length"),
        norm_eps=float(get(NORM_EPS)), max_context=get("context_length"), tied=_is_tied(stored),
        attention_bias=ARCHITECTURES[architecture].biased or bool(biases & {"q", "k", "v"}), output_bias="o" in biases,
        mlp_bias=bool(biases & {"gate", "up", "down"}), bos=bos, eos_ids=ends[:ENDS],
        window=window if 0 < window < get("context_length") else None,
        **({} if _rope_problems(architecture, fields, stored) else _rope(
            architecture, fields, stored, head_dim, get("context_length"))),
    )
    names = {field: f"{architecture}.{name}" for field, name in NAMES.items()} | GENERAL_NAMES
    return config, problems + size_problems(config, names)


def _biases(stored: dict) -> set[str]:
    """Names of the parts of a layer (of INSIDE) that have a bias somewhere in the file."""
    found = {match[1] for name in stored if (match := re.fullmatch(r"blk\.[0-9]+\.(\w+)\.bias", name))}
    return {part for part, name in INSIDE.items() if name in found}


def _vector(stored: dict, name: str) -> np.ndarray | None:
    """The numbers of a tensor as float64; None where it is absent or of a type that is refused."""
    tensor = stored.get(name)
    if tensor is None or tensor.tensor_type.name not in TYPES:
        return None
    return dequantize(tensor.data, tensor.tensor_type).astype(float).ravel()


def _is_tied(stored: dict) -> bool:
    """Whether the embedding is the head: no head is stored, or the same one. Read in pieces."""
    embed, head = (stored.get(OUTSIDE[name]) for name in ("embed", "head"))
    if head is None:
        return True
    if head.tensor_type != embed.tensor_type or head.data.shape != embed.data.shape:
        return False
    rows = max(1, PIECE // max(1, embed.data[:1].nbytes))
    return all(np.array_equal(embed.data[start : start + rows], head.data[start : start + rows])
               for start in range(0, len(embed.data), rows))


# weights

def _tensors(path: Path, fields: dict, stored: dict, config: ModelConfig) -> LazyTensors:
    architecture = fields["general.architecture"]
    kind, shapes = ARCHITECTURES[architecture], tensor_shapes(config)
    names = file_names(config, OUTSIDE, "blk", INSIDE)
    zeros = set() if kind.biased else {name for name in names if _lacks_bias(name, _biases(stored))}
    found = {name: (tuple(reversed(tensor.shape.tolist())), tensor.tensor_type.name)
             for name, tensor in stored.items()}
    found |= {names[name]: (shapes[name], TYPES[0]) for name in zeros}
    if config.tied:
        found.pop(OUTSIDE["head"], None)
    rope = (ROPE_SHORT, ROPE_LONG) if fields.get(f"{architecture}.rope.scaling.type") == "longrope" else (ROPE_FACTORS,)
    if problems := tensor_problems(config, names, found, TYPES, rope):
        raise HwgenError(f"Model {str(path)!r} has unusable weights: {'; '.join(problems)}")
    readers = {name: partial(np.zeros, shapes[name], np.float32) if name in zeros else partial(
                   _read, stored[file].data, stored[file].tensor_type, kind.paired * _rotated_heads(name, config))
               for name, file in names.items()}
    return LazyTensors(readers, repr(str(path)))


def _lacks_bias(name: str, biases: set[str]) -> bool:
    part = name.rpartition(".")[2]
    return part.endswith("_bias") and part.removesuffix("_bias") not in biases


def _rotated_heads(name: str, config: ModelConfig) -> int:
    """Number of heads in a tensor that RoPE turns, 0 where it turns none."""
    part = name.rpartition(".")[2].removesuffix("_bias")
    return {"q": config.heads, "k": config.kv_heads}.get(part, 0)


def _read(data: np.ndarray, kind: GGMLQuantizationType, paired_heads: int) -> np.ndarray:
    with np.errstate(all="ignore"):  # what is not finite is refused by LazyTensors
        array = np.array(dequantize(data, kind), np.float32)
    if not paired_heads:
        return array
    # The file has a pair's rows as neighbours (2i, 2i+1); the canonical order has them half a head apart.
    pairs = array.reshape(paired_heads, -1, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
