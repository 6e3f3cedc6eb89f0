# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hwgen.isa import Instruction, Unit, When, encode
from hwgen.rtl.sequencer import Sequencer

ISSUE = ("issue0", "issue1", "issue2")
END = Instruction(Unit.CONTROL, "END")


def send(number, unit=Unit.MATRIX, when=When.ALWAYS):
    """An instruction that can be told from others by its number."""
    fields = {Unit.MATRIX: ("MATMUL", "x"), Unit.VECTOR: ("COPY", "a"), Unit.SEND: ("SEND", "src")}
    op, field = fields[unit]
    return Instruction(unit, op, {field: number}, when=when)


class Bench:
    """A program ROM, queues that take an instruction where `room` says so, and the issues [(cycle, unit, word)]."""

    def __init__(self, program, fetch, room=None, streams=1):
        words = [encode(i) for i in program]
        words += [0] * (-len(words) % fetch)
        self.rom = [sum(w << 128 * k for k, w in enumerate(words[i:i + fetch])) for i in range(0, len(words), fetch)]
        self.dut = Sequencer(fetch=fetch, address_bits=8, streams=streams)
        self.room = room or (lambda cycle, unit: True)
        self.log, self.ends, self.idle = [], [], True
        self.cycle = 0

    async def start(self, ctx, token=0, position=0, output=0, logits=0, clear=0, idle=0):
        start = self.dut.start
        values = {"token": token, "position": position, "output": output, "logits": logits, "clear": clear,
                  "idle": idle}
        for name, value in values.items():
            ctx.set(getattr(start, name), value)
        ctx.set(start.valid, 1)
        await ctx.tick()
        ctx.set(start.valid, 0)

    def run(self, body, cycles=300):
        async def main(ctx):
            await body(ctx)
            self.finished = True

        async def memory(ctx):
            dut = self.dut
            for self.cycle in range(cycles):
                for unit, name in enumerate(ISSUE):
                    ctx.set(getattr(dut, name).ready, self.room(self.cycle, unit))
                ctx.set(dut.idle, self.idle)
                await ctx.delay(1e-7)
                for unit, name in enumerate(ISSUE):
                    stream = getattr(dut, name)
                    if ctx.get(stream.valid) and ctx.get(stream.ready):
                        self.log.append((self.cycle, unit, ctx.get(stream.payload)))
                if ctx.get(dut.ended):
                    self.ends.append(self.cycle)
                enabled, address = ctx.get(dut.program.en), ctx.get(dut.program.addr)
                await ctx.tick()
                if enabled:
                    # behind the program lies nothing that may be executed
                    ctx.set(dut.program.data, self.rom[address] if address < len(self.rom) else (1 << 512) - 1)

        self.finished = False
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(main)
        simulator.add_testbench(memory)
        simulator.run()
        assert self.finished


def numbers(log):
    """In order of issue; within a cycle in program order."""
    return [number for _, number in sorted((cycle, word >> 16 & 0xFFFF) for cycle, _, word in log)]


@pytest.mark.parametrize("fetch", [1, 2, 4])
def test_issues_in_order_one_per_unit_and_cycle(fetch):
    rng = random.Random(fetch)
    program = [send(i, Unit(rng.randrange(3))) for i in range(101)] + [END]
    bench = Bench(program, fetch, lambda cycle, unit: random.Random(f"{cycle},{unit}").random() < 0.7)
    bench.run(lambda ctx: bench.start(ctx))
    assert numbers(bench.log) == list(range(101))
    assert all(program[word >> 16 & 0xFFFF].unit == unit for _, unit, word in bench.log)
    assert len({(cycle, unit) for cycle, unit, _ in bench.log}) == 101
    assert len(bench.ends) == 1


@pytest.mark.parametrize("fetch", [1, 2, 4])
def test_sustains_fetch_instructions_a_cycle(fetch):
    units = [Unit.MATRIX, Unit.VECTOR, Unit.SEND]
    # a fourth unit does not exist: at fetch 4 every fourth instruction is one that is dropped
    program = [send(i, units[i % 4 % 3], When.OWNER if i % 4 == 3 else When.ALWAYS) for i in range(64)] + [END]
    if fetch == 1:
        program = [send(i) for i in range(64)] + [END]
    bench = Bench(program, fetch)
    bench.run(lambda ctx: bench.start(ctx))
    assert bench.log[0][0] == 3  # latency from start
    assert bench.log[-1][0] - bench.log[0][0] == 64 // fetch - 1


def test_conditions():
    program = [send(i, Unit.VECTOR, when) for i, when in enumerate(When)]
    expected = {
        (0, 0): [0, 5], (1, 0): [0, 1, 2], (1, 1): [0, 1, 3, 5], (0, 1): [0, 5],
    }
    for (output, logits), issued in expected.items():
        bench = Bench([*program, END], 4)
        bench.run(lambda ctx, o=output, g=logits, b=bench: b.start(ctx, output=o, logits=g))
        assert numbers(bench.log) == issued
        assert len(bench.ends) == 1


@pytest.mark.parametrize("fetch", [1, 2, 4])
@pytest.mark.parametrize(("idle", "issued"), [(0b00, [0, 1, 2, 3, 5]), (0b01, [2, 5]), (0b10, [0, 1, 3])])
def test_instructions_belong_to_the_stream_chosen_last(fetch, idle, issued):
    """Stream 0 wants no output and owns its token, stream 1 the other way round; END comes whoever is idle."""
    inside = Instruction(Unit.CONTROL, "RANGE", {"lo": 10, "hi": 20})
    first, second = (Instruction(Unit.CONTROL, "STREAM", {"stream": s}) for s in (0, 1))
    program = [send(0), inside, send(1, when=When.OWNER), second, send(2), inside, send(9, when=When.OWNER), first,
               inside, send(3, when=When.OWNER), send(8, when=When.OUTPUT), second, send(5, when=When.OUTPUT), END]
    bench = Bench(program, fetch, streams=2)

    async def twice(ctx):
        for _ in range(2):
            await bench.start(ctx, token=12 | 30 << 20, position=3 | 4 << 20, output=0b10, idle=idle)
            while ctx.get(bench.dut.running) or len(bench.ends) == 0:
                await ctx.tick()
            assert ctx.get(bench.dut.position) == 3 | 4 << 20

    bench.run(twice)
    assert len(bench.ends) == 2 and numbers(bench.log) == issued * 2


@pytest.mark.parametrize(("token", "owner"), [(9, False), (10, True), (19, True), (20, False)])
def test_range_rules_what_follows_it(token, owner):
    inside = Instruction(Unit.CONTROL, "RANGE", {"lo": 10, "hi": 20})
    nowhere = Instruction(Unit.CONTROL, "RANGE", {"lo": 5, "hi": 5})
    first, second, third = (send(i, when=When.OWNER) for i in (1, 2, 3))
    program = [inside, first, nowhere, second, inside, third, END]
    bench = Bench(program, 4)
    bench.run(lambda ctx: bench.start(ctx, token=token))
    assert numbers(bench.log) == ([1, 3] if owner else [])


def test_end_waits_and_a_start_is_held():
    bench = Bench([send(7), END], 2)
    seen = []

    async def body(ctx):
        bench.idle = False
        await bench.start(ctx, token=5, position=6)
        await ctx.tick().repeat(20)
        assert not bench.ends and ctx.get(bench.dut.running)
        seen.append((ctx.get(bench.dut.token), ctx.get(bench.dut.position)))
        await bench.start(ctx, token=8, position=9, clear=1)
        await ctx.tick().repeat(5)
        seen.append((ctx.get(bench.dut.token), ctx.get(bench.dut.position)))
        assert not ctx.get(bench.dut.clear)
        ctx.set(bench.dut.start.valid, 1)
        assert ctx.get(bench.dut.fault)  # a second one cannot be held
        ctx.set(bench.dut.start.valid, 0)
        bench.idle = True
        await ctx.tick().until(bench.dut.clear)
        await ctx.tick().repeat(3)
        seen.append((ctx.get(bench.dut.token), ctx.get(bench.dut.position)))

    bench.run(body)
    assert seen == [(5, 6), (5, 6), (8, 9)]
    assert numbers(bench.log) == [7, 7] and len(bench.ends) == 2


def test_reports_a_full_queue():
    bench = Bench([send(1), send(2, Unit.VECTOR), END], 2, lambda cycle, unit: unit != 0 or cycle > 20)
    blocked = []

    async def body(ctx):
        await bench.start(ctx)
        for _ in range(30):
            await ctx.tick()
            blocked.append(ctx.get(bench.dut.blocked))

    bench.run(body)
    assert sum(blocked) in range(15, 21) and bench.log[0][0] == bench.log[1][0] == 21


@pytest.mark.parametrize(("settings", "message"), [
    ({"fetch": 3, "address_bits": 4}, "Fetch must be 1, 2 or 4, not 3"),
    ({"fetch": 2, "address_bits": 0}, "Program address width must be 1 or more, not 0"),
])
def test_refuses_bad_parameters(settings, message):
    with pytest.raises(ValueError, match=message):
        Sequencer(**settings)
