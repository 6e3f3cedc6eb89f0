# amaranth: UnusedElaboratable=no
"""The host port against the contract of ARCHITECTURE sections 5 and 6."""

import pytest
from host_bench import HostBench

from hwgen.isa import ENDS
from hwgen.rtl.axi_lite_registers import ADDRESS_BITS, NO_EOS, REGISTERS


def play(prompt, max_tokens, *, bench=None, **options):
    """Run once; (bench, status, tokens)."""
    bench = bench or HostBench()

    async def host(bench, ctx):
        await bench.start(ctx, prompt, max_tokens, **options)
        bench.final_status = await bench.finish(ctx)

    bench.run(host)
    return bench, bench.final_status, [data for data, _ in bench.beats]


def test_tokens_of_a_run():
    bench, status, tokens = play([3, 77, 149], 5)
    assert tokens == bench.expected([3, 77, 149], 5)
    assert [last for _, last in bench.beats] == [0, 0, 0, 0, 1]
    assert status == {"done"}


@pytest.mark.parametrize("changes", [
    {"flit_bits": 256, "buffer_flits": 2},
    {"flit_bits": 64, "multicast": False},
    {"width": 1, "height": 1, "head_rows": ((0, 0, 150),)},
    {"width": 3, "height": 2, "buffer_flits": 2, "address_bits": 12, "head_rows": ((2, 1, 150),)},  # split start
    {"width": 33, "height": 1, "address_bits": 16, "head_rows": ((32, 0, 90), (5, 0, 60))},  # header of two flits
    {"width": 1, "height": 2, "multicast": False},
    {"flit_bits": 512, "buffer_flits": 2},
    {"width": 3, "height": 2, "buffer_flits": 2, "address_bits": 12, "head_rows": ((2, 1, 150),),
     "virtual_channels": 2},  # split start
    {"virtual_channels": 2, "routing": "odd-even"},
    {"virtual_channels": 4, "routing": "o1turn", "flit_bits": 64},
    {"virtual_channels": 2, "routing": "o1turn", "multicast": False},
], ids=str)
def test_networks(changes):
    changes = {"head_rows": ((0, 0, 100), (0, 1, 50))} | changes if changes.get("height") == 2 else changes
    bench, status, tokens = play([5, 6], 3, bench=HostBench(**changes))
    assert tokens == bench.expected([5, 6], 3)
    assert status == {"done"}
    assert len(bench.starts) == len(bench.tiles) * 4


def test_start_messages_carry_position_and_flags():
    bench, _, tokens = play([3, 77], 2, start_pos=4)
    seen = [(token, flags) for x, y, token, flags in bench.starts if (x, y) == (0, 0)]
    assert seen == [(3, 4 | 1 << 26), (77, 5 | 1 << 24), (tokens[0], 6 | 1 << 24)]
    assert len(bench.starts) == 4 * 3


def test_equal_values_give_the_lowest_id():
    _, _, tokens = play([1], 1, bench=HostBench(logit=lambda token, position, row: -7 if row in (40, 75, 140) else -8))
    assert tokens == [40]
    _, _, tokens = play([1], 1, bench=HostBench(logit=lambda token, position, row: -(1 << 31),
                                                 head_rows=((1, 1, 80), (0, 0, 70))))
    assert tokens == [0]


def test_end_of_sequence_is_emitted():
    free = HostBench().expected([9], 8)
    bench, _, tokens = play([9], 8, eos=free[2])
    assert tokens == free[:free.index(free[2]) + 1]
    assert bench.beats[-1][1] == 1


@pytest.mark.parametrize("place", range(ENDS))
def test_any_end_of_the_list_ends_a_run(place):
    """In every place of the list; the others hold an id that does not come, and none."""
    free = HostBench().expected([9], 8)
    ends = [NO_EOS] * ENDS
    ends[place], ends[(place + 3) % ENDS] = free[2], 149
    _, status, tokens = play([9], 8, eos=ends)
    assert tokens == free[:free.index(free[2]) + 1] and len(tokens) < 8
    assert status == {"done"}


def test_an_end_in_the_prompt_does_not_end_and_words_beyond_the_vocabulary_are_none():
    free = HostBench().expected([9, 3], 6)
    assert not {9, 3} & set(free)
    words = [free[0] | 1 << bit for bit in (8, 12, 30, 31)]  # as many bits of an id of the vocabulary, and more
    bench, _, tokens = play([9, 3], 6, eos=[9, *words, 3])
    assert tokens == free and bench.starts[0][2] == 9


def test_the_first_of_several_ends_that_comes_ends_a_run():
    free = HostBench().expected([9], 8)
    assert len(set(free[:5])) == 5
    _, _, tokens = play([9], 8, eos=[free[4], free[1], free[3]])
    assert tokens == free[:2]


def test_ends_are_those_at_the_start_and_keep_for_the_next_run():
    free = HostBench().expected([9], 6)

    async def host(bench, ctx):
        await bench.start(ctx, [9], 6, eos=[free[3]])
        await bench.write(ctx, "ENDS", free[1], offset=4 * (ENDS - 1))
        await bench.write(ctx, "START", 1)  # while busy: refused, and takes nothing over
        assert await bench.finish(ctx) == {"done", "err_busy"}
        bench.starts.clear()
        await bench.start(ctx, [9], 6)
        assert await bench.finish(ctx) == {"done"}

    bench = HostBench()
    bench.run(host)
    assert [data for data, _ in bench.beats] == free[:4] + free[:2]


def test_context_ends_a_run():
    bench, status, tokens = play(list(range(16)), 9)
    assert len(tokens) == 1 and bench.beats[0][1] == 1 and status == {"done"}
    bench, status, tokens = play([7, 8], 1000, start_pos=11)
    assert len(tokens) == 16 - 11 - 2 + 1
    assert tokens == bench.expected([7, 8], 1000, start_pos=11)


@pytest.mark.parametrize("options", [
    {"prompt": [], "max_tokens": 1}, {"prompt": [1], "max_tokens": 0}, {"prompt": [1] * 17, "max_tokens": 1},
    {"prompt": [1], "max_tokens": 1, "start_pos": 16}, {"prompt": [1], "max_tokens": 1, "start_pos": 0xFFFFFFFF},
], ids=str)
def test_bad_lengths_end_without_output(options):
    bench, status, tokens = play(**options)
    assert status == {"done", "err_range"} and tokens == [] and bench.starts == []


def test_token_outside_the_vocabulary_ends_the_run():
    bench, status, tokens = play([3, 150, 4], 2)
    assert status == {"done", "err_range"} and tokens == []
    assert len(bench.starts) == 4


@pytest.mark.parametrize("changes", [
    {}, {"virtual_channels": 2}, {"virtual_channels": 4, "routing": "odd-even", "flit_bits": 64}], ids=str)
def test_logits_of_every_output_position(changes):
    bench, status, values = play([3, 4, 5, 6], 3, mode=1, prompt_len=2, bench=HostBench(**changes))
    signed = [value - (1 << 32) if value >> 31 else value for value in values]
    assert signed == [v for i, token in enumerate([4, 5, 6]) for v in bench.logits(token, i + 1)]
    assert [last for _, last in bench.beats] == [0] * (3 * 150 - 1) + [1]
    assert status == {"done"}


def test_logits_wait_for_a_slow_host():
    bench = HostBench(head_rows=((0, 0, 64), (1, 0, 1), (1, 1, 150), (0, 1, 85)), vocab=300)
    bench.accept = lambda: bench.random.random() < 0.1
    bench, status, values = play([3], 1, bench=bench, mode=1)
    assert [v - (1 << 32) if v >> 31 else v for v in values] == bench.logits(3, 0)
    assert status == {"done"}


def test_a_stalled_output_stalls_the_run_and_loses_nothing():
    bench = HostBench()
    bench.accept = lambda: False

    async def host(bench, ctx):
        await bench.start(ctx, [3], 4)
        await ctx.tick().repeat(1500)
        stalled = len(bench.starts)
        await ctx.tick().repeat(1500)
        assert len(bench.starts) == stalled == 4 * 2
        assert await bench.status(ctx) == {"busy"}
        bench.accept = lambda: bench.random.random() < 0.3
        await bench.finish(ctx)

    bench.run(host)
    assert [data for data, _ in bench.beats] == bench.expected([3], 4)


@pytest.mark.parametrize("mode", [0, 1])
def test_reset_at_any_moment(mode):
    async def host(bench, ctx):
        for wait in (1, 2, 7, 23, 60, 111, 160, 333):
            await bench.start(ctx, [3, 4, 5, 6], 3, mode=mode)
            await ctx.tick().repeat(wait)
            await bench.reset(ctx)
            assert await bench.status(ctx) == set()
        await bench.start(ctx, [8, 9, 1], 3 - mode, mode=mode, prompt_len=3 - mode)
        assert await bench.finish(ctx) == {"done"}

    bench = HostBench()
    bench.run(host)
    found = [data for data, _ in bench.beats]
    logits = [value % (1 << 32) for value in bench.logits(9, 1) + bench.logits(1, 2)]
    assert found == (logits if mode else bench.expected([8, 9, 1], 3))


def test_start_while_busy_is_refused():
    async def host(bench, ctx):
        await bench.start(ctx, [3], 3)
        await bench.write(ctx, "MAX_TOKENS", 1)
        await bench.write(ctx, "START", 1)
        assert await bench.status(ctx) == {"busy", "err_busy"}
        assert await bench.finish(ctx) == {"done", "err_busy"}
        cycles = await bench.read(ctx, "CYCLES")
        await ctx.tick().repeat(20)
        assert await bench.read(ctx, "CYCLES") == cycles > 30
        bench.starts.clear()
        await bench.start(ctx, [4], 1)
        assert await bench.finish(ctx) == {"done"}

    bench = HostBench()
    bench.run(host)
    assert [data for data, _ in bench.beats] == bench.expected([3], 3) + bench.expected([4], 1)
    assert [last for _, last in bench.beats] == [0, 0, 1, 1]


def test_sticky_flags_of_the_tiles():
    bench, status, _ = play([3, 4, 5], 1, bench=HostBench(flags=lambda tile, position: 1 if position == 1 else 0))
    assert status == {"done", "overflow"}
    bench, status, _ = play([3], 1, bench=HostBench(flags=lambda tile, position: 2 if tile == (1, 1) else 0))
    assert status == {"done", "fault"}


def test_flags_and_errors_end_with_the_next_start():
    bench = HostBench(flags=lambda tile, position: 3 if len(bench.starts) <= 4 else 0)

    async def host(bench, ctx):
        await bench.start(ctx, [3], 1)
        assert await bench.finish(ctx) == {"done", "overflow", "fault"}
        await bench.start(ctx, [], 1)
        assert await bench.finish(ctx) == {"done", "err_range"}
        bench.flags = lambda tile, position: 0
        bench.starts.clear()
        await bench.start(ctx, [3], 1)
        assert await bench.finish(ctx) == {"done"}

    bench.run(host)


def test_constants_and_settings_read_back():
    async def host(bench, ctx):
        found = [await bench.read(ctx, name) for name in ("CONTEXT", "VOCAB", "MESH", "SIGNATURE", "EOS_ID", "STATUS")]
        assert found == [16, 150, 2 << 16 | 2, 0xCAFE1234, 0xFFFFFFFF, 0]
        await bench.write(ctx, "EOS_ID", 0x11223344)
        await bench.write(ctx, "EOS_ID", 0xAABBCCDD, mask=0b0110)
        assert await bench.read(ctx, "EOS_ID") == 0x11BBCC44
        assert await bench.read(ctx, "ENDS") == 0x11BBCC44  # its other name
        for number in range(ENDS):
            await bench.write(ctx, "ENDS", 1000 + number, offset=4 * number)
        assert [await bench.read(ctx, "ENDS", 4 * i) for i in range(ENDS)] == [1000 + i for i in range(ENDS)]
        assert await bench.read(ctx, "EOS_ID") == 1000
        for address in (0x38, 0x3C, 0x60, 0x7C, 0x80 + 4 * ENDS, 0xFC):  # room for others
            assert await bench.read(ctx, "START", address) == 0
        await bench.write(ctx, "START", 0)
        assert await bench.status(ctx) == set()

    HostBench().run(host)


def test_counters_of_a_tile():
    async def host(bench, ctx):
        await bench.start(ctx, [3, 4], 2)
        for x, y in ((1, 0), (0, 1)):  # during a run too
            await bench.write(ctx, "TILE", y << 16 | x)
            while "counters_valid" not in await bench.status(ctx):
                pass
            found = [await bench.read(ctx, "COUNTERS", 4 * i) for i in range(8)]
            assert found == [x * 100 + y * 10 + i for i in range(8)]
        await bench.write(ctx, "TILE", 1)
        await bench.write(ctx, "TILE", 1 << 16 | 1)  # replaces a request in flight
        while "counters_valid" not in await bench.status(ctx):
            pass
        assert await bench.read(ctx, "COUNTERS") == 110
        await bench.finish(ctx)
        await bench.write(ctx, "TILE", 2)
        assert await bench.status(ctx) == {"done", "err_range"}

    bench = HostBench()
    bench.run(host)
    assert [data for data, _ in bench.beats] == bench.expected([3, 4], 2)


def test_grants_must_cover_the_vocabulary():
    with pytest.raises(ValueError, match="must add up to the vocabulary of 150, not 149"):
        HostBench(head_rows=((0, 0, 149),))
    with pytest.raises(ValueError, match="inside the 2x2 mesh, not"):
        HostBench(head_rows=((2, 0, 150),))


def test_an_answer_that_was_not_granted_is_a_fault():
    async def host(bench, ctx):
        bench._message((0, 0), 1, [5])
        await ctx.tick().repeat(40)
        assert await bench.status(ctx) == {"fault"}

    HostBench().run(host)


def test_registers_do_not_overlap():
    words = [address for name, first in REGISTERS.items()
             for address in range(first, first + 4 * {"COUNTERS": 8, "ENDS": ENDS}.get(name, 1), 4)]
    assert len(set(words)) == len(words)
    assert max(words) < 1 << ADDRESS_BITS
