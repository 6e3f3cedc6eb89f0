# amaranth: UnusedElaboratable=no
"""Vector unit against hwgen.arithmetic: every operation and destination, whole memories, latencies."""

import numpy as np
import pytest
from vector_bench import SOURCES, ProgramMaker, State, command, simulate

from hwgen.isa import Dest
from hwgen.rtl.vector_command import Op
from hwgen.rtl.vector_unit import VectorUnit


def test_refuses_other_lane_counts_and_vlens():
    with pytest.raises(ValueError, match="Lanes must be 1, 2, 4, 8 or 16, not 3"):
        VectorUnit(lanes=3, vlen=32)
    with pytest.raises(ValueError, match="VLEN must be 8, 16, 32, 64, 128 or 256, not 48"):
        VectorUnit(lanes=4, vlen=48)


@pytest.mark.parametrize("lanes, vlen, idle", [
    (1, 8, 0), (1, 64, 0.7), (2, 32, 0), (4, 8, 0), (4, 256, 0.7), (8, 32, 0), (16, 8, 0), (16, 64, 0),
])
def test_random_programs(lanes, vlen, idle):
    maker = ProgramMaker(lanes, vlen, seed=lanes * 1000 + vlen)
    program = maker.program(50)
    simulate(VectorUnit(lanes=lanes, vlen=vlen), maker.start, program, maker.position, idle=idle, seed=1)


def test_random_programs_have_every_operation_and_destination():
    maker = ProgramMaker(4, 8, seed=4008)
    program = maker.program(200)
    assert {i["op"] for i in program} == {int(op) for op in Op} - {0}
    assert {i["dkind"] for i in program} == {int(kind) for kind in Dest}


@pytest.mark.parametrize("lanes", [1, 16])
def test_short_columns_between_streams(lanes):
    """Scale codes of short columns wait for a free write port and must not overtake or overwrite each other."""
    state, rng = State.random(8, np.random.default_rng(1)), np.random.default_rng(2)
    program = []
    for at in range(24):
        n, column = int(rng.integers(1, 4)), rng.random() < 0.6
        program.append(
            command(Op.COPY, a=16 * at, n=n, dst=at, dkind=Dest.VCOL, b=SOURCES + 16 * at, stride=30) if column
            else command(Op.COPY, a=16 * at, n=n * 2 * lanes, dst=SOURCES + 512 + 16 * at)
        )
    simulate(VectorUnit(lanes=lanes, vlen=8), state, program, 5)


def _extremes(lanes):
    """Whole rows of the ends of int32, alone and against each other."""
    low, high = -(1 << 31), (1 << 31) - 1
    state = State.random(32, np.random.default_rng(0))
    state.vmem[:64] = np.resize([low, high, low, low, high, high, 0, -1, 1, low], 64)
    state.vmem[64:128] = np.resize([low, high, 1, -1, low], 64)
    state.vmem[128:192] = np.resize([-32768, 32767, -32768, 1], 64)
    state.vmem[192:256] = low
    program = [command(Op.ADD, a=0, b=64, n=64, dst=SOURCES), command(Op.MAXABS, a=192, n=17, sout=1)]
    program += [command(Op.SUMSQ, a=192, n=17, b=0xFFFF, stride=0xFFF, sin=1, sout=2, fence=1)]
    program += [command(Op.SCALE, a=0, n=64, sin=2, shift=s, dst=SOURCES + 64 * k, fence=1)
                for k, s in enumerate((-64, -40, 0, 63))]
    for k, shift in enumerate((-64, 0, 1, 15, 31, 63)):
        program += [command(op, a=0, b=128, n=64, shift=shift, dst=SOURCES + 64 * k, fence=k == 0)
                    for op in (Op.MUL, Op.ROPE, Op.SILU)]
    program += [command(Op.ARGMAX, a=192, n=33, dst=SOURCES, b=7, stride=3), command(Op.MAX, a=192, n=5, sout=3)]
    program += [command(Op.COPY, a=192, n=40, dst=1, dkind=Dest.X, frac=f, fence=1) for f in (-64, 63)]
    program += [command(Op.EXP, a=192, b=256, n=33, sin=3, sout=4, dst=4, fence=1),
                command(Op.SCALE, a=0, n=33, sin=4, dst=SOURCES, fence=1)]
    state.vmem[256:320] = np.resize([254, 0, 127], 64)
    return state, program


@pytest.mark.parametrize("lanes", [1, 8])
def test_extreme_values(lanes):
    simulate(VectorUnit(lanes=lanes, vlen=32), *_extremes(lanes), 0)


def test_latencies():
    """From taken to done of one row and of four, alone in the unit (VectorUnit's docstring)."""
    state = State.random(32, np.random.default_rng(0))
    state.vmem[:512] %= 255
    cycles = {
        Op.COPY: (4, 7), Op.ADD: (5, 11), Op.SCALE: (7, 10), Op.MUL: (8, 14), Op.ROPE: (9, 15), Op.SILU: (9, 12),
        Op.MAXABS: (7, 10), Op.MAX: (7, 10), Op.SUMSQ: (13, 16), Op.ARGMAX: (9, 12), Op.EXP: (16, 22),
    }
    start = [command(Op.MAXABS, n=64, sout=1), command(Op.MAX, n=64, sout=3),
             command(Op.SUMSQ, n=64, sin=1, sout=2, fence=1)]
    program = [command(op, a=0, b=64, n=n, dst=0 if op == Op.EXP else SOURCES, fence=1, shift=40,
                       sin=3 if op == Op.EXP else 2 if op == Op.SCALE else 1, sout=4)
               for op in cycles for n in (16, 64)]
    times = simulate(VectorUnit(lanes=16, vlen=32), state, start + program, 0)[len(start) :]
    measured = [done - taken for taken, done in times]
    assert measured == [c for pair in cycles.values() for c in pair]


def test_unfenced_instructions_leave_no_gap():
    """Ten products of four rows: two cycles a row, then the latency once; quantised as fast."""
    state = State.random(32, np.random.default_rng(0))
    for kind in (Dest.VMEM, Dest.X):
        program = [command(Op.MUL, a=0, b=64, n=64, shift=40, dst=SOURCES if kind == Dest.VMEM else 2 * k, dkind=kind)
                   for k in range(10)]
        state.vmem[64:128] = 5
        times = simulate(VectorUnit(lanes=16, vlen=32), state, program, 0)
        assert times[-1][1] - times[0][0] == 10 * 8 + 6 + (4 if kind == Dest.X else 0)
