"""What a model asks of a chip, from its config.json alone: operators, parameters, bytes, cache growth, hazards."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from explore.operator import Operator
from explore.program_shape import ProgramShape, program_shape
from explore.vision import VisionTower, read_vision
from hwgen.errors import HwgenError
from hwgen.hf_config import json_object, parse_config
from hwgen.integer_graph import MATRICES, IntegerGraph, is_graph_file
from hwgen.load import load
from hwgen.model_config import ModelConfig
from hwgen.quantize import narrow_matrices

SHIPPED = Path(__file__).parent / "workloads"
WIDE = "mxint8"
"""The format of matrices where none is asked for."""
KEY_BLOCK_BYTES = 33
"""32 elements of a key row and their scale."""
VALUE_BLOCK_BYTES = 36
"""32 bare elements of a value row and its scale, an int32 in vector memory."""


@dataclass(frozen=True)
class Workload:
    """A language model with its sizes, and the vision tower before it where there is one.

    `mxfp4` names the matrices in that format, as `IntegerGraph.mxfp4` does: a choice made when quantising. `context`:
    the positions that a Q file was quantised for, the most that a chip of it can have; None where there is no Q yet.
    `notes`: what a user must know about how the model was read, a sentence each.
    """

    name: str
    config: ModelConfig
    vision: VisionTower | None = None
    mxfp4: frozenset[str] = frozenset()
    context: int | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    layers = property(lambda self: self.config.layers)
    hidden = property(lambda self: self.config.hidden)
    ffn = property(lambda self: self.config.ffn)
    heads = property(lambda self: self.config.heads)
    kv_heads = property(lambda self: self.config.kv_heads)
    head_dim = property(lambda self: self.config.head_dim)
    vocab = property(lambda self: self.config.vocab)
    tied = property(lambda self: self.config.tied)
    max_context = property(lambda self: self.context or self.config.longest_context()[0])

    @property
    def why_no_longer(self) -> str:
        """What ends the context before the model's own longest, in brackets; empty where nothing does."""
        longest, limit = self.config.longest_context()
        return f" ({limit})" if self.max_context == longest < self.config.max_context else ""

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """Matrix products of one token with weights, in the classes by which hwgen places their rows.

        `o` counts as ffn: its rows are split with those of `down`, so that a tile keeps its slice of the residual.
        """
        c, each = self.config, {"count": self.config.layers, "copies": self.config.layers}
        queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
        found = (
            Operator("embed", "vocabulary", c.vocab, c.hidden, 1, gather=True),
            Operator("qkv", "attention", queries + 2 * keys, c.hidden, after=("embed", "down"), bias=c.attention_bias,
                     **each),
            Operator("o", "ffn", c.hidden, queries, after=("values",), bias=c.output_bias, **each),
            Operator("gate_up", "ffn", 2 * c.ffn, c.hidden, after=("o",), bias=c.mlp_bias, **each),
            Operator("down", "ffn", c.hidden, c.ffn, after=("gate_up",), bias=c.mlp_bias, **each),
            Operator("head", "vocabulary", c.vocab, c.hidden, 1, ("down",), copies=0 if c.tied else 1),
        )
        return tuple(replace(o, narrow=o.name.split("_")[0] in self.mxfp4) for o in found)

    def cached_operators(self, position: int) -> tuple[Operator, ...]:
        """Products of one token at `position` (from 0) with its cache: one for every layer and query head."""
        c, seen = self.config, position + 1
        each = {"count": c.layers * c.heads, "copies": 0, "cached": True}
        return (Operator("scores", "attention", seen, c.head_dim, after=("qkv",), **each),
                Operator("values", "attention", c.head_dim, seen, after=("scores",), **each))

    @cached_property
    def parameters(self) -> int:
        """Exact count, vision tower included; a tied head counts once."""
        return self.config.parameters() + (self.vision.parameters if self.vision else 0)

    @property
    def weight_elements(self) -> int:
        """Elements of the language part's matrices, which all lie in weight ROM; gains are folded into them."""
        return sum(o.weights for o in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the language part's matrices, scales, biases and the padding of their rows included."""
        return sum(o.bytes for o in self.operators)

    @property
    def vision_weight_bytes(self) -> int:
        """The same of the vision tower in MXINT8, were it built of the same lanes; 0 without one."""
        return sum(o.bytes for o in self.vision.operators) if self.vision else 0

    def macs_per_token(self, position: int) -> int:
        """Multiply-accumulates of one token at `position` (from 0), head included."""
        return sum(o.macs for o in self.operators + self.cached_operators(position))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that the cache grows by with every position, one copy of every head."""
        blocks = self.layers * self.kv_heads * -(-self.head_dim // 32)
        return blocks * (KEY_BLOCK_BYTES + VALUE_BLOCK_BYTES)

    @property
    def kv_bytes_fp16(self) -> int:
        """The same with two bytes an element: 128 KiB for Llama 3.1 8B."""
        return 4 * self.layers * self.kv_heads * self.head_dim

    def bytes_per_token(self, position: int) -> int:
        """Bytes read for one token at `position`: every weight once (one row of the embedding), and the cache."""
        once = sum(o.bytes if not o.gather else o.bytes // o.rows for o in self.operators)
        head = self.operators[0].bytes if self.tied else 0
        return once + head + self.kv_bytes_per_token * (position + 1)

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the prompt; 0 without a vision tower."""
        return self.vision.tokens if self.vision else 0

    @cached_property
    def program(self) -> ProgramShape:
        """Instructions, parallelism and hazards of one token on one tile."""
        return program_shape(self.layers, self.heads, self.kv_heads)


def shipped_workloads() -> tuple[str, ...]:
    """Names that `read_workload` knows without a file."""
    return tuple(sorted(file.stem for file in SHIPPED.glob("*.json")))


def read_workload(model: str | Path, *, weights: str | None = None, head: str | None = None) -> Workload:
    """The workload of a shipped name, a Hugging Face folder or config file (no weights needed), GGUF or Q file.

    `weights` and `head` are formats as `hwgen.quantize.quantize` takes them, None its default; a Q file has its own,
    and its context. Raises HwgenError for a name or file that is none of these, for other formats than a Q file's own,
    and for sizes that are lacking or cannot work.
    """
    path = Path(model)
    if path.is_file() and is_graph_file(path):
        graph = IntegerGraph.load(path)
        _check_formats(graph, weights, head, str(model))
        return Workload(path.stem, graph.config, mxfp4=graph.mxfp4, context=graph.context)
    found = _read(path, str(model))
    return replace(found, mxfp4=narrow_matrices(found.config, weights or WIDE, head or WIDE))


def _check_formats(graph: IntegerGraph, weights: str | None, head: str | None, model: str) -> None:
    """Raise HwgenError where other formats are asked for than those of a Q file, which are facts of it."""
    own = {"weights": "mxfp4" if graph.mxfp4.intersection(MATRICES) else WIDE,
           "head": "mxfp4" if "embed" in graph.mxfp4 else WIDE}
    for part, asked in (("weights", weights), ("head", head)):
        if asked is not None and narrow_matrices(graph.config, **own | {part: asked}) != graph.mxfp4:
            raise HwgenError(f"--{part} must be {own[part]}, as {model} was quantised with, not {asked}")


def _read(path: Path, model: str) -> Workload:
    if model.lower() in shipped_workloads() and not path.exists():
        return _from_json(SHIPPED / f"{model.lower()}.json", model.lower())
    if path.is_dir() and (path / "config.json").is_file():
        return _from_json(path / "config.json", path.resolve().name)
    if path.is_file() and path.suffix == ".json":
        return _from_json(path, path.resolve().parent.name if path.name == "config.json" else path.stem)
    if path.is_file():
        loaded = load(path, weights=False)
        return Workload(path.stem, loaded.config, notes=loaded.notes)
    raise HwgenError(f"Workload must be a config.json, a model folder or file, or one of "
                     f"{', '.join(shipped_workloads())}, not {model!r}")


def _from_json(file: Path, name: str) -> Workload:
    raw = json_object(file)
    config = parse_config(raw, name)
    return Workload(name, config, read_vision(raw, config.hidden, name))
