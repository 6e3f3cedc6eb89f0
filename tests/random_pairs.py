"""Random (model, design) pairs over all ranges that are accepted, with weights that include large outliers."""

from itertools import product

import numpy as np

from hwgen.arithmetic.mxfp4 import FORMATS
from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, TileClass
from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel
from hwgen.integer_graph import IntegerGraph, shape_only
from hwgen.manifest import chip_spec
from hwgen.model_config import ModelConfig, tensor_shapes
from hwgen.noc.network import FLIT_BITS, ROUTINGS, VIRTUAL_CHANNELS, channel_classes
from hwgen.quantize import quantize

MESHES = ((1, 1), (1, 5), (3, 2), (2, 2), (2, 1), (4, 2), (3, 3))
HEAD_DIMS = (24, 8, 16, 32, 6, 40, 64, 2)


def _accepted(routing, channels, multicast):
    try:
        return bool(channel_classes(routing, channels, multicast))
    except ValueError:
        return False


NETWORKS = tuple(way for way in product(ROUTINGS, VIRTUAL_CHANNELS, (False, True)) if _accepted(*way))
"""Every (routing, virtual channels, multicast) that goes together: 24."""


def random_config(rng: np.random.Generator) -> ModelConfig:
    """A small Llama-shaped model; odd sizes are as likely as round ones."""
    kv_heads = int(rng.choice([1, 2, 3]))
    group = int(rng.choice([1, 2, 3]))
    return ModelConfig(
        vocab=int(rng.choice([97, 64, 200, 1000])), hidden=int(rng.choice([40, 32, 64, 72, 96])),
        layers=int(rng.choice([1, 2])), heads=kv_heads * group, kv_heads=kv_heads,
        head_dim=int(rng.choice(HEAD_DIMS)), ffn=int(rng.choice([172, 48, 64, 100, 33])),
        norm_eps=float(rng.choice([1e-5, 1e-6])), max_context=int(rng.choice([7, 20, 33, 48, 70])),
        tied=bool(rng.integers(2)), attention_bias=bool(rng.integers(3) == 0), output_bias=bool(rng.integers(4) == 0),
        mlp_bias=bool(rng.integers(4) == 0), rope_theta=float(rng.choice([10000.0, 500000.0])))


def random_model(config: ModelConfig, rng: np.random.Generator) -> FloatModel:
    """Normal weights; now and then a matrix has outliers large enough for sums to wrap."""
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        values = rng.normal(size=shape) * (1.0 if "norm" in name else 0.7 / np.sqrt(shape[-1]))
        if rng.integers(4) == 0:
            hits = rng.integers(0, values.size, max(1, values.size // 200))
            values.reshape(-1)[hits] *= 10.0 ** rng.integers(1, 5)
        tensors[name] = values.astype(np.float32)
    return FloatModel(config, tensors, None, "random")


def random_design(rng: np.random.Generator) -> Design:
    """A mesh with one to three tile classes."""
    width, height = MESHES[rng.integers(len(MESHES))]
    count = int(min(width * height, rng.integers(1, 4)))
    classes = tuple(
        TileClass(f"c{i}", fetch=int(rng.choice([1, 2, 4])), stations=int(rng.integers(1, 9)),
                  vlen=int(rng.choice([8, 16, 32, 64, 128, 256])), lanes=int(rng.choice([1, 2, 4, 8, 16])),
                  shares=(1.0, 1.0, 1.0) if i == 0 else tuple(float(s) for s in rng.integers(0, 3, 3)))
        for i in range(count))
    nodes = rng.permutation([*range(count), *rng.integers(0, count, width * height - count)])
    flit_bits, buffer_flits = int(rng.choice([32, 64, 128, 256])), int(rng.integers(2, 17))
    multicast = bool(rng.integers(4) > 0)
    routing = str(rng.choice(ROUTINGS))
    channels = int(rng.choice([v for r, v, m in NETWORKS if (r, m) == (routing, multicast)]))
    return Design(width, height, flit_bits=512 if rng.integers(6) == 0 else flit_bits, buffer_flits=buffer_flits,
                  multicast=multicast, routing=routing, virtual_channels=channels, clock_mhz=100, classes=classes,
                  node_class=tuple(int(n) for n in nodes))


def random_shape(seed: int) -> tuple[ModelConfig, Design]:
    """Model sizes and design of a seed; designs that the compiler refuses (too short a buffer) are redrawn."""
    config, rng = random_config(np.random.default_rng([seed, 0])), np.random.default_rng([seed, 1])
    while True:
        design = random_design(rng)
        try:
            chip_spec(compile_chip(shape_only(config, config.max_context), design))
        except HwgenError:
            continue
        return config, design


def random_formats(seed: int) -> dict[str, str]:
    """Formats of a seed's weights, as `quantize` takes them."""
    rng = np.random.default_rng([seed, 4])
    return {part: str(rng.choice(FORMATS)) for part in ("weights", "head")}


def random_pair(seed: int) -> tuple[IntegerGraph, Design]:
    """The quantised model and the design of a seed."""
    config, design = random_shape(seed)
    model = random_model(config, np.random.default_rng([seed, 2]))
    return quantize(model, **random_formats(seed), allow_wrap=True), design


def long_pair(vlen: int, context: int) -> tuple[IntegerGraph, Design]:
    """A model with odd heads on two tiles, to be run to the end of its context: operands of more than one word."""
    config = ModelConfig(vocab=97, hidden=40, layers=1, heads=3, kv_heads=1, head_dim=24, ffn=48, norm_eps=1e-5,
                         max_context=context, tied=True)
    design = Design(2, 1, flit_bits=64, classes=(TileClass("c0", fetch=2, stations=3, vlen=vlen, lanes=4),))
    return quantize(random_model(config, np.random.default_rng(vlen)), allow_wrap=True), design


def network_pair(number: int) -> tuple[IntegerGraph, Design]:
    """A small model on NETWORKS[number]; buffers, widths, registers and stages go round with the number."""
    routing, channels, multicast = NETWORKS[number]
    width, height = ((2, 2), (3, 2), (2, 3))[number % 3]
    config = ModelConfig(vocab=97, hidden=40, layers=2, heads=3, kv_heads=1, head_dim=8, ffn=48, norm_eps=1e-5,
                         max_context=20, tied=bool(number % 2))
    classes = (TileClass("c0", fetch=2, stations=3, vlen=8, lanes=2),
               TileClass("c1", fetch=1, stations=2, vlen=8, lanes=1, shares=(0.0, 1.0, 1.0)))
    design = Design(width, height, flit_bits=FLIT_BITS[number % 5], buffer_flits=(3, 2, 4, 6)[number % 4],
                    routing=routing, virtual_channels=channels, multicast=multicast, clock_mhz=100, classes=classes,
                    link_registers=number // 4 % 3, port_flits=((("west", 9),), ())[number % 2],
                    pipeline_stages=1 + number // 2 % 2, node_class=(1, *[0] * (width * height - 1)))
    return quantize(random_model(config, np.random.default_rng(number)), allow_wrap=True), design


def random_prompt(config: ModelConfig, seed: int) -> list[int]:
    """One token, a few, or up to the context limit."""
    rng, context = np.random.default_rng([seed, 3]), config.max_context
    length = int(rng.choice([1, 3, 12, context if context <= 20 else 5]))
    return [int(t) for t in rng.integers(0, config.vocab, min(length, context))]
