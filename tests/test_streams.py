"""Several streams in flight: their order on a tile, the host port, programs and whole chips."""

import random
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from host_bench import HostBench
from random_pairs import random_model, random_pair

from hwgen.bound import MatrixBound
from hwgen.build_folder import read_manifest
from hwgen.compiler.compile import compile_chip
from hwgen.compiler.dependencies import Step
from hwgen.compiler.turns import Part, Segment, groups, take_turns
from hwgen.design import Design, TileClass
from hwgen.emulate import Emulator
from hwgen.emulate_tile import Start
from hwgen.generate import generate
from hwgen.isa import Instruction, Unit
from hwgen.model_config import ModelConfig
from hwgen.quantize import quantize
from hwgen.reference import Reference
from hwgen.simulate import simulate

# --- the order on a tile


def _parts(stream, layers):
    """Parts that tell by the counter of a WAIT whose they are, and by its count which: fronts are odd."""
    kinds = [(Segment.EMBEDDING, False), *[(Segment.LAYERS, True), (Segment.LAYERS, False)] * layers,
             (Segment.HEAD, True), (Segment.HEAD, False)]
    return [Part(segment, front, [Step(Instruction(Unit.SEND, "WAIT", {"ctr": stream, "count": number}))])
            for number, (segment, front) in enumerate(kinds)]


def _order(streams, stages, stage, layers=1):
    program = take_turns([_parts(s, layers) for s in range(streams)], stages, stage)
    assert program[-1].op == "END"
    stream, order = 0, []
    for instruction in program[:-1]:
        if instruction.op == "STREAM":
            assert instruction.fields["stream"] != stream
            stream = instruction.fields["stream"]
        else:
            assert instruction.fields["ctr"] == stream
            order.append((stream, instruction.fields["count"]))
    return order


def test_streams_of_one_stage_take_turns():
    assert _order(1, 1, 0) == [(0, part) for part in range(5)]
    assert _order(2, 1, 0) == [(s, part + step) for part in (0, 2, 4) for s in range(2) for step in (0, 1)
                               if part + step < 5]


def test_four_streams_put_off_their_fronts():
    assert _order(4, 1, 0) == [
        (0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (3, 0), (2, 1), (0, 2), (3, 1), (1, 2), (0, 3), (2, 2), (1, 3), (3, 2),
        (2, 3), (0, 4), (3, 3), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize(("streams", "stages", "wanted"), [
    (1, 2, [[0]]), (2, 2, [[0], [1]]), (4, 2, [[0, 1], [2, 3]]), (4, 3, [[0], [1], [2], [3]]), (8, 1, [[*range(8)]]),
])
def test_groups(streams, stages, wanted):
    assert [list(group) for group in groups(streams, stages)] == wanted


def test_groups_follow_each_other_through_the_stages():
    assert _order(2, 2, 0) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (0, 4), (1, 3), (1, 4)]
    assert _order(2, 2, 1) == [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize(("streams", "stages"), [(2, 1), (4, 1), (8, 1), (2, 2), (8, 2), (4, 4), (8, 3)])
def test_streams_never_wait_for_each_other_in_a_circle(streams, stages):
    """Parts in every tile's order, and those that each waits for on all tiles, can all be put in one order."""
    layers = 2
    first, last, end = 1, 2 * layers, 2 * layers + 1  # of layers: front of the first and back of the last; head's front
    before = {}
    for stage in range(stages):
        order = _order(streams, stages, stage, layers)
        assert sorted(order) == [(s, part) for s in range(streams) for part in range(2 * layers + 3)]
        for number, (stream, part) in enumerate(order):
            before[stage, stream, part] = {(stage, *order[number - 1])} if number else set()
            if part == first:
                before[stage, stream, part] |= {(stage - 1, stream, last)} if stage else {
                    (s, stream, 0) for s in range(stages)}
            elif part == end:
                before[stage, stream, part].add((stages - 1, stream, last))
            elif part:
                before[stage, stream, part].add((stage, stream, part - 1))
    done = set()
    while ready := {part for part, needs in before.items() if part not in done and needs <= done}:
        done |= ready
    assert done == set(before)


# --- programs


def _prompts(config, streams, seed, most=4):
    rng = random.Random(seed)
    return [[rng.randrange(config.vocab) for _ in range(rng.randint(1, most))] for _ in range(streams)]


def _case(seed):
    """A model and a design with streams, in every second case with pipeline stages."""
    streams = (2, 4, 8)[seed % 3]
    if seed % 2:
        graph, design = random_pair(2000 + seed)
        return graph, replace(design, streams=streams)
    rng = np.random.default_rng(seed)
    config = ModelConfig(vocab=97, hidden=40, layers=int(rng.integers(2, 5)), heads=3, kv_heads=1, head_dim=8, ffn=48,
                         norm_eps=1e-5, max_context=20, tied=bool(rng.integers(2)))
    classes = (TileClass("a", fetch=2, stations=3, vlen=8, lanes=2),
               TileClass("b", fetch=1, stations=5, vlen=16, lanes=4, shares=(0.0, 1.0, 1.0)))
    design = Design(2, 2, multicast=bool(seed % 4), pipeline_stages=2, classes=classes, node_class=(0, 1, 0, 1),
                    streams=streams)
    return quantize(random_model(config, rng), allow_wrap=True), design


@pytest.mark.parametrize("seed", range(8))
def test_each_stream_has_the_references_tokens_whatever_the_others_do(seed):
    """Every stream stands still in some steps, so that they come to be at different positions."""
    graph, design = _case(seed)
    chip, rng = Emulator(compile_chip(graph, design), seed), random.Random(seed)
    prompts = _prompts(graph.config, design.streams, seed)
    runs = [Reference(graph) for _ in prompts]
    wanted = [prompt + run.generate(prompt, min(3, graph.context - len(prompt)), eos=None)
              for run, prompt in zip(runs, prompts, strict=True)]
    found, positions = [list(prompt) for prompt in prompts], [0] * design.streams
    while any(len(own) < len(whole) for own, whole in zip(found, wanted, strict=True)):
        starts = [Start(own[at], at, at >= len(prompt) - 1, False) if len(own) < len(whole) and rng.random() < 0.7
                  else None for own, whole, prompt, at in zip(found, wanted, prompts, positions, strict=True)]
        for stream, successor in enumerate(chip.step(starts)):
            if starts[stream]:
                positions[stream] += 1
                found[stream] += [] if successor is None else [successor]
    assert found == wanted
    assert chip.overflow == any(run.overflow for run in runs)


def test_logits_of_all_streams():
    graph, design = random_pair(2001)
    chip = Emulator(compile_chip(graph, replace(design, streams=2)))
    found = chip.step([Start(3, 0, True, True), Start(5, 0, True, True)])
    for logits, token in zip(found, (3, 5), strict=True):
        np.testing.assert_array_equal(logits, Reference(graph).step(token, 0))


def test_streams_have_memories_of_their_own_and_one_rom():
    graph, design = random_pair(2001)
    one, four = (compile_chip(graph, replace(design, streams=streams)) for streams in (1, 4))
    for tile, other in zip(one.tiles, four.tiles, strict=True):
        assert tile.memory.rom.used == other.memory.rom.used
        assert 4 * tile.memory.kvmem.used == other.memory.kvmem.used
        assert 4 * tile.memory.xmem.used == other.memory.xmem.used
        assert len(tile.program) * 4 <= len(other.program) + 3  # one END, and STREAMs besides


def _ended(graph, prompts):
    """Ends, one for each stream that has a prompt, at unlike places; and what the streams answer up to any of them."""
    free = [Reference(graph).generate(prompt, 4, eos=None) if prompt else [] for prompt in prompts]
    ends = [tokens[2 - stream % 3] for stream, tokens in enumerate(free) if tokens]
    return ends, [Reference(graph).generate(prompt, 4, eos=ends) if prompt else [] for prompt in prompts]


def test_each_stream_of_the_programs_ends_by_itself():
    graph, design = _case(6)
    prompts = _prompts(graph.config, design.streams, 6)
    ends, ended = _ended(graph, prompts)
    assert [len(tokens) for tokens in ended] == [3, 2]
    chip = Emulator(compile_chip(graph, design))
    assert chip.generate_streams(prompts, [4, 4], ends) == ended


# --- the host port


@pytest.mark.parametrize("changes", [
    {}, {"flit_bits": 64, "multicast": False}, {"width": 3, "height": 2, "buffer_flits": 2, "address_bits": 12},
], ids=str)
def test_the_host_port_runs_its_streams_side_by_side(changes):
    prompts, most = [[3, 77, 149], [], [9], [1, 2]], [5, 1, 2, 4]
    bench = HostBench(streams=4, **changes)

    async def host(bench, ctx):
        await bench.start_streams(ctx, prompts, most)
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    assert bench.final_status == {"done"}
    wanted = [bench.expected(prompt, count) if prompt else [] for prompt, count in zip(prompts, most, strict=True)]
    for stream, tokens in enumerate(wanted):
        own = [beat for beat, owner in zip(bench.beats, bench.owners, strict=True) if owner == stream]
        assert own == [(token, int(number == len(tokens) - 1)) for number, token in enumerate(tokens)]
    # in every step the streams put out in order
    steps = [[None] * (len(prompt) - 1) + [stream] * len(tokens)
             for stream, (prompt, tokens) in enumerate(zip(prompts, wanted, strict=True)) if tokens]
    assert bench.owners == [s for step in zip_longest(*steps) for s in step if s is not None]


def test_logits_of_streams_come_one_after_the_other():
    bench = HostBench(streams=2, head_rows=((1, 1, 80), (0, 0, 70)))

    async def host(bench, ctx):
        await bench.start_streams(ctx, [[3, 4], [7]], [1, 2], mode=1)
        while len(bench.beats) < 150:
            await ctx.tick()
        bench.inputs.append(11)  # after the second step both have given logits, the second stream goes on
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    assert bench.owners == [1] * 150 + [0] * 150 + [1] * 150
    words = [data - (data >> 31 << 32) for data, _ in bench.beats]
    assert words == bench.logits(7, 0) + bench.logits(4, 1) + bench.logits(11, 1)
    assert [number for number, (_, last) in enumerate(bench.beats) if last] == [299, 449]


def _run(bench, prompts, most, **options):
    async def host(bench, ctx):
        await bench.start_streams(ctx, prompts, most, **options)
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    return [[data for (data, _), owner in zip(bench.beats, bench.owners, strict=True) if owner == stream]
            for stream in range(len(prompts))]


def test_a_stream_that_ends_stands_still_while_others_go_on():
    free = HostBench().expected([9], 6)
    bench = HostBench(streams=2)
    found = _run(bench, [[9], [4, 5]], [6, 5], eos=free[1])
    assert found[0] == free[:2]
    assert found[1] == bench.expected([4, 5], 5, eos=free[1])
    other = HostBench().expected([4, 5], 5)
    bench = HostBench(streams=2)
    found = _run(bench, [[9], [4, 5]], [6, 5], eos=[free[3], other[2]])  # each has its own end
    assert found == [free[:4], other[:3]]
    bench = HostBench(streams=8, width=1, height=1, head_rows=((0, 0, 150),))
    found = _run(bench, [[s + 1] * (s + 1) for s in range(8)], [100] * 8, start_pos=8)
    assert found == [bench.expected([s + 1] * (s + 1), 100, start_pos=8) for s in range(8)]  # to the end of the context


def test_a_token_outside_the_vocabulary_ends_the_run_of_all_streams():
    bench = HostBench(streams=2)
    assert _run(bench, [[3, 77, 4], [9, 150, 1]], [5, 5]) == [[], []]
    assert bench.final_status == {"done", "err_range"}


@pytest.mark.parametrize("mode", [0, 1])
def test_a_stalled_output_stalls_all_streams(mode):
    bench = HostBench(streams=2)
    chance = random.Random(3)
    bench.accept = lambda: chance.random() < 0.2
    found = _run(bench, [[3, 4], [7]], [1, 1], mode=mode)
    wanted = [bench.logits(4, 1), bench.logits(7, 0)] if mode else [bench.expected([3, 4], 1), bench.expected([7], 1)]
    assert [[data - (data >> 31 << 32) for data in own] for own in found] == wanted


def test_reset_in_the_middle_of_a_run_of_streams():
    bench = HostBench(streams=2)

    async def host(bench, ctx):
        for cycles in (40, 333, 500):
            await bench.start_streams(ctx, [[3, 77], [5]], [5, 5])
            await ctx.tick().repeat(cycles)
            await bench.reset(ctx)
        await bench.start_streams(ctx, [[3, 77], [5]], [2, 3])
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    assert bench.final_status == {"done"}
    for stream, (prompt, most) in enumerate((([3, 77], 2), ([5], 3))):
        own = [data for (data, _), owner in zip(bench.beats, bench.owners, strict=True) if owner == stream]
        assert own == bench.expected(prompt, most)


def test_settings_belong_to_the_chosen_stream():
    bench = HostBench(streams=2)

    async def host(bench, ctx):
        for stream, length in ((0, 5), (1, 0)):
            await bench.write(ctx, "STREAM", stream)
            await bench.write(ctx, "PROMPT_LEN", length)
        bench.read_back = [await bench.read(ctx, name) for name in ("STREAM", "PROMPT_LEN")]
        await bench.write(ctx, "STREAM", 0)
        bench.read_back.append(await bench.read(ctx, "PROMPT_LEN"))
        await bench.write(ctx, "PROMPT_LEN", 0)
        await bench.write(ctx, "START", 1)  # nobody has a prompt
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    assert bench.read_back == [2 << 16 | 1, 0, 5]
    assert bench.final_status == {"done", "err_range"}


# --- whole chips


def _simulated(graph, design, folder, sim, prompts, most, **options):
    generate(graph, design, folder / "chip")
    result = simulate(folder / "chip", sim=sim, prompt_ids=prompts, max_tokens=most, quick=True, **options)
    assert not result["fault"]
    return result


@pytest.mark.parametrize("seed", [4, *(pytest.param(n, marks=pytest.mark.full) for n in (0, 1, 2, 3, 5, 6, 7))])
def test_chips_are_bit_exact(seed, tmp_path):
    graph, design = _case(seed)
    prompts = _prompts(graph.config, design.streams, seed)
    prompts[1] = []
    most = [1 + (seed + stream) % 3 for stream in range(design.streams)]
    runs = [Reference(graph) for _ in prompts]
    wanted = [run.generate(prompt, min(count, graph.context - len(prompt) + 1), eos=None) if prompt else []
              for run, prompt, count in zip(runs, prompts, most, strict=True)]
    result = _simulated(graph, design, tmp_path, "icarus" if seed == 3 else "verilator", prompts, most)
    assert result["tokens"] == wanted
    assert result["overflow"] == any(run.overflow for run in runs)
    ends, ended = _ended(graph, prompts)
    again = simulate(tmp_path / "chip", sim="verilator", prompt_ids=prompts, max_tokens=4, eos=ends, quick=True)
    assert again["tokens"] == ended
    lengths = [len(prompt) for prompt in prompts], [len(tokens) for tokens in wanted]
    assert len(result["cycles_per_token"]) == len(MatrixBound(read_manifest(tmp_path / "chip")).run(*lengths))
    assert result["timeline"]


@pytest.mark.full
def test_a_stream_goes_on_while_others_begin_anew(tmp_path):
    graph, design = _case(2)
    folder, (first, second, third) = tmp_path, _prompts(graph.config, 3, 5)
    generate(graph, design, folder / "chip")
    whole = Reference(graph).generate(first, 4, eos=None)
    result = simulate(folder / "chip", sim="verilator", prompt_ids=[first, second], max_tokens=2, quick=True)
    assert result["tokens"][:2] == [whole[:2], Reference(graph).generate(second, 2, eos=None)]
    logits = simulate(folder / "chip", sim="verilator", prompt_ids=[third, first], max_tokens=[1, 3], mode="logits",
                      quick=True)
    assert logits["tokens"][:2] == [Reference(graph).generate(third, 1, eos=None), whole[:3]]
