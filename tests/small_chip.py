"""A small heterogeneous chip's manifest, and a simulation result of the right shape."""

from hwgen.compiler.compile import compile_chip
from hwgen.design import parse_design
from hwgen.integer_graph import shape_only
from hwgen.manifest import manifest
from hwgen.model_config import ModelConfig

CONFIG = ModelConfig(vocab=100, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, norm_eps=1e-5,
                     max_context=64, tied=True, bos=1, eos_ids=(2,))
DESIGN = """
width: 2
height: 2
clock_mhz: 400
tiles:
  - {name: general, vlen: 32, lanes: 8}
  - {name: narrow, at: "1,1", vlen: 16, lanes: 4, fetch: 1, shares: {attention: 0}}
"""


def chip_manifest(design: str = DESIGN, files=(), mxfp4=frozenset()) -> dict:
    return manifest(compile_chip(shape_only(CONFIG, 64, mxfp4), parse_design(design)), list(files), True)


def simulation(numbers: dict) -> dict:
    """Three tokens after a prompt of four; every tile multiplies for half of its cycles."""
    share = dict(zip(numbers["counters"], (1000, 500, 200, 100, 300, 50, 20, 10), strict=True))
    places = [(tile["x"], tile["y"]) for tile in numbers["tiles"]]
    return {
        "tokens": [5, 6, 7], "text": "a <script>alert(1)</script> & b", "prompt_ids": [1, 2, 3, 4], "sim": "verilator",
        "cycles": 6100, "cycles_per_token": [4000, 1000, 1000], "overflow": False, "fault": False,
        "tiles": [{"x": x, "y": y, **share} for x, y in places],
        "timeline": [{"x": x, "y": y, "unit": unit, "start": 9000 + at, "stop": 9000 + at + 40}
                     for x, y in places for unit in ("matrix", "vector", "send") for at in range(0, 1000, 100)],
    }
