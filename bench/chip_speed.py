"""Cycles of the hardware against the bound: python -m bench.chip_speed [stories|streams|layer].

Bound = sum over all matrix products, attention included, of rows * ceil(K / VLEN), divided by the number of tiles.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwgen.bound import MatrixBound
from hwgen.build_folder import read_manifest
from hwgen.design import read_design
from hwgen.float_model import FloatModel
from hwgen.generate import generate
from hwgen.load import load
from hwgen.model_config import ModelConfig, tensor_shapes
from hwgen.quantize import quantize
from hwgen.simulate import simulate

ROOT = Path(__file__).parent.parent
SMOLLM2_LAYER = {"hidden": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "ffn": 1536}
LAYER_POSITION = 128


def model_folder() -> Path:
    """stories260K where it lies beside the checkout, else the example model."""
    real = ROOT.parent / "shared/models/stories260K"
    return real if real.exists() else ROOT / "examples/model"


def stories(position: int = 32) -> dict:
    """Cycles of the token at `position` on the 2x2 preset."""
    graph = quantize(load(model_folder()))
    with tempfile.TemporaryDirectory() as scratch:
        build = Path(scratch, "chip")
        generate(graph, read_design(ROOT / "examples/designs/2x2.yaml"), build)
        result = simulate(build, sim="verilator", prompt_ids=[graph.config.bos or 0], max_tokens=position + 1)
        bound = MatrixBound(read_manifest(build)).token(position)
    return {"model": model_folder().name, "position": position, "cycles": result["cycles_per_token"][position],
            "bound": bound, "tiles": result["tiles"], "all": result["cycles_per_token"]}


def streams(position: int = 32) -> list[dict]:
    """Cycles of a step, all streams at `position`, of the example model on the 2x2-streams preset, by streams."""
    graph, preset = quantize(load(ROOT / "examples/model")), read_design(ROOT / "examples/designs/2x2-streams.yaml")
    rows = []
    for count in (1, 2, 4):
        with tempfile.TemporaryDirectory() as scratch:
            build = Path(scratch, "chip")
            generate(graph, replace(preset, streams=count), build)
            result = simulate(build, sim="verilator", prompt_ids=[[1]] * count, max_tokens=2, start_pos=position - 1)
            bound = count * MatrixBound(read_manifest(build)).token(position)
        rows.append({"streams": count, "cycles": result["cycles_per_token"][1], "bound": bound})
    return rows


def mean_counters(tiles: list[dict]) -> dict:
    """Counter -> share of the cycles in which programs ran, mean over tiles."""
    names = [name for name in tiles[0] if name not in ("x", "y", "running")]
    return {name: sum(tile[name] / tile["running"] for tile in tiles) / len(tiles) for name in names}


def random_layers(layers: int) -> FloatModel:
    """A SmolLM2-135M-shaped model of a few layers and a tiny vocabulary, with random weights."""
    config = ModelConfig(vocab=64, layers=layers, norm_eps=1e-5, max_context=256, tied=True, **SMOLLM2_LAYER)
    rng = np.random.default_rng(0)
    tensors = {name: (np.ones(shape) if "norm" in name else rng.normal(size=shape) / np.sqrt(shape[-1]))
               .astype(np.float32) for name, shape in tensor_shapes(config).items()}
    return FloatModel(config, tensors, None, "random")


def layer() -> dict:
    """Use of the multipliers by one decoder layer on the 4x4 preset, embedding and head excluded.

    The cycles of a layer are the difference between chips of two layers and of one, at the same position.
    """
    design = read_design(ROOT / "examples/designs/4x4.yaml")
    cycles = []
    for layers in (1, 2):
        graph = quantize(random_layers(layers), context=256, calibration=np.arange(64)[None], allow_wrap=True)
        with tempfile.TemporaryDirectory() as scratch:
            build = Path(scratch, "chip")
            generate(graph, design, build)
            result = simulate(build, sim="verilator", prompt_ids=[1], max_tokens=1, start_pos=LAYER_POSITION)
        cycles.append(result["cycles_per_token"][0])
    c, seen = SMOLLM2_LAYER, LAYER_POSITION + 1
    rows = (c["heads"] + 2 * c["kv_heads"]) * c["head_dim"]
    macs = rows * c["hidden"] + c["hidden"] * c["heads"] * c["head_dim"] + 3 * c["hidden"] * c["ffn"]
    macs += 2 * c["heads"] * c["head_dim"] * seen
    width = sum(design.tile_class(t).vlen for t in range(design.tiles))
    spent = cycles[1] - cycles[0]
    return {"cycles": spent, "macs": macs, "utilisation": macs / (width * spent), "tokens": cycles}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("stories", "streams", "layer"), help="default all")
    what = parser.parse_args().what
    if what in ("stories", None):
        s = stories()
        print(f"{s['model']} on 2x2, position {s['position']}: {s['cycles']} cycles, bound {s['bound']:.0f}, "
              f"{s['bound'] / s['cycles']:.0%} of it")
        print("where a tile's cycles go, mean over the whole run (units work at the same time):")
        for name, count in mean_counters(s["tiles"]).items():
            print(f"  {name}: {count:.1%}")
    if what in ("streams", None):
        for row in streams():
            print(f"example model on 2x2, {row['streams']} streams, position 32: {row['cycles']} cycles a step, bound "
                  f"{row['bound']:.0f}, {row['bound'] / row['cycles']:.0%} of it")
    if what in ("layer", None):
        s = layer()
        print(f"SmolLM2-135M layer on 4x4, position {LAYER_POSITION}: {s['cycles']} cycles for {s['macs']} MACs, "
              f"{s['utilisation']:.1%} of the multipliers")


if __name__ == "__main__":
    main()
