"""Speed of the tools: python -m bench.tool_speed.

Machines differ and are noisy: what to compare are the ratios (the 6x6 mesh against the 2x2 of the same tile, emitted
against simulated); the seconds are those of this run.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.chip_speed import model_folder
from hwgen.design import read_design
from hwgen.generate import generate
from hwgen.load import load
from hwgen.quantize import quantize
from hwgen.simulate import simulate
from sim_tb.simulators import compile_chip

ROOT = Path(__file__).parent.parent
PRESET = ROOT / "examples/designs/2x2.yaml"
TOKENS = (2, 34)
"""Runs whose difference is the speed of simulation without its start."""


def _timed(action):
    begin = time.perf_counter()
    result = action()
    return time.perf_counter() - begin, result


def measure() -> dict:
    """Seconds, and simulated cycles a second, of the model beside the checkout or the example model."""
    two = read_design(PRESET)
    six = dataclasses.replace(two, width=6, height=6, node_class=())
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch, "2x2"), Path(scratch, "6x6")
        generated, graph = _timed(lambda: _generate(two, small))
        generate(graph, six, large)
        compiled, _ = _timed(lambda: compile_chip(small, "verilator"))
        compiled_large, _ = _timed(lambda: compile_chip(large, "verilator"))
        runs = []
        for tokens in TOKENS:
            seconds, result = _timed(lambda tokens=tokens: simulate(
                small, sim="verilator", prompt_ids=[graph.config.bos or 0], max_tokens=tokens))
            runs.append(np.array([result["cycles"], seconds]))
    cycles, seconds = runs[1] - runs[0]
    return {"generate_s": generated, "compile_2x2_s": compiled, "compile_6x6_s": compiled_large,
            "compile_ratio": compiled_large / compiled, "cycles_per_s": cycles / seconds}


def _generate(design, folder):
    graph = quantize(load(model_folder()))
    generate(graph, design, folder)
    return graph


def main():
    m = measure()
    print(f"{model_folder().name}: from model folder to 2x2 chip {m['generate_s']:.1f} s")
    print(f"Verilator build: 2x2 {m['compile_2x2_s']:.0f} s, 6x6 with the same tile {m['compile_6x6_s']:.0f} s, "
          f"{m['compile_ratio']:.2f} times as long for 9 times the tiles")
    print(f"simulation of the 2x2 under cocotb: {m['cycles_per_s']:,.0f} cycles/s")


if __name__ == "__main__":
    main()
