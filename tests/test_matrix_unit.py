# amaranth: UnusedElaboratable=no
"""Matrix unit against the law of numbers: every VLEN, both weight sources and formats, gathers, extreme scales,
back-pressure."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.arithmetic.mx import Mx, matmul
from hwgen.arithmetic.mxfp4 import FORMATS, decode
from hwgen.isa import VMEM_BITS
from hwgen.rtl.block_shift import BlockShift
from hwgen.rtl.dot_product import DotProduct
from hwgen.rtl.matrix_unit import MatrixUnit
from hwgen.rtl.operand_issue import command_layout
from hwgen.rtl.result_queue import ResultQueue

VLENS = (8, 16, 32, 64, 128, 256)


@dataclass
class Word:
    """One MX word: int8 [vlen] and scale codes [max(1, vlen / 32)], or twice as many in a ROM with 4-bit codes."""

    elements: np.ndarray
    scales: np.ndarray

    def bits(self) -> int:
        content = self.elements.astype(np.int8).tobytes() + self.scales.astype(np.uint8).tobytes()
        return int.from_bytes(content, "little")


class Memories:
    """Random contents of the three memories, with block scales equal over the words of a block."""

    def __init__(self, rng, vlen, scales=(100, 150), weights="mxint8"):
        self.rng, self.vlen, self.blocks, self.scales, self.weights = rng, vlen, max(1, vlen // 32), scales, weights
        self.words = {"rom": {}, "kv": {}, "x": {}}

    def word(self, memory, address) -> Word:
        """The word at `address` of a memory, made on first use."""
        words = self.words[memory]
        if address not in words:
            elements = self.rng.integers(-127, 128, self.vlen)
            if self.rng.random() < 0.3:
                elements = np.sign(elements) * 127
            count = 2 * self.blocks if memory == "rom" and self.weights == "mxfp4" else self.blocks
            words[address] = Word(elements, self.rng.integers(*self.scales, count))
        return words[address]

    def weight(self, cmd, address) -> Word:
        """The word that a command's matrix or table has at `address`."""
        if cmd["kv"]:
            return self.word("kv", address)
        if not cmd.get("narrow"):
            word = self.word("rom", address)
            return Word(word.elements, word.scales[: self.blocks])
        word, half = self.word("rom", address // 2), address % 2
        held = word.elements.astype(np.int8).view(np.uint8)[half * self.vlen // 2 :][: self.vlen // 2]
        elements = decode(np.stack([held & 15, held >> 4], -1).ravel())
        return Word(elements.astype(np.int64), word.scales[half * self.blocks :][: self.blocks])


def matmul_rows(memories, cmd):
    """Expected (values, overflow) of a MATMUL, by the unit's model from blocks of up to 32 elements."""
    vlen, span = memories.vlen, max(1, 32 // memories.vlen)
    x_words = [memories.word("x", cmd["x"] + k) for k in range(cmd["kwords"])]
    rows = [[memories.weight(cmd, cmd["base"] + r * cmd["stride"] + k) for k in range(cmd["kwords"])]
            for r in range(cmd["rows"])]

    def blocks(words):
        elements = np.concatenate([word.elements for word in words])
        elements = np.concatenate([elements, np.zeros(-len(elements) % 32, np.int64)]).reshape(-1, 32)
        if vlen >= 32:
            return elements, np.concatenate([word.scales for word in words])
        ends = [*range(span - 1, len(words) - 1, span), len(words) - 1]
        return elements, np.array([words[end].scales[0] for end in ends])

    x, x_scales = blocks(x_words)
    pairs = [blocks(row) for row in rows]
    w_scales = np.array([scales for _, scales in pairs])
    if cmd["bare"]:
        w_scales[:] = 127
    w = np.array([elements for elements, _ in pairs])
    values, overflow = MatrixUnit.model(w, w_scales, x, x_scales)
    law = matmul(Mx(x, x_scales, 0), Mx(w, w_scales, 0))
    assert np.array_equal(law[0], values) and np.array_equal(law[1], overflow)
    return values, overflow


def gather_rows(memories, cmd):
    """Expected (values, overflow) of a GATHER: every limb's element is a block of its own."""
    vlen, limbs = memories.vlen, 1 + cmd["two_limb"]
    w, scales = np.zeros((cmd["rows"], limbs, 1), np.int64), np.zeros((cmd["rows"], limbs), np.int64)
    for j in range(cmd["rows"]):
        element = cmd["x"] + j
        for limb in range(limbs):
            word = memories.weight(cmd, cmd["base"] + element // vlen * limbs + limb)
            w[j, limb, 0] = word.elements[element % vlen]
            scales[j, limb] = word.scales[element % vlen // 32]
    return MatrixUnit.model(w, scales, np.full((limbs, 1), 64), np.full(limbs, 127))


def expected(memories, cmds):
    """All results in order as (data, addr, last, push), and whether anything overflowed."""
    results, any_overflow = [], False
    for cmd in cmds:
        values, overflow = (gather_rows if cmd["gather"] else matmul_rows)(memories, cmd)
        for r, value in enumerate(values):
            last = r == cmd["rows"] - 1
            results.append((int(value), (cmd["dst"] + r) % (1 << VMEM_BITS), int(last), cmd["push"]))
        any_overflow |= bool(np.any(overflow))
    return results, any_overflow


def command(**fields):
    return dict.fromkeys(command_layout("mxint8").members, 0) | {"rows": 1, "kwords": 1} | fields


@dataclass
class Batch:
    """Instructions for one stretch of a simulation, which ends when the unit is empty again."""

    memories: Memories
    cmds: list
    ready: float = 1.0
    """Chance per cycle of taking a result."""
    idle: float = 0.0
    """Chance per cycle of holding back the next command."""


@dataclass
class Run:
    """What one batch did."""

    results: list
    overflow: bool
    busy: int
    """Accepted operand words."""
    cycles: int
    """Cycles from the first accepted operand word to the last."""
    rom_reads: int


def simulate(rng, batches) -> list[Run]:
    """Runs the batches one after the other on one unit, serving its memories."""
    unit = MatrixUnit(vlen=batches[0].memories.vlen, weights=batches[0].memories.weights)
    runs = []

    async def testbench(ctx):
        for batch in batches:
            runs.append(await drive(ctx, unit, rng, batch))

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return runs


async def drive(ctx, unit, rng, batch) -> Run:
    pending, results, busy, overflow, offered, quiet, cycle = list(batch.cmds), [], [], False, False, 0, 0
    rom_reads = 0
    total = sum(cmd["rows"] for cmd in batch.cmds)
    while quiet < 12:
        if pending and not offered and rng.random() >= batch.idle:
            ctx.set(unit.cmd.payload, pending[0])
            offered = True
        ctx.set(unit.cmd.valid, offered)
        ctx.set(unit.result.ready, rng.random() < batch.ready)
        reads = [(name, ctx.get(getattr(unit, f"{name}_addr"))) for name in ("rom", "kv", "x")
                 if ctx.get(getattr(unit, f"{name}_en"))]
        if offered and ctx.get(unit.cmd.ready):
            pending.pop(0)
            offered = False
        if ctx.get(unit.mac_busy):
            busy.append(cycle)
        if ctx.get(unit.result.valid) and ctx.get(unit.result.ready):
            payload = ctx.get(unit.result.payload)
            results.append((payload.data - (payload.data >> 31 << 32), payload.addr, payload.last, payload.push))
        overflow |= bool(ctx.get(unit.overflow))
        rom_reads += any(name == "rom" for name, _ in reads)
        await ctx.tick()
        for name, address in reads:
            ctx.set(getattr(unit, f"{name}_data"), batch.memories.word(name, address).bits())
        cycle += 1
        quiet = quiet + 1 if len(results) >= total and not pending else 0
        assert cycle < 20000, "the unit hangs"
    return Run(results, overflow, len(busy), busy[-1] - busy[0] + 1, rom_reads)


def check(rng, batches) -> list[Run]:
    """Simulates and compares results, flags and busy counts; the runs."""
    runs = simulate(rng, batches)
    for batch, run in zip(batches, runs, strict=True):
        assert (run.results, run.overflow) == expected(batch.memories, batch.cmds)
        assert run.busy == sum(map(words_of, batch.cmds))
    return runs


def random_commands(rng, vlen, count, weights="mxint8"):
    cmds = []
    for _ in range(count):
        if rng.random() < 0.3:
            cmds.append(command(
                gather=1, two_limb=int(rng.integers(2)), x=int(rng.integers(0, 3 * vlen)), kv=int(rng.integers(2)),
                rows=int(rng.integers(1, 12)), base=int(rng.integers(200)), dst=int(rng.integers(1000)),
                push=int(rng.integers(8)), kwords=int(rng.integers(1, 5))))
        else:
            cmds.append(command(
                x=int(rng.integers(50)), base=int(rng.integers(200)), rows=int(rng.integers(1, 6)),
                kwords=int(rng.integers(1, 10)), stride=int(rng.integers(12)), dst=int(rng.integers(1 << VMEM_BITS)),
                kv=int(rng.integers(2)), bare=int(rng.integers(2)), push=int(rng.integers(8))))
        if weights == "mxfp4":
            cmds[-1]["narrow"] = int(rng.integers(2))
    return cmds


def words_of(cmd):
    return cmd["rows"] * (1 + cmd["two_limb"] if cmd["gather"] else cmd["kwords"])


@pytest.mark.parametrize(("vlen", "weights"), [
    pytest.param(vlen, weights, marks=pytest.mark.full if weights == "mxfp4" and vlen not in (8, 32, 64) else [])
    for vlen in VLENS for weights in FORMATS])
def test_random_instructions(vlen, weights):
    rng = np.random.default_rng(vlen)
    memories = Memories(rng, vlen, weights=weights)
    count = 4 if vlen > 64 else 8
    check(rng, [
        Batch(memories, random_commands(rng, vlen, count, weights)),
        Batch(memories, random_commands(rng, vlen, count, weights), ready=0.3),
        Batch(memories, random_commands(rng, vlen, count, weights), ready=0.7, idle=0.5),
        *extreme_batches(rng, vlen, weights=weights),
    ])


def extreme_batches(rng, vlen, repeats=2, weights="mxint8"):
    """Single rows, so that the flag is compared row by row: far right, close to int32's limits, far left."""
    ranges = [(0, 60), (115, 118), (130, 150), (135, 137), (134, 140), (200, 256)]
    narrow = {"narrow": 1} if weights == "mxfp4" else {}
    return [Batch(Memories(rng, vlen, ranges[i % len(ranges)], weights),
                  [command(kwords=int(rng.integers(1, 6)), push=5, **narrow)])
            for i in range(len(ranges) * repeats)]


def test_scales_reach_both_flags():
    """The extreme scales above make rows that overflow and rows that do not, on purpose."""
    rng = np.random.default_rng(1)
    flags = [expected(batch.memories, batch.cmds)[1] for batch in extreme_batches(rng, 32, repeats=20)]
    assert not any(flags[0::6]) and not any(flags[1::6]) and all(flags[5::6])
    assert {True, False} == set(flags[2::6] + flags[3::6] + flags[4::6])


def test_sum_that_leaves_int32_and_comes_back():
    """Only the exact sum of a row decides, whatever its parts: large blocks and their opposites."""
    rng = np.random.default_rng(0)
    batches = []
    for signs in ((1, 1, -1, -1), (1, 1, 1, -1), (-1, -1, -1, 1), (1, 1), (1, -1), (1,)):
        memories = Memories(rng, 32)
        for k, sign in enumerate(signs):
            memories.words["rom"][k] = Word(np.full(32, sign * 100), np.array([127 + 6]))
            memories.words["x"][k] = Word(np.full(32, 100), np.array([127 + 6]))
        batches.append(Batch(memories, [command(kwords=len(signs)), command(kwords=1)]))
    runs = check(rng, batches)
    assert [run.overflow for run in runs] == [False, True, True, True, False, False]


@pytest.mark.parametrize("vlen", (8, 32))
def test_head_of_eight_channels(vlen):
    """A row shorter than a block ends its block early."""
    rng = np.random.default_rng(8)
    memories = Memories(rng, vlen)
    for words in memories.words.values():
        for address in range(40):
            elements = np.zeros(vlen, np.int64)
            elements[:8] = rng.integers(-127, 128, 8)
            words[address] = Word(elements, rng.integers(118, 132, 1))
    check(rng, [Batch(memories, [
        command(rows=20, kwords=1, stride=1, kv=1, dst=3, push=2), command(rows=3, kwords=2, stride=2),
    ])])


@pytest.mark.parametrize("vlen", (8, 32, 64))
def test_one_word_a_cycle(vlen):
    """No bubble between rows of one word, rows of several, and instructions back to back."""
    rng = np.random.default_rng(5)
    cmds = [
        command(rows=30, kwords=1, stride=1), command(rows=4, kwords=3, stride=3, dst=9), command(rows=2, kwords=2),
        command(rows=9, gather=1, two_limb=1, x=5), command(rows=5, gather=1), command(rows=1, kwords=3, kv=1),
        *[command(rows=1, kwords=3, dst=i) for i in range(6)], *[command(rows=3, dst=i) for i in range(6)],
    ]
    run, = check(rng, [Batch(Memories(rng, vlen), cmds)])
    assert run.cycles == run.busy


@pytest.mark.parametrize("vlen", (8, 32, 64))
def test_rows_of_codes_take_a_cycle_a_word_and_a_read_a_pair(vlen):
    """Two words of codes lie in a ROM word: rows begin in either, and the second costs no read of its own."""
    rng = np.random.default_rng(9)
    for ready in (1.0, 0.4):
        memories = Memories(rng, vlen, weights="mxfp4")
        even = command(narrow=1, base=6, rows=7, kwords=4, stride=4)
        odd = command(narrow=1, base=7, rows=7, kwords=3, stride=3, dst=50)
        single = command(narrow=1, base=40, rows=9, stride=1)
        runs = check(rng, [Batch(memories, [cmd], ready=ready) for cmd in (even, odd, single)])
        assert [run.rom_reads for run in runs] == [7 * 2, 7 * 2, 9]
        assert ready < 1 or [run.cycles for run in runs] == [28, 21, 9]


def test_every_code_of_a_gather():
    """All sixteen codes in both halves, one by one, beside 8-bit elements of the same words."""
    rng = np.random.default_rng(10)
    memories = Memories(rng, 32, (121, 122), weights="mxfp4")
    codes = np.concatenate([np.arange(16), np.arange(16)[::-1]])
    held = (codes[0::2] | codes[1::2] << 4).astype(np.uint8).view(np.int8)
    memories.words["rom"][3] = Word(np.concatenate([held, held]), np.array([127, 129]))
    cmds = [command(gather=1, narrow=1, base=6, rows=64), command(gather=1, base=3, rows=32)]
    run, = check(rng, [Batch(memories, cmds)])
    numbers = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
    got = [value for value, *_ in run.results]
    assert got[:16] == [1024 * n for n in numbers]
    assert got[32:48] == [4096 * n for n in numbers]


def test_sustained_back_pressure_loses_nothing():
    rng = np.random.default_rng(6)
    cmds = [command(rows=60, kwords=1, stride=1), command(rows=20, gather=1), command(rows=3, kwords=4, stride=4)]
    run, = check(rng, [Batch(Memories(rng, 16), cmds, ready=0.05)])
    assert run.cycles > 500


@pytest.mark.parametrize("make, sentence", [
    (lambda: MatrixUnit(vlen=48), "VLEN must be 8, 16, 32, 64, 128 or 256, not 48"),
    (lambda: MatrixUnit(vlen=32, weights="fp4"), "Weights must be mxint8 or mxfp4, not 'fp4'"),
    (lambda: MatrixUnit(vlen=32, rom_address_bits=25), "Weight ROM address width must be 1 to 24, not 25"),
    (lambda: MatrixUnit(vlen=32, kv_address_bits=0), "KV address width must be 1 to 24, not 0"),
    (lambda: MatrixUnit(vlen=32, x_address_bits=17), "Operand address width must be 1 to 16, not 17"),
    (lambda: DotProduct(vlen=4), "VLEN must be 8, 16, 32, 64, 128 or 256, not 4"),
    (lambda: BlockShift(blocks=1, ahead=0), "Cycles ahead must be 1 or more, not 0"),
    (lambda: BlockShift(blocks=3, ahead=1), "Blocks must be a power of two, not 3"),
    (lambda: ResultQueue(depth=0, instructions=1), "Depths must be 1 or more, not 0 and 1"),
])
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
