# amaranth: UnusedElaboratable=no
"""Row writer: every result reaches its word once, rows are not split, done follows the last write, full speed."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.isa import VMEM_BITS
from hwgen.rtl.row_writer import RowWriter

LANES = (1, 2, 4, 8, 16)


def instructions(rng, count):
    """Results of `count` instructions as dicts, at random destinations."""
    results = []
    for _ in range(count):
        dst, rows, push = int(rng.integers((1 << VMEM_BITS) - 40)), int(rng.integers(1, 40)), int(rng.integers(1, 8))
        for r in range(rows):
            last = r == rows - 1
            results.append({"data": int(rng.integers(1 << 32)), "addr": dst + r, "last": int(last), "push": push})
    return results


def simulate(lanes, results, rng, valid=1.0, grant=1.0):
    """(writes, done pulses, cycles until the last write); a write is (cycle, row, mask, data)."""
    writer = RowWriter(lanes=lanes)
    writes, dones = [], []

    async def testbench(ctx):
        pending, offered = list(results), False
        for cycle in range(100000):
            if pending and not offered and rng.random() < valid:
                ctx.set(writer.result.payload, pending[0])
                offered = True
            ctx.set(writer.result.valid, offered)
            ctx.set(writer.w_ready, rng.random() < grant)
            if offered and ctx.get(writer.result.ready):
                pending.pop(0)
                offered = False
            if ctx.get(writer.done):
                dones.append((cycle, ctx.get(writer.done)))
            if ctx.get(writer.w_en) and ctx.get(writer.w_ready):
                writes.append((cycle, ctx.get(writer.w_addr), ctx.get(writer.w_mask), ctx.get(writer.w_data)))
            await ctx.tick()
            if not pending and len(dones) == sum(r["last"] for r in results):
                break

    simulator = Simulator(writer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return writes, dones, writes[-1][0] + 1


def expected_rows(lanes, results):
    """(row, mask, data under the mask) of each write, and the push bits per instruction."""
    rows, pushes, current = [], [], None
    for result in results:
        row, lane = divmod(result["addr"], lanes)
        if current is None:
            current = [row, 0, 0]
        current[1] |= 1 << lane
        current[2] |= result["data"] << 32 * lane
        if lane == lanes - 1 or result["last"]:
            rows.append(tuple(current))
            current = None
        if result["last"]:
            pushes.append((len(rows) - 1, result["push"]))
    return rows, pushes


def masked(lanes, mask, data):
    return sum((data >> 32 * i & 0xFFFFFFFF) << 32 * i for i in range(lanes) if mask >> i & 1)


@pytest.mark.parametrize("valid, grant", [(1.0, 1.0), (1.0, 0.3), (0.4, 1.0), (0.6, 0.5)])
@pytest.mark.parametrize("lanes", LANES)
def test_every_result_reaches_its_word(lanes, valid, grant):
    rng = np.random.default_rng([lanes, int(10 * valid), int(10 * grant)])
    results = instructions(rng, 12)
    writes, dones, _ = simulate(lanes, results, rng, valid, grant)
    rows, pushes = expected_rows(lanes, results)
    assert [(row, mask, masked(lanes, mask, data)) for _, row, mask, data in writes] == rows
    # done comes in the cycle after the write of the instruction's last row
    assert dones == [(writes[index][0] + 1, push) for index, push in pushes]


@pytest.mark.parametrize("lanes", LANES)
def test_one_result_a_cycle_while_granted(lanes):
    rng = np.random.default_rng(lanes)
    results = instructions(rng, 20)
    _, _, cycles = simulate(lanes, results, rng)
    assert cycles == len(results) + 1


def test_other_lanes_are_refused():
    with pytest.raises(ValueError, match="Lanes must be 1, 2, 4, 8 or 16, not 3"):
        RowWriter(lanes=3)
