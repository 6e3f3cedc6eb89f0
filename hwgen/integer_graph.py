"""The integer graph Q: everything an answer depends on, independent of any design, and its file.

Weights are MXINT8 or MXFP4 with the normalisation gains, the rotary order and all free scales folded in; exponents say
what the int16 vectors between them are worth. `Mx.length` of a matrix counts its padded columns, a bias block included.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hwgen.arithmetic.mx import BLOCK, Mx
from hwgen.arithmetic.mxfp4 import is_mxfp4
from hwgen.errors import HwgenError
from hwgen.formats import GRAPH
from hwgen.model_config import ModelConfig
from hwgen.tokenizer import Tokenizer, readable
from hwgen.whole_files import try_writing, whole_file

MATRICES = ("qkv", "o", "gate", "up", "down")
EPSILON_FRACTION = 24


@dataclass(frozen=True, eq=False)
class LayerGraph:
    """One decoder layer. Matrices are [rows, blocks, 32]; `*_frac` e: an int16 vector is worth value * 2^-e.

    `qkv` rows are group-major: for every KV head its heads / kv_heads query heads, its key, its value; query and key
    rows are in adjacent-pair order. The block after a matrix's input columns, where there is one, is its bias.
    """

    qkv: Mx
    o: Mx
    gate: Mx
    up: Mx
    down: Mx
    attn_norm_frac: int
    q_frac: int
    k_frac: int
    att_frac: int
    ffn_norm_frac: int
    silu_frac: int
    h_frac: int


LAYER_FRACS = tuple(f.name for f in fields(LayerGraph) if f.name.endswith("_frac"))


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """The whole model in integers.

    `head` is None where embedding and head are tied; then `final_gain` (int16 [hidden], worth 2^-final_gain_frac)
    multiplies the last normalised vector, and the product is worth 2^-final_frac. Untied, both are None and unused.
    `rope` is int16 [context, head_dim]: [cos0, sin0, cos1, sin1, ...] of every position in Q1.14. `mxfp4` names the
    matrices (of MATRICES in all layers alike; embed and head, where tied both) whose elements are 4-bit codes in a
    chip's ROM; the others' are 8-bit.
    """

    config: ModelConfig
    context: int
    embed: Mx
    head: Mx | None
    layers: tuple[LayerGraph, ...]
    final_norm_frac: int
    final_gain: np.ndarray | None
    final_gain_frac: int
    final_frac: int
    rope: np.ndarray
    tokenizer: Tokenizer | None = None
    mxfp4: frozenset[str] = frozenset()

    @property
    def weights(self) -> str:
        """What a chip's ROM must be made for: mxfp4 (4-bit codes as well) or mxint8."""
        return "mxfp4" if self.mxfp4 else "mxint8"

    @property
    def norm_epsilon(self) -> int:
        """C: epsilon as the sum of squares of a Q19.12 vector sees it."""
        return norm_epsilon(self.config)

    @property
    def norm_exponent(self) -> int:
        """j: the power of two next to sqrt(hidden); the rest of it is folded into the matrices."""
        return norm_exponent(self.config)

    @property
    def output(self) -> Mx:
        """The matrix that makes the logits [vocab, blocks, 32]."""
        return self.embed if self.head is None else self.head

    def has_bias(self, matrix: str) -> bool:
        """Whether `matrix` (one of qkv, o, gate, up, down) has a bias block, in every layer alike."""
        return getattr(self.layers[0], matrix).blocks > -(-matrix_shape(self.config, matrix)[1] // BLOCK)

    @cached_property
    def _header(self) -> str:
        fracs = [{name: getattr(layer, name) for name in LAYER_FRACS} for layer in self.layers]
        header = {name: getattr(self, name) for name in ("context", "final_norm_frac", "final_gain_frac", "final_frac")}
        header |= {"format": GRAPH.mark, "layers": fracs, "config": self.config.to_dict()}
        header |= {"mxfp4": sorted(self.mxfp4)} if self.mxfp4 else {}
        return json.dumps(header, sort_keys=True)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, in a fixed order: all there is besides numbers and the tokenizer."""
        tensors = {"embed": self.embed, "head": self.head}
        for i, layer in enumerate(self.layers):
            tensors |= {f"{i}.{name}": getattr(layer, name) for name in MATRICES}
        arrays = {}
        for name, tensor in tensors.items():
            if tensor is not None:
                arrays |= {f"{name}.elements": tensor.elements, f"{name}.scales": tensor.scales}
        if self.final_gain is not None:
            arrays["final_gain"] = self.final_gain
        return arrays | {"rope": self.rope}

    def signature(self) -> int:
        """CRC-32 of numbers and arrays. A shape-only graph's covers its numbers and table alone."""
        crc = zlib.crc32(self._header.encode())
        for name, array in self.arrays().items():
            crc = zlib.crc32(name.encode(), crc)
            if any(array.strides):
                crc = zlib.crc32(np.ascontiguousarray(array), crc)
        return crc

    def save(self, path: str | Path):
        """Writes the one file of this graph; the same graph gives the same bytes, and a partial file never appears.

        A tokenizer that cannot be used is left out.
        """
        path = Path(path)
        check_graph_output(path)
        tokenizer = readable(self.tokenizer)
        text = None if tokenizer is None else tokenizer.to_json()
        # One key: the library writes several in random order.
        contents = {"graph": self._header, "tokenizer": text, "signature": self.signature()}
        meta = {"hwgen": json.dumps(contents, sort_keys=True)}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays().items()}
        try:
            with whole_file(path) as partial:
                save_file(arrays, partial, metadata=meta)
        except (OSError, SafetensorError) as error:  # the library has its own words for a full disk
            reason = getattr(error, "strerror", None) or error
            raise HwgenError(f"Output must be writable, not {str(path)!r}: {reason}") from None

    @classmethod
    def load(cls, path: str | Path) -> IntegerGraph:
        """Reads a file that `save` wrote; HwgenError where it is damaged, of another kind or another version's."""
        rule = f"Integer graph must be a file that `hwgen quantize` wrote, not {str(path)!r}"
        try:
            with safe_open(path, "np") as file:
                meta = json.loads((file.metadata() or {})["hwgen"])
                header = json.loads(meta["graph"])
                GRAPH.check(header.get("format"), rule)
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            graph = _assemble(header, arrays, meta["tokenizer"])
            if graph.signature() != meta["signature"]:
                raise ValueError("its contents do not match their signature")
            return graph
        except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise HwgenError(f"{rule} ({error})") from error


def check_graph_output(path: str | Path) -> None:
    """Raise HwgenError unless `path` may and can be written: new in a folder that is there, or a file of `save`."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise HwgenError(f"Output must be in a folder that exists, not {str(path)!r}")
    if target.is_symlink() or target.exists() and not (target.is_file() and is_graph_file(target)):
        raise HwgenError(f"Output must be a new file or one that `hwgen quantize` wrote, not {str(path)!r}")
    try:
        try_writing(target.parent)
    except OSError as error:
        raise HwgenError(f"Output must be in a writable folder, not {str(path)!r}: {error.strerror}") from None


def check_fixed_context(fixed: int, asked: int | None, model: str) -> None:
    """Raise HwgenError where another context is asked for than that of a Q file, which is a fact of it."""
    if asked is not None and asked != fixed:
        raise HwgenError(f"Context must be {fixed}, as {model} was quantised for, not {asked}")


def is_graph_file(path: str | Path) -> bool:
    """Whether `path` looks like a file that `IntegerGraph.save` wrote."""
    try:
        with safe_open(path, "np") as file:
            return "hwgen" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def matrix_shape(config: ModelConfig, matrix: str) -> tuple[int, int]:
    """(rows, input columns without a bias block) of a layer's matrix."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "qkv": (queries + 2 * keys, config.hidden), "o": (config.hidden, queries), "gate": (config.ffn, config.hidden),
        "up": (config.ffn, config.hidden), "down": (config.hidden, config.ffn),
    }[matrix]


def biased(config: ModelConfig, matrix: str) -> bool:
    """Whether a layer's matrix of such a model carries a bias block."""
    return {"qkv": config.attention_bias, "o": config.output_bias}.get(matrix, config.mlp_bias)


def norm_epsilon(config: ModelConfig) -> int:
    """round(eps * hidden * 2^24)."""
    return round(config.norm_eps * config.hidden * (1 << EPSILON_FRACTION))


def norm_exponent(config: ModelConfig) -> int:
    """round(log2(sqrt(hidden)))."""
    return round(math.log2(config.hidden) / 2)


def shape_only(config: ModelConfig, context: int, mxfp4: frozenset[str] = frozenset()) -> IntegerGraph:
    """A graph of the right sizes with zero weights that take no memory: enough to lay out a chip without images."""
    layer = LayerGraph(
        **{m: _zeros(*matrix_shape(config, m), biased(config, m)) for m in MATRICES}, **dict.fromkeys(LAYER_FRACS, 12))
    gain = np.broadcast_to(np.int16(0), (config.hidden,)) if config.tied else None
    return IntegerGraph(
        config=config, context=context, embed=_zeros(config.vocab, config.hidden, False),
        head=None if config.tied else _zeros(config.vocab, config.hidden, False), layers=(layer,) * config.layers,
        final_norm_frac=12, final_gain=gain, final_gain_frac=12, final_frac=12,
        rope=np.broadcast_to(np.int16(0), (context, config.head_dim)), mxfp4=mxfp4)


def _zeros(rows: int, columns: int, bias: bool) -> Mx:
    blocks = -(-columns // BLOCK) + bias
    return Mx(np.broadcast_to(np.int8(0), (rows, blocks, BLOCK)), np.broadcast_to(np.uint8(0), (rows, blocks)),
              blocks * BLOCK)


def _assemble(header: dict, arrays: dict, tokenizer: str | None) -> IntegerGraph:
    config, mxfp4 = ModelConfig.from_dict(header["config"]), frozenset(header.get("mxfp4", ()))
    if not mxfp4 <= {"embed", "head", *MATRICES}:
        raise ValueError("a matrix in MXFP4 is unknown")

    def matrix(name: str, rows: int, columns: int, bias: bool = False) -> Mx:
        blocks = -(-columns // BLOCK) + bias
        elements, scales = arrays[f"{name}.elements"], arrays[f"{name}.scales"]
        if (elements.shape, scales.shape) != ((rows, blocks, BLOCK), (rows, blocks)):
            raise ValueError(f"{name} has the wrong shape")
        if name.split(".")[-1] in mxfp4 and not is_mxfp4(elements):
            raise ValueError(f"{name} holds more than MXFP4")
        return Mx(elements, scales, blocks * BLOCK)

    layers = tuple(
        LayerGraph(**{m: matrix(f"{i}.{m}", *matrix_shape(config, m), biased(config, m)) for m in MATRICES}, **fracs)
        for i, fracs in enumerate(header["layers"]))
    return IntegerGraph(
        config=config, context=header["context"], embed=matrix("embed", config.vocab, config.hidden),
        head=None if config.tied else matrix("head", config.vocab, config.hidden), layers=layers,
        final_norm_frac=header["final_norm_frac"], final_gain=arrays["final_gain"] if config.tied else None,
        final_gain_frac=header["final_gain_frac"], final_frac=header["final_frac"], rope=arrays["rope"], mxfp4=mxfp4,
        tokenizer=None if tokenizer is None else Tokenizer.from_json(tokenizer))
