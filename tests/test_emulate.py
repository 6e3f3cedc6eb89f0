"""Compiled programs give the reference's tokens and overflow flag, whatever order the units run in."""

import numpy as np
import pytest
from random_pairs import random_model, random_pair, random_prompt

from hwgen.compiler.compile import compile_chip
from hwgen.compiler.place import Placement
from hwgen.design import Design, TileClass
from hwgen.emulate import Emulator
from hwgen.model_config import ModelConfig
from hwgen.quantize import quantize
from hwgen.reference import Reference

SEED = 100


@pytest.mark.parametrize("seed", range(SEED, SEED + 10))
def test_random_pairs_agree_with_the_reference(seed):
    graph, design = random_pair(seed)
    prompt = random_prompt(graph.config, seed)
    run = Reference(graph)
    wanted = run.generate(prompt, min(3, graph.context - len(prompt) + 1), eos=None)
    chip = Emulator(compile_chip(graph, design), seed)
    assert chip.generate(prompt, len(wanted)) == wanted
    assert chip.overflow == run.overflow


def test_logits_mode_gives_every_logit_in_order():
    graph, design = random_pair(SEED + 1)
    logits = Emulator(compile_chip(graph, design)).token(3, 0, logits=True)
    np.testing.assert_array_equal(logits, Reference(graph).step(3, 0))


@pytest.mark.parametrize("seed", range(8))
def test_stages_that_share_out_the_layers_agree_with_the_reference(seed):
    rng = np.random.default_rng(seed)
    config = ModelConfig(vocab=97, hidden=int(rng.choice([40, 64, 72])), layers=int(rng.integers(2, 6)), heads=4,
                         kv_heads=int(rng.choice([1, 2])), head_dim=8, ffn=int(rng.choice([48, 80])), norm_eps=1e-5,
                         max_context=20, tied=bool(rng.integers(2)))
    width, height = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    few = TileClass("b", vlen=16, lanes=4, shares=tuple(float(s) for s in rng.choice([0.0, 1.0, 2.0], 3)))
    design = Design(width, height, classes=(TileClass("a", vlen=8, lanes=2), few), multicast=bool(rng.integers(2)),
                    pipeline_stages=int(rng.integers(2, min(height, config.layers) + 1)),
                    node_class=tuple(int(t % width and (t == 1 or rng.random() < 0.5)) for t in range(width * height)))
    graph = quantize(random_model(config, rng), allow_wrap=True)
    chip = compile_chip(graph, design)
    assert len({chip.placement.stage(t) for t in range(design.tiles)}) == design.pipeline_stages
    wanted = Reference(graph).generate([1, 2, 3], 5, eos=None)
    assert Emulator(chip, seed).generate([1, 2, 3], 5) == wanted


def test_messages_that_arrive_in_no_order_are_noticed_where_a_tile_does_not_tell_of_its_own(monkeypatch):
    """A tile without a part in attention, which the others do not wait for, gets its words of two gathers mixed."""
    config = ModelConfig(vocab=97, hidden=40, layers=2, heads=2, kv_heads=1, head_dim=8, ffn=48, norm_eps=1e-5,
                         max_context=20, tied=True)
    design = Design(2, 1, classes=(TileClass("a"), TileClass("b", shares=(0.0, 1.0, 1.0))), node_class=(0, 1))
    graph = quantize(random_model(config, np.random.default_rng(0)), allow_wrap=True)
    wanted = Reference(graph).generate([1, 2, 3], 4, eos=None)

    def right():
        return [Emulator(compile_chip(graph, design), seed).generate([1, 2, 3], 4) == wanted for seed in range(8)]

    assert all(right())
    monkeypatch.setattr(Placement, "bystanders", lambda self, layer: frozenset())
    monkeypatch.setattr("hwgen.compiler.compile.prove_order", lambda *_: None)
    assert not all(right())


def test_a_missing_dependency_is_noticed():
    """Dropping every token makes some order of the units give wrong results: the emulator does test dependencies."""
    graph, design = random_pair(SEED)
    chip = compile_chip(graph, design)
    wanted = Reference(graph).generate([1], 3, eos=None)
    for tile in chip.tiles:
        for instruction in tile.program:
            instruction.pop = instruction.push = 0

    def right(seed):
        try:
            return Emulator(chip, seed).generate([1], 3) == wanted
        except RuntimeError:  # garbage tokens own no embedding row, so nothing arrives
            return False

    assert not all(right(seed) for seed in range(5))
