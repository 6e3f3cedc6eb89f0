# amaranth: UnusedElaboratable=no
"""Quantiser against hwgen.arithmetic.mx: words, scales, padding, timing."""

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.sim import Simulator
from vector_bench import State

from hwgen.arithmetic import mx
from hwgen.isa import Dest
from hwgen.rtl.quantiser import Quantiser, mx_word_bytes
from hwgen.rtl.vector_command import Op

RNG = np.random.default_rng(5)
WORDS = 160


@dataclass
class Vector:
    """What to quantise and where to; `codes` are those of EXP."""

    values: np.ndarray
    codes: np.ndarray | None = None
    frac: int = 0
    kind: Dest = Dest.X
    base: int = 3
    stride: int = 1

    def words(self, lanes):
        """32-bit inputs, a row a list."""
        flat = [int(v) & 0xFFFFFFFF for v in self.values]
        if self.codes is not None:
            flat = [v | int(c) << 16 for v, c in zip(flat, self.codes, strict=True)]
        flat += [0] * (-len(flat) % lanes)
        return [flat[at : at + lanes] for at in range(0, len(flat), lanes)]


def quantise(unit, vectors, position=0):
    """Feed the vectors as fast as allowed; of each, ([(cycle, address, data, mask)], [(address, scale code)])."""
    results = []

    async def bench(ctx):
        ctx.set(unit.position, position)
        for vector in vectors:
            results.append(await _feed(ctx, unit, vector))

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


async def _feed(ctx, unit, vector):
    rows, per_block, halves = vector.words(unit.lanes), 32 // unit.lanes, max(1, unit.lanes // unit.vlen)
    ctx.set(unit.context, {"base": vector.base, "dkind": int(vector.kind), "b": 100, "stride": vector.stride, "sout": 0,
                           "frac": vector.frac, "tail": (len(vector.values) - 1) % unit.lanes + 1, "push": 1})
    writes, codes, cycle, row, free, finished = [], [], 0, 0, 0, False
    while not finished:
        last = row == len(rows) - 1
        closes = last or row % per_block == per_block - 1
        # the issuer lets a block close when the one before has left, and feeds narrow words at their pace
        offered = row < len(rows) and cycle >= row * halves and (not closes or cycle >= free)
        ctx.set(unit.valid, offered)
        if offered:
            ctx.set(unit.step, {"id": 2, "op": int(Op.COPY if vector.codes is None else Op.EXP), "first": row == 0,
                                "last": last, "block_last": closes, "accumulate": 0, "final": 1, "amount": 0})
            ctx.set(unit.values.as_value(), sum(w << 32 * i for i, w in enumerate(rows[row])))
            free = cycle + (row % per_block + 1) * halves if closes else free
            row += 1
        if ctx.get(unit.enable):
            assert ctx.get(unit.is_kv) == (vector.kind != Dest.X)
            writes.append((cycle, ctx.get(unit.address), ctx.get(unit.data), ctx.get(unit.mask)))
        if ctx.get(unit.code_valid):
            codes.append((ctx.get(unit.code_address), ctx.get(unit.code)))
        finished = ctx.get(unit.done)
        await ctx.tick()
        cycle += 1
        assert cycle < 4 * len(vector.values) + 100
    return writes, codes


def stored(writes, size):
    """The writes applied to memory full of 0x5A, as bytes [words, size]."""
    memory = np.full((WORDS, size), 0x5A, np.uint8)
    for _, address, data, mask in writes:
        for byte in range(size):
            if mask >> byte & 1:
                memory[address, byte] = data >> 8 * byte & 0xFF
    return memory


def expected(vlen, quantised, base):
    state = State(vlen, None, np.full((WORDS, mx_word_bytes(vlen)), 0x5A, np.uint8), None)
    state.store(state.x, base, quantised)
    return state.x


def vectors(n):
    """Vectors of n: uniform magnitudes, one dominating element, zeros, ends of the int32 range."""
    bits = RNG.integers(0, 32, n)
    yield RNG.integers(-(1 << 31), 1 << 31, n) >> bits
    few = RNG.integers(-3, 4, n)
    few[n // 2] = -(1 << 31)
    yield few
    yield np.where(np.arange(n) % 64 < 32, 0, (1 << 31) - 1)
    yield np.full(n, -(1 << 14)) + RNG.integers(0, 2, n)
    # just below and at a tie, and just below a power of two, which rounds to 128
    yield RNG.choice([255, 254, 253, 127, -255, -128, 129, 131, -129], n)


@pytest.mark.parametrize("lanes, vlen", [(1, 8), (2, 64), (4, 16), (8, 32), (8, 8), (16, 8), (16, 32), (16, 128)])
def test_integer_vectors(lanes, vlen):
    cases = [Vector(v, frac=int(RNG.integers(-64, 64))) for n in (1, 32, 33, 50, 77) for v in vectors(n)]
    for case, (writes, _) in zip(cases, quantise(Quantiser(lanes=lanes, vlen=vlen), cases), strict=True):
        got = stored(writes, mx_word_bytes(vlen))
        np.testing.assert_array_equal(got, expected(vlen, mx.quantize_int(case.values, case.frac), case.base))


@pytest.mark.parametrize("lanes, vlen", [(1, 32), (4, 8), (16, 64)])
def test_weighted_vectors(lanes, vlen):
    cases = []
    for n in (1, 32, 50):
        for low, high in ((0, 255), (0, 12), (240, 255)):
            p = RNG.integers(0, 32769, n) >> RNG.integers(0, 17, n)
            p[0] = 32768
            cases.append(Vector(p, codes=RNG.integers(low, high, n)))
    cases.append(Vector(np.zeros(40, np.int64), codes=RNG.integers(0, 255, 40)))
    for case, (writes, _) in zip(cases, quantise(Quantiser(lanes=lanes, vlen=vlen), cases), strict=True):
        got = stored(writes, mx_word_bytes(vlen))
        np.testing.assert_array_equal(got, expected(vlen, mx.quantize_weighted(case.values, case.codes), case.base))


@pytest.mark.parametrize("lanes, vlen", [(1, 8), (16, 8), (8, 64)])
def test_column(lanes, vlen):
    case, position = Vector(RNG.integers(-5000, 5000, 27), frac=12, kind=Dest.VCOL, base=9, stride=5), 13
    [(writes, codes)] = quantise(Quantiser(lanes=lanes, vlen=vlen), [case], position)
    quantised = mx.quantize_int(case.values, 12)
    memory = np.full((WORDS, mx_word_bytes(vlen)), 0x5A, np.uint8)
    memory[9 + 5 * np.arange(27), position % vlen] = quantised.elements[0, :27].astype(np.uint8)
    np.testing.assert_array_equal(stored(writes, mx_word_bytes(vlen)), memory)
    assert codes == [(100 + position, int(quantised.scales[0]))]


def test_first_row_leaves_three_cycles_after_the_closing_one():
    [(writes, _)] = quantise(Quantiser(lanes=8, vlen=32), [Vector(np.arange(64))])
    # rows 3 and 7 close the blocks
    assert [cycle for cycle, *_ in writes] == [6, 7, 8, 9, 10, 11, 12, 13]
