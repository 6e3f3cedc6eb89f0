"""Whole chips in RTL simulation: random models on random designs, every token and flag equal to the reference."""

import os

import numpy as np
import pytest
from random_pairs import (
    NETWORKS,
    long_pair,
    network_pair,
    random_formats,
    random_model,
    random_pair,
    random_prompt,
    random_shape,
)

from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, TileClass
from hwgen.generate import generate
from hwgen.model_config import ModelConfig
from hwgen.quantize import quantize
from hwgen.reference import Reference
from hwgen.simulate import simulate

SEED = int(os.environ.get("HWGEN_SEED", "1000"))
ALL, ICARUS = 60, 3
"""Pairs in all, and how many for one that also runs in Icarus, with --full: the networks do in any case."""
QUICK = (4, 10, 38, 47, 55)
"""Pairs in `make test`: small chips, since compiling takes most of the time."""
NEW_TOKENS = 3
QUICK_NETWORKS = (("yx", 4, False), ("yx", 1, False), ("o1turn", 4, True), ("odd-even", 2, True))


def _seeds(numbers, quick):
    """Parameters for some seeds; all but the quick ones are left to `make test-full`."""
    return [pytest.param(SEED + n, id=f"seed{SEED + n}", marks=[] if n in quick else [pytest.mark.full])
            for n in numbers]


@pytest.mark.parametrize("seed", _seeds(range(ALL), QUICK))
def test_random_pair_is_bit_exact(seed, tmp_path, pytestconfig):
    graph, design = random_pair(seed)
    prompt = random_prompt(graph.config, seed)
    count = min(NEW_TOKENS, graph.context - len(prompt) + 1)
    run = Reference(graph)
    wanted = run.generate(prompt, count, eos=None)
    print(f"seed {seed}: {graph.config} {random_formats(seed)} {design} prompt {prompt} -> {wanted} "
          f"overflow {run.overflow}")
    generate(graph, design, tmp_path / "chip")
    icarus = seed % ICARUS == 0 and pytestconfig.getoption("full")
    for sim in ("verilator", "icarus") if icarus else ("verilator",):
        result = simulate(tmp_path / "chip", sim=sim, prompt_ids=prompt, max_tokens=count, quick=True)
        assert result["tokens"] == wanted
        assert result["overflow"] == run.overflow
        assert not result["fault"]


@pytest.mark.parametrize(("vlen", "context"), [
    (32, 70), *(pytest.param(*pair, marks=pytest.mark.full) for pair in ((8, 40), (16, 48), (64, 140), (256, 270)))])
def test_up_to_the_end_of_the_context(vlen, context, tmp_path):
    """Positions beyond one block of values and one word of scores, which the short prompts above never reach."""
    graph, design = long_pair(vlen, context)
    prompt = [int(t) for t in np.random.default_rng(context).integers(0, graph.config.vocab, context - 1)]
    run = Reference(graph)
    wanted = run.generate(prompt, 5, eos=None)
    assert len(wanted) == 2
    generate(graph, design, tmp_path / "chip")
    result = simulate(tmp_path / "chip", sim="verilator", prompt_ids=prompt, max_tokens=5, quick=context < 100)
    assert (result["tokens"], result["overflow"], result["fault"]) == (wanted, run.overflow, False)


@pytest.mark.parametrize("number", [
    pytest.param(n, id="-".join(map(str, way)), marks=[] if way in QUICK_NETWORKS else [pytest.mark.full])
    for n, way in enumerate(NETWORKS)])
def test_every_network_is_bit_exact(number, tmp_path):
    """Whatever the routing, the channels and multicast: packets that overtake each other change nothing."""
    graph, design = network_pair(number)
    run = Reference(graph)
    wanted = run.generate([3, 1, 4], NEW_TOKENS, eos=None)
    generate(graph, design, tmp_path / "chip")
    for sim in ("verilator", "icarus") if number % 6 == 0 else ("verilator",):
        result = simulate(tmp_path / "chip", sim=sim, prompt_ids=[3, 1, 4], max_tokens=NEW_TOKENS, quick=True)
        assert (result["tokens"], result["overflow"], result["fault"]) == (wanted, run.overflow, False)
    result = simulate(tmp_path / "chip", sim="verilator", prompt_ids=[3], max_tokens=1, mode="logits", quick=True)
    np.testing.assert_array_equal(result["logits"][0], Reference(graph).step(3, 0))


def test_odd_sizes_occur_among_the_pairs():
    """The ranges that the random pairs must reach, checked on what the seeds draw."""
    found = set()
    for seed in range(SEED, SEED + ALL):
        config, design = random_shape(seed)
        prompt = random_prompt(config, seed)
        found |= {f"head_dim {config.head_dim}", f"group {config.heads // config.kv_heads}", f"hidden {config.hidden}",
                  f"ffn {config.ffn}", f"vocab {config.vocab}", f"mesh {design.width}x{design.height}",
                  f"flit {design.flit_bits}", f"prompt {'full' if len(prompt) == config.max_context else len(prompt)}",
                  f"context {config.max_context}", f"multicast {design.multicast}", f"depth {design.buffer_flits}",
                  f"routing {design.routing}", f"channels {design.virtual_channels}",
                  "formats {weights} {head}".format(**random_formats(seed))}
        for cls in design.classes:
            found |= {f"vlen {cls.vlen}", f"fetch {cls.fetch}", f"stations {cls.stations}", f"lanes {cls.lanes}"}
    assert found >= {"head_dim 24", "group 3", "hidden 40", "ffn 172", "vocab 1000", "mesh 1x1", "mesh 1x5", "mesh 3x2",
                     "flit 32", "flit 256", "vlen 8", "vlen 256", "fetch 4", "stations 1", "lanes 1", "prompt 1",
                     "prompt full", "context 33", "multicast False", "depth 2",
                     "flit 512", "routing yx", "routing o1turn", "routing odd-even", "channels 2", "channels 4",
                     "formats mxint8 mxint8", "formats mxint8 mxfp4", "formats mxfp4 mxint8", "formats mxfp4 mxfp4"}
    assert len(NETWORKS) == 24 and set(QUICK_NETWORKS) <= set(NETWORKS)


@pytest.mark.parametrize("seed", _seeds((55, 7, 11), (55,)))
def test_logits_of_a_random_pair(seed, tmp_path):
    graph, design = random_pair(seed)
    generate(graph, design, tmp_path / "chip")
    result = simulate(tmp_path / "chip", sim="verilator", prompt_ids=[1], max_tokens=2, mode="logits", quick=True)
    run = Reference(graph)
    np.testing.assert_array_equal(result["logits"][0], run.step(1, 0))
    np.testing.assert_array_equal(result["logits"][1], run.step(result["tokens"][0], 1))


@pytest.mark.parametrize("sim", ["verilator", pytest.param("icarus", marks=pytest.mark.full)])
def test_a_long_context_has_vector_memory_beyond_64_ki_words(sim, tmp_path):
    """Of two streams the second's buffers for q, k and v, messages between the tiles, lie behind the first's codes."""
    config = ModelConfig(vocab=97, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=64, ffn=96, norm_eps=1e-5,
                         max_context=20000, tied=False)
    graph = quantize(random_model(config, np.random.default_rng(3)), context=20000, allow_wrap=True)
    design = Design(2, 1, streams=2, classes=(TileClass("c0", fetch=2, stations=2, vlen=32, lanes=4),))
    chip = compile_chip(graph, design)
    assert chip.address_bits > 16 and max(tile.memory.vmem.used for tile in chip.tiles) > 200_000
    generate(graph, design, tmp_path / "chip")
    prompts = [[5, 17, 3], [42, 42, 9]]
    result = simulate(tmp_path / "chip", sim=sim, prompt_ids=prompts, max_tokens=2, quick=True)
    assert result["tokens"] == [Reference(graph).generate(prompt, 2, eos=None) for prompt in prompts]
    assert not result["fault"]
