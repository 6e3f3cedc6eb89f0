"""What a Llama-family model is: its sizes, its options, and the name and shape of every weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from hwgen.arithmetic.mx import LIMBS_MAX
from hwgen.errors import listed, shown
from hwgen.isa import ENDS

LARGEST = {
    "vocab": 1 << 24, "hidden": 1 << 20, "layers": 1 << 12, "heads": 1 << 12, "kv_heads": 1 << 12, "head_dim": 1 << 16,
    "ffn": 1 << 20, "max_context": 1 << 30,
}
"""Sizes beyond which a file is damaged rather than a model large."""
EPSILON_SUM = 15
"""The most that epsilon times the hidden size may be: the integer graph has four bits before its binary point."""
ROPE_FRACTION = 14
"""Fraction bits of cosines and sines in the integer graph."""
ROPE_ATTENTION_MAX = LIMBS_MAX / (1 << ROPE_FRACTION)
"""What RoPE may multiply queries and keys by, so that the table fits."""
ROPE_FACTOR_MIN, ROPE_FACTOR_MAX = 1e-9, 1e9
"""What numbers are of RoPE that are factors."""
_LATER = ("rope_attention", "window", "rope_context")
"""Fields that are left out of a dictionary where they say nothing: Q files of before them keep their signatures."""


@dataclass(frozen=True)
class Llama3Scaling:
    """The `llama3` rope scaling: low frequencies divided by `factor`, high ones kept, a ramp between.

    The ramp runs over wavelengths from `original_context / high_freq` to `original_context / low_freq`.
    """

    factor: float
    low_freq: float
    high_freq: float
    original_context: int


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of one model.

    `eos_ids` holds every id that ends a text. `rope_factors`, one per frequency, are divisors of
    the frequencies; at most one of them and `rope_scaling` is set. `rope_attention` multiplies cosines and sines.
    `window`: positions that a token sees, where some layers see no more and it is below `max_context`. `rope_context`:
    positions up to which the divisors are these. Within both, and within `max_context`, the model is plain Llama.
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    norm_eps: float
    max_context: int
    tied: bool
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    bos: int | None = None
    rope_theta: float = 10000.0
    rope_scaling: Llama3Scaling | None = None
    rope_factors: tuple[float, ...] | None = None
    eos_ids: tuple[int, ...] = ()
    rope_attention: float = 1.0
    window: int | None = None
    rope_context: int | None = None

    def longest_context(self) -> tuple[int, str]:
        """The most positions that a chip can be built for, and what limits them."""
        limits = [(self.max_context, "the model's maximum"), (self.window, "the model's sliding window"),
                  (self.rope_context, "beyond it the model turns by other RoPE factors")]
        return min((limit for limit in limits if limit[0] is not None), key=lambda limit: limit[0])

    def parameters(self) -> int:
        """Exact count of weights, biases and gains included; a tied head counts once."""
        return sum(math.prod(shape) for shape in tensor_shapes(self).values())

    def to_dict(self) -> dict:
        """Plain values, ready for JSON. They keep the first end as `eos`, which signatures of graphs cover."""
        plain = {name: type(self).__dataclass_fields__[name].default for name in _LATER}
        values = asdict(self) | {"eos": next(iter(self.eos_ids), None)}
        return {name: value for name, value in values.items() if name not in plain or value != plain[name]}

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        """The inverse of `to_dict`, also after a trip through JSON."""
        values = dict(values)
        values.pop("eos", None)
        if values.get("rope_scaling") is not None:
            values["rope_scaling"] = Llama3Scaling(**values["rope_scaling"])
        if values.get("rope_factors") is not None:
            values["rope_factors"] = tuple(values["rope_factors"])
        values["eos_ids"] = tuple(values.get("eos_ids", ()))
        return cls(**values)


def end_ids(eos: int | Iterable[int] | None) -> list[int]:
    """Ids that end a run, each once: of one, several or none (None)."""
    if eos is None:
        return []
    return list(dict.fromkeys(eos if isinstance(eos, Iterable) else [eos]))


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Weight name without its layer number -> shape, for one layer."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = {
        "attn_norm": (config.hidden,), "q": (queries, config.hidden), "k": (keys, config.hidden),
        "v": (keys, config.hidden), "o": (config.hidden, queries), "ffn_norm": (config.hidden,),
        "gate": (config.ffn, config.hidden), "up": (config.ffn, config.hidden),
        "down": (config.hidden, config.ffn),
    }
    biased = ["q", "k", "v"] if config.attention_bias else []
    biased += ["o"] if config.output_bias else []
    biased += ["gate", "up", "down"] if config.mlp_bias else []
    return shapes | {f"{name}_bias": shapes[name][:1] for name in biased}


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every weight's name -> shape: `embed`, `0.attn_norm`, `0.q`, ..., `norm`, and `head` unless tied."""
    shapes = {"embed": (config.vocab, config.hidden)}
    layer = layer_shapes(config)
    for i in range(config.layers):
        shapes |= {f"{i}.{name}": shape for name, shape in layer.items()}
    shapes["norm"] = (config.hidden,)
    if not config.tied:
        shapes["head"] = (config.vocab, config.hidden)
    return shapes


def file_names(config: ModelConfig, outside: dict[str, str], layer: str, inside: dict[str, str]) -> dict[str, str]:
    """Every weight's name -> its name in a file that spells layer i's weights `{layer}.{i}.{inside[...]}.weight`."""
    names = {}
    for name in tensor_shapes(config):
        if name in outside:
            names[name] = outside[name]
        else:
            i, part = name.split(".")
            end = "bias" if part.endswith("_bias") else "weight"
            names[name] = f"{layer}.{i}.{inside[part.removesuffix('_bias')]}.{end}"
    return names


def tensor_problems(config: ModelConfig, names: dict[str, str], found: dict[str, tuple[tuple[int, ...], str]],
                    types: tuple[str, ...], ignored: tuple[str, ...]) -> list[str]:
    """Reasons why a file's tensors do not make the model.

    `names` comes from `file_names`; `found` is file name -> (shape, type). Tensors that nothing here computes with are
    a reason too, unless their names end with one of `ignored`: they show that the model only looks like Llama.
    """
    problems = []
    if missing := [file for file in names.values() if file not in found]:
        problems.append(_several("must be present", missing))
    shapes = {names[name]: shape for name, shape in tensor_shapes(config).items() if names[name] in found}
    if misshapen := [name for name, shape in shapes.items() if found[name][0] != shape]:
        wanted, actual = (", ".join(shown(list(of(name))) for name in misshapen[:3]) for of in (
            lambda name: shapes[name], lambda name: found[name][0]))
        problems.append(_several(f"must have shape {wanted}, not {actual}", misshapen))
    if unread := [name for name in shapes if found[name][1] not in types]:
        kinds = listed(sorted({found[name][1] for name in unread}))
        problems.append(_several(f"must be {', '.join(types)}, not {kinds}", unread))
    known = set(names.values())
    if extra := sorted(file for file in found if file not in known and not file.endswith(ignored)):
        problems.append(_several("must be absent in a Llama model", extra))
    return problems


def _several(rule: str, names: list[str]) -> str:
    return f"{'tensors' if len(names) > 1 else 'tensor'} {listed(names)} {rule}"


def size_problems(config: ModelConfig, names: Mapping[str, str]) -> list[str]:
    """Reasons why the sizes cannot form a model; empty if they can. `names`: a field's name in the model's file."""
    problems = [
        f"{names[name]} must be 1 to {limit}, not {shown(value)}"
        for name, limit in LARGEST.items() if not 1 <= (value := getattr(config, name)) <= limit
    ]
    if problems:
        return problems
    for name, tokens in (("bos", (config.bos,)), ("eos", config.eos_ids)):
        outside = [token for token in tokens if token is not None and not 0 <= token < config.vocab]
        if outside:
            problems.append(f"{names[name]} must be 0 to {config.vocab - 1}, not {shown(outside[0])}")
    if (count := len(end_ids(config.eos_ids))) > ENDS:
        problems.append(f"{names['eos']} must be at most {ENDS} ids, not {count}")
    if config.head_dim % 2:
        problems.append(f"{names['head_dim']} must be even, not {config.head_dim}")
    if config.heads % config.kv_heads:
        problems.append(f"{names['heads']} must be a multiple of {names['kv_heads']} ({config.kv_heads}), "
                        f"not {config.heads}")
    if not 0 <= config.norm_eps <= EPSILON_SUM / config.hidden:
        problems.append(f"{names['norm_eps']} must be 0 to {EPSILON_SUM} / {config.hidden}, not {config.norm_eps!r}")
    if not (config.rope_theta > 0 and math.isfinite(config.rope_theta)):
        problems.append(f"{names['rope_theta']} must be a finite number > 0, not {config.rope_theta!r}")
    return problems + _rope_problems(config)


def _rope_problems(config: ModelConfig) -> list[str]:
    problems = []
    scaling = config.rope_scaling
    if scaling and not (scaling.factor > 0 and 0 < scaling.low_freq < scaling.high_freq):
        problems.append("llama3 rope scaling must have positive values with low_freq_factor < high_freq_factor, not "
                        f"factor {scaling.factor:g}, low {scaling.low_freq:g}, high {scaling.high_freq:g}")
    if scaling and not 1 <= scaling.original_context <= LARGEST["max_context"]:
        problems.append(f"original_max_position_embeddings must be 1 to {LARGEST['max_context']}, "
                        f"not {shown(scaling.original_context)}")
    factors = config.rope_factors
    if factors is not None and (len(factors) != config.head_dim // 2 or not all(f >= ROPE_FACTOR_MIN for f in factors)):
        problems.append(f"rope factors must be {config.head_dim // 2} positive numbers, not {len(factors)} numbers "
                        f"from {min(factors, default=0)!r}")
    if not 0 < config.rope_attention <= ROPE_ATTENTION_MAX:
        problems.append("RoPE's attention factor must be above 0 and at most "
                        f"{ROPE_ATTENTION_MAX:.4f} (cosines and sines times it are stored as Q1.14), "
                        f"not {config.rope_attention:.6g}")
    return problems
