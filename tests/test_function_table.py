# amaranth: UnusedElaboratable=no
"""Function tables and the scalar unit against hwgen.arithmetic.tables."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.arithmetic import tables
from hwgen.rtl.function_table import ELEMENT_ROWS, SCALAR_ROWS, FunctionTable
from hwgen.rtl.scalar_unit import ScalarUnit

RNG = np.random.default_rng(3)


def run(unit, bench):
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("rows, first, table", [
    (ELEMENT_ROWS, 0, tables.EXP2), (ELEMENT_ROWS, 32, tables.SIGMOID),
    (SCALAR_ROWS, 0, tables.RSQRT), (SCALAR_ROWS, 32, tables.RECIPROCAL),
])
def test_every_row(rows, first, table):
    unit = FunctionTable(rows=rows)
    finer = 10 - table.fraction_bits

    async def bench(ctx):
        for row in range(32):
            top = 1 << table.fraction_bits
            for fraction in {0, 1, top - 1, *RNG.integers(0, top, 6).tolist()}:
                ctx.set(unit.row, first + row)
                ctx.set(unit.fraction, fraction << finer)
                await ctx.tick()
                assert ctx.get(unit.value) == table(row << table.fraction_bits | fraction)

    run(unit, bench)


def test_refuses_a_row_that_does_not_fit():
    with pytest.raises(ValueError, match="Table row must be 17-bit base and 14-bit step, not \\(0, 8192\\)"):
        FunctionTable(rows=((0, 8192),))


def _totals(bits):
    totals = [1, 2, 3, (1 << bits) - 1, 1 << bits - 1]
    return totals + [int(RNG.integers(1, 1 << int(RNG.integers(1, bits)))) for _ in range(60)]


def test_inverse_and_root_one_a_cycle():
    unit = ScalarUnit()
    requests = [(0, t, 0) for t in _totals(32)] + [(1, t, int(RNG.integers(0, 18))) for t in _totals(47)] + [(1, 0, 4)]
    order = RNG.permutation(len(requests))

    async def bench(ctx):
        waiting = []
        for index in [*order.tolist(), None, None, None, None]:
            ctx.set(unit.put_inverse, index is not None)
            if index is not None:
                is_root, total, k = requests[index]
                for name, value in {"is_root": is_root, "total": total, "k": k, "target": index % 8}.items():
                    ctx.set(getattr(unit, name), value)
            waiting.append(index)
            await ctx.tick()
            # written at the end of the fourth cycle
            if len(waiting) < 4 or waiting[-4] is None:
                continue
            is_root, total, k = requests[waiting[-4]]
            mantissa, exponent = tables.rsqrt(max(total, 1)) if is_root else tables.reciprocal(total)
            ctx.set(unit.read, waiting[-4] % 8)
            got = ctx.get(unit.value)
            assert (got.mantissa, got.exponent) == (mantissa, exponent + is_root * k)

    run(unit, bench)


def test_maximum_and_exponent():
    unit = ScalarUnit()

    async def bench(ctx):
        for bits in (0, 1, 0x7FFF, 0x8000, 0xFFFF, 1 << 30, 1 << 31):
            ctx.set(unit.put_bits, 1)
            ctx.set(unit.bits, bits)
            await ctx.tick()
            assert (ctx.get(unit.value).mantissa, ctx.get(unit.value).exponent) == (0, max(0, bits.bit_length() - 15))
        ctx.set(unit.put_bits, 0)
        ctx.set(unit.put_maximum, 1)
        ctx.set(unit.maximum, -(1 << 31))
        await ctx.tick()
        assert (ctx.get(unit.value).mantissa, ctx.get(unit.value).exponent) == (-(1 << 31), 0)

    run(unit, bench)
