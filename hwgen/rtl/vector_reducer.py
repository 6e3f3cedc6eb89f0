"""Reductions over the rows of an instruction: maximum with index, bits of the magnitude, sum."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.bits import tree
from hwgen.rtl.quantiser import CODE_AT
from hwgen.rtl.vector_command import MAXIMA, STEP, Op, check_lanes

TOTAL_BITS = 48
"""65535 squares of 2^30 and epsilon."""
_RADIX = 4


class VectorReducer(wiring.Component):
    """Reduces rows of results; takes one row a cycle, of one instruction after the other.

    `done` comes 1 + ceil(log4(lanes)) cycles after the row with `step.last`, for one cycle.

    Members
    -------
    values: In(lanes x signed(32)), magnitude: In(32), valid: In(1), step: In(STEP)
        A row; lanes that are not live hold -2^31 for maxima, else 0. `magnitude`: OR of the row's absolute values.
    initial: In(48)
        Where a SUMSQ sum starts.
    done, op, id: Out
    maximum: Out(signed(32)), index: Out(16), bits: Out(32), total: Out(48)
        Results at `done`, until a later instruction's first row; `index` is the lowest of the maximum; `bits` is the
        OR of all magnitudes; `total` the sum of squares or of p.
    """

    def __init__(self, *, lanes: int):
        check_lanes(lanes)
        self.lanes = lanes
        super().__init__({
            "values": In(data.ArrayLayout(signed(32), lanes)), "magnitude": In(32), "valid": In(1), "step": In(STEP),
            "initial": In(TOTAL_BITS),
            "done": Out(1), "op": Out(4), "id": Out(2),
            "maximum": Out(signed(32)), "index": Out(16), "bits": Out(32), "total": Out(TOTAL_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        valid, step, magnitude = self.valid, self.step, self.magnitude
        lane_bits = self.lanes.bit_length() - 1
        values = [(value, i) for i, value in enumerate(self.values)]
        sums = [Mux(step.op == Op.EXP, value[:CODE_AT], value[:TOTAL_BITS]) for value in self.values]
        while len(values) > 1:
            groups = range(0, len(values), _RADIX)
            values = [self._stage_maximum(m, values[at : at + _RADIX], lane_bits) for at in groups]
            sums = [self._stage_sum(m, sums[at : at + _RADIX]) for at in groups]
            valid, step, magnitude = self._stage_control(m, valid, step, magnitude)
        self._accumulate(m, valid, step, magnitude, *values[0], sums[0], lane_bits)
        return m

    def _stage_control(self, m, valid, step, magnitude):
        later, late_step, late_magnitude = Signal(), Signal(STEP, reset_less=True), Signal(32, reset_less=True)
        m.d.sync += [later.eq(valid), late_step.eq(step), late_magnitude.eq(magnitude)]
        return later, late_step, late_magnitude

    def _stage_maximum(self, m, group, lane_bits):
        value, lane = tree(_larger, group)
        best, place = Signal(signed(32), reset_less=True), Signal(lane_bits, reset_less=True)
        m.d.sync += [best.eq(value), place.eq(lane)]
        return best, place

    def _stage_sum(self, m, group):
        total = tree(lambda a, b: a + b, group)
        part = Signal(min(len(total), TOTAL_BITS), reset_less=True)
        m.d.sync += part.eq(total)
        return part

    def _accumulate(self, m, valid, step, magnitude, value, lane, part, lane_bits):
        row = Signal(16 - lane_bits, reset_less=True)
        here = Signal.like(row)
        m.d.comb += here.eq(Mux(step.first, 0, row))
        m.d.sync += [self.done.eq(valid & step.last), self.op.eq(step.op), self.id.eq(step.id)]
        start = Mux(step.op == Op.SUMSQ, self.initial, 0)
        # a result is read in the cycle of `done`, when the next reduction's first row may be here already
        with m.If(valid):
            m.d.sync += row.eq(here + 1)
            with m.If(step.op.matches(*MAXIMA) & (step.first | (value > self.maximum))):
                m.d.sync += [self.maximum.eq(value), self.index.eq((here << lane_bits) | lane)]
            with m.If(step.op == Op.MAXABS):
                m.d.sync += self.bits.eq(Mux(step.first, 0, self.bits) | magnitude)
            with m.If(step.op.matches(Op.SUMSQ, Op.EXP)):
                m.d.sync += self.total.eq(Mux(step.first, start, self.total) + part)


def _larger(a, b):
    """(value, lane) of the larger value, the left one of equals."""
    right = b[0] > a[0]
    return Mux(right, b[0], a[0]), Mux(right, b[1], a[1])
