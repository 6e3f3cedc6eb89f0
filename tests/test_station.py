# amaranth: UnusedElaboratable=no
import pytest
from amaranth.hdl import signed
from amaranth.lib import data
from amaranth.sim import Simulator

from hwgen.isa import VMEM_BITS, Instruction, Unit, encode
from hwgen.rtl.arrival_counters import ArrivalCounters
from hwgen.rtl.indexed_base import IndexedBase
from hwgen.rtl.station import Station
from hwgen.rtl.token_counters import TokenCounters

MATRIX = data.StructLayout({
    "x": 16, "base": 24, "rows": 16, "kwords": 12, "stride": 16, "dst": VMEM_BITS, "kv": 1, "bare": 1, "gather": 1,
    "two_limb": 1, "push": 3,
})
VECTOR = data.StructLayout({
    "op": 4, "a": VMEM_BITS, "b": VMEM_BITS, "n": 16, "dst": 20, "dkind": 3, "sin": 3, "sout": 3,
    "shift": signed(7), "frac": signed(7), "stride": 12, "fence": 1, "push": 3,
})


def run(component, *benches, cycles=400):
    """Simulate the benches (async functions of the context) to the end; fails after `cycles`."""
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    left = [len(benches)]

    def wrapped(bench):
        async def body(ctx):
            await bench(ctx)
            left[0] -= 1
        return body

    for bench in benches:
        simulator.add_testbench(wrapped(bench))

    async def limit(ctx):
        for _ in range(cycles):
            await ctx.tick()
            if not left[0]:
                return
        pytest.fail(f"not finished after {cycles} cycles")

    simulator.add_testbench(limit)
    simulator.run()


async def put(ctx, stream, payload):
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def get(ctx, stream):
    ctx.set(stream.ready, 1)
    (payload,) = await ctx.tick().sample(stream.payload).until(stream.valid)
    ctx.set(stream.ready, 0)
    return payload


def matrix(op="MATMUL", pop=0, push=0, fence=0, **fields):
    return encode(Instruction(Unit.MATRIX, op, fields, pop=pop, push=push, fence=fence))


def test_resolves_lengths_from_the_position():
    dut = Station(unit="MATRIX", depth=2, vlen=32, command=MATRIX)

    async def bench(ctx):
        ctx.set(dut.position, 70)
        await put(ctx, dut.enqueue, matrix(x=3, base=9, rows=5, kwords=7, stride=4, dst=11, dyn_rows=1, kv=1, push=2))
        first = await get(ctx, dut.cmd)
        assert (first.x, first.base, first.rows, first.kwords, first.stride, first.dst) == (3, 9, 71, 7, 4, 11)
        assert (first.kv, first.bare, first.gather, first.two_limb) == (1, 0, 0, 0)
        assert first.push == 0b011  # the instruction's, and the unit's own bit that reports completion
        await put(ctx, dut.enqueue, matrix(rows=5, kwords=7, dyn_k=1))
        second = await get(ctx, dut.cmd)
        assert (second.rows, second.kwords) == (5, 3)

    run(dut, bench)


@pytest.mark.parametrize(("index", "expected"), [(0, 1000), (1, 1000 + 300 * 77), (2, 1000 + 300 * 41)])
def test_gather_address(index, expected):
    dut = Station(unit="MATRIX", depth=1, vlen=8, command=MATRIX)

    async def bench(ctx):
        ctx.set(dut.token, 77)
        ctx.set(dut.position, 41)
        for _ in range(2):  # the second must not see the first one's sum
            await put(ctx, dut.enqueue, matrix("GATHER", base=1000, stride=300, rows=2, index=index, two_limb=1))
            command = await get(ctx, dut.cmd)
            assert (command.base, command.gather, command.two_limb) == (expected, 1, 1)

    run(dut, bench)


def test_indexed_base_wraps_at_24_bits():
    dut = IndexedBase(index_bits=20)

    async def bench(ctx):
        for base, stride, index in ((5, 7, 0), (0xFFFFFF, 0xFFFF, 0xFFFFF), (123, 9, 0b1011)):
            ctx.set(dut.base, base)
            ctx.set(dut.stride, stride)
            ctx.set(dut.index, index)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles = 1
            while not ctx.get(dut.ready):
                await ctx.tick()
                cycles += 1
            assert cycles == 1 + -(-index.bit_length() // 2)
            assert ctx.get(dut.sum) == (base + stride * index) % (1 << 24)

    run(dut, bench)


def test_signed_fields_and_order():
    dut = Station(unit="VECTOR", depth=4, vlen=8, command=VECTOR)
    fields = [{"a": 64 * i, "n": i + 1, "dyn": i & 1, "shift": -i, "frac": -64 + i} for i in range(6)]
    words = [encode(Instruction(Unit.VECTOR, "ADD", f, fence=i & 1)) for i, f in enumerate(fields)]

    async def feed(ctx):
        ctx.set(dut.position, 16)
        for word in words:
            await put(ctx, dut.enqueue, word)

    async def bench(ctx):
        for i in range(6):
            if i == 2:
                await ctx.tick().repeat(9)  # let the queue fill
            command = await get(ctx, dut.cmd)
            assert (command.a, command.n, command.shift, command.frac) == (64 * i, 17 if i & 1 else i + 1, -i, -64 + i)
            assert (command.op, command.fence) == (2, i & 1)

    run(dut, feed, bench)


def test_waits_for_tokens_and_fence():
    dut = Station(unit="MATRIX", depth=4, vlen=8, command=MATRIX)

    async def bench(ctx):
        ctx.set(dut.cmd.ready, 1)
        ctx.set(dut.available, 0b001)
        await put(ctx, dut.enqueue, matrix(pop=0b110))
        for available in (0b011, 0b101):
            ctx.set(dut.available, available)
            assert not ctx.get(dut.cmd.valid) and ctx.get(dut.waits_token) and not ctx.get(dut.take)
            await ctx.tick()
        ctx.set(dut.available, 0b111)
        assert ctx.get(dut.cmd.valid) and ctx.get(dut.take) == 0b110
        await ctx.tick()
        assert not ctx.get(dut.idle)  # in the unit
        await put(ctx, dut.enqueue, matrix(fence=1))
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.cmd.valid)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        assert ctx.get(dut.cmd.valid)
        await ctx.tick()
        assert not ctx.get(dut.fault)
        ctx.set(dut.done, 1)
        await ctx.tick()
        assert ctx.get(dut.idle)
        assert ctx.get(dut.fault)  # completes more than was started

    run(dut, bench)


def test_wait_takes_arrivals():
    dut = Station(unit="SEND", depth=2, vlen=8, command=data.StructLayout({"src": 16, "n": 16, "push": 3}))

    async def bench(ctx):
        ctx.set(dut.available, 0b100)
        wait = encode(Instruction(Unit.SEND, "WAIT", {"ctr": 9, "count": 0x9ABCD}, pop=0b001, push=0b010))
        await put(ctx, dut.enqueue, wait)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.wait.valid) and not ctx.get(dut.waits_message)
        ctx.set(dut.available, 0b101)
        assert ctx.get(dut.wait.valid) and ctx.get(dut.waits_message)
        assert (ctx.get(dut.wait.ctr), ctx.get(dut.wait.count)) == (9, 0x9ABCD)
        assert not ctx.get(dut.give)
        ctx.set(dut.wait.granted, 1)
        assert ctx.get(dut.give) == 0b010 and ctx.get(dut.take) == 0b001
        await ctx.tick()
        assert ctx.get(dut.idle) and not ctx.get(dut.cmd.valid)

    run(dut, bench)


def test_arrival_counters():
    dut = ArrivalCounters(word_bits=4, waiters=3)

    def present(ctx, ctr, words):
        ctx.set(dut.add.valid, 1)
        ctx.set(dut.add.ctr, ctr)
        ctx.set(dut.add.words, words)

    async def add(ctx, ctr, words):
        present(ctx, ctr, words)
        await ctx.tick()
        ctx.set(dut.add.valid, 0)

    async def bench(ctx):
        await add(ctx, 3, 5)
        await add(ctx, 7, 7)
        for i, (ctr, count) in enumerate(((3, 6), (7, 7), (3, 2))):
            wait = getattr(dut, f"wait{i}")
            ctx.set(wait.ctr, ctr)
            ctx.set(wait.count, count)
            ctx.set(wait.valid, 1)
        assert [ctx.get(getattr(dut, f"wait{i}").granted) for i in range(3)] == [0, 1, 0]
        present(ctx, 7, 2)  # in the very cycle in which the counter is taken from
        await ctx.tick()
        ctx.set(dut.add.valid, 0)
        assert [ctx.get(getattr(dut, f"wait{i}").granted) for i in range(3)] == [0, 0, 1]
        ctx.set(dut.wait1.count, 2)
        assert ctx.get(dut.wait1.granted)
        await ctx.tick()
        ctx.set(dut.wait1.valid, 0)
        assert ctx.get(dut.wait2.granted)
        await ctx.tick()
        ctx.set(dut.wait2.valid, 0)
        assert not ctx.get(dut.wait0.granted)  # 3 left, 6 wanted
        await add(ctx, 3, 3)
        assert ctx.get(dut.wait0.granted)
        assert not ctx.get(dut.fault)
        present(ctx, 8, 2)
        assert ctx.get(dut.fault)

    run(dut, bench)


def test_token_counters():
    dut = TokenCounters()

    async def bench(ctx):
        assert [ctx.get(getattr(dut, f"available{i}")) for i in range(3)] == [0b001, 0b010, 0b100]
        ctx.set(dut.give0, 0b111)
        ctx.set(dut.also0, 0b010)
        await ctx.tick()
        ctx.set(dut.give0, 0)
        ctx.set(dut.also0, 0)
        assert [ctx.get(getattr(dut, f"available{i}")) for i in range(3)] == [0b001, 0b011, 0b101]
        ctx.set(dut.take1, 0b001)
        await ctx.tick()
        assert ctx.get(dut.available1) == 0b011 and not ctx.get(dut.fault)
        await ctx.tick()
        assert ctx.get(dut.available1) == 0b010 and ctx.get(dut.fault)
        ctx.set(dut.take1, 0)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert ctx.get(dut.available2) == 0b100
        ctx.set(dut.give1, 0b100)
        for _ in range(63):
            assert not ctx.get(dut.fault)
            await ctx.tick()
        assert ctx.get(dut.fault)

    run(dut, bench)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Station(unit="CONTROL", depth=1, vlen=8, command=MATRIX),
     "Unit must be MATRIX, VECTOR or SEND, not 'CONTROL'"),
    (lambda: Station(unit="SEND", depth=9, vlen=8, command=MATRIX), "Stations must be 1 to 8, not 9"),
    (lambda: ArrivalCounters(word_bits=0, waiters=3), "Arrivals in one cycle must fit 1 to 20 bits, not 0"),
    (lambda: ArrivalCounters(word_bits=4, waiters=0), "Waiters must be 1 or more, not 0"),
    (lambda: IndexedBase(index_bits=0), "Index width must be 1 or more, not 0"),
])
def test_refuses_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_streams_have_tokens_of_their_own():
    dut = TokenCounters(streams=2)

    async def bench(ctx):
        ctx.set(dut.give0, 0b1_010)  # of stream 1, to the vector unit
        await ctx.tick()
        ctx.set(dut.give0, 0)
        assert ctx.get(dut.available1) == 0b011_010
        ctx.set(dut.take1, 0b0_001)  # of stream 0: there is none
        assert ctx.get(dut.fault)
        ctx.set(dut.take1, 0b1_001)
        assert not ctx.get(dut.fault)
        await ctx.tick()
        assert ctx.get(dut.available1) == 0b010_010

    run(dut, bench)


def test_a_station_resolves_an_instruction_with_what_its_stream_has():
    command = data.StructLayout({"a": 16, "n": 16, "push": 4})
    dut = Station(unit="VECTOR", depth=2, vlen=8, command=command, streams=2)

    async def bench(ctx):
        ctx.set(dut.position, 20 | 30 << 20)
        ctx.set(dut.cmd.ready, 0)
        for stream in (1, 0):
            ctx.set(dut.stream, stream)
            word = encode(Instruction(Unit.VECTOR, "COPY", {"a": stream, "dyn": 1}, pop=0b001, push=0b100))
            await put(ctx, dut.enqueue, word)
        ctx.set(dut.available, 0b010_011)  # the first one is of stream 1, which has no token
        assert ctx.get(dut.waits_token)
        ctx.set(dut.available, 0b011_010)
        ctx.set(dut.cmd.ready, 1)
        for stream in (1, 0):
            ctx.set(dut.available, 0b011_010 if stream else 0b010_011)
            assert ctx.get(dut.cmd.valid) and ctx.get(dut.cmd.payload.a) == stream
            assert ctx.get(dut.cmd.payload.n) == (31 if stream else 21)
            assert ctx.get(dut.cmd.payload.push) == stream << 3 | 0b110 and ctx.get(dut.take) == stream << 3 | 0b001
            await ctx.tick()

    run(dut, bench)
