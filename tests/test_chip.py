"""Whole chips in RTL simulation: random models on random designs, every token and flag equal to the reference."""

import os

import pytest
from random_pairs import random_pair, random_prompt

from hwgen.generate import generate
from hwgen.reference import Reference
from hwgen.simulate import simulate

SEED = int(os.environ.get("HWGEN_SEED", "1000"))
QUICK, ALL, ICARUS = 6, 60, 3
"""Pairs in `make test` and in all; every third also runs in Icarus."""
NEW_TOKENS = 3


def _pairs():
    for number in range(ALL):
        yield pytest.param(SEED + number, id=f"seed{SEED + number}", marks=[pytest.mark.full] if number >= QUICK else [])


@pytest.mark.parametrize("seed", _pairs())
def test_random_pair_is_bit_exact(seed, tmp_path):
    graph, design = random_pair(seed)
    prompt = random_prompt(graph, seed)
    count = min(NEW_TOKENS, graph.context - len(prompt) + 1)
    run = Reference(graph)
    wanted = run.generate(prompt, count, eos=None)
    print(f"seed {seed}: {graph.config} {design} prompt {prompt} -> {wanted} overflow {run.overflow}")
    generate(graph, design, tmp_path / "chip")
    for sim in ("verilator", "icarus") if seed % ICARUS == 0 else ("verilator",):
        result = simulate(tmp_path / "chip", sim=sim, prompt_ids=prompt, max_tokens=count, quick=True)
        assert result["tokens"] == wanted
        assert result["overflow"] == run.overflow
        assert not result["fault"]


def test_odd_sizes_occur_among_the_pairs():
    """The ranges that the random pairs must reach, checked on what the seeds draw."""
    found = set()
    for seed in range(SEED, SEED + ALL):
        graph, design = random_pair(seed)
        config, prompt = graph.config, random_prompt(graph, seed)
        found |= {f"head_dim {config.head_dim}", f"group {config.heads // config.kv_heads}", f"hidden {config.hidden}",
                  f"ffn {config.ffn}", f"vocab {config.vocab}", f"mesh {design.width}x{design.height}",
                  f"flit {design.flit_bits}", f"prompt {'full' if len(prompt) == graph.context else len(prompt)}",
                  f"context {graph.context}"}
        for cls in design.classes:
            found |= {f"vlen {cls.vlen}", f"fetch {cls.fetch}", f"stations {cls.stations}", f"lanes {cls.lanes}"}
    assert found >= {"head_dim 24", "group 3", "hidden 40", "ffn 172", "vocab 1000", "mesh 1x1", "mesh 1x5", "mesh 3x2",
                     "flit 32", "flit 256", "vlen 8", "vlen 256", "fetch 4", "stations 1", "lanes 1", "prompt 1",
                     "prompt full", "context 33"}
