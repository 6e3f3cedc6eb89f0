"""The vector unit's front end: takes commands, reads rows of vector memory, tells the lanes what arrives."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import VMEM_BITS, Dest
from hwgen.rtl.vector_command import (
    BLOCK,
    SOLO,
    STEP,
    TWO_OPERANDS,
    Op,
    check_lanes,
    check_vlen,
    command_layout,
    depth,
    destination,
    is_quantised,
)


class VectorIssue(wiring.Component):
    """One vmem row a cycle: `a` of a row, then `b` where the operation has two operands.

    A command is taken in the last cycle of the one before if nothing forbids it: no free context, a fence, or a row
    that would meet an earlier one in the lanes. Rows follow each other without a gap, but for one case: a row that
    closes a quantised block waits until the block before will have left the quantiser.
    RoPE on one lane reads a[j], cos, the partner of a[j], sin.

    Members
    -------
    cmd: In(stream of command_layout)
    id, full, idle: In
        Context for the next command; none is free; all earlier commands are complete by the end of this cycle.
    accept: Out(1), current: Out(command_layout), current_id, starting: Out
        A command is taken in this cycle; the command being read, and its first cycle.
    r_en, r_addr: Out
    load_a, load_b: Out(1)
        Capture `r_data` now (the cycle after `r_en`).
    row: Out(1), step: Out(STEP)
        With the capture that completes a row's operands. `amount` is left 0.
    odd: Out(1)
        Parity of the row (which is the element's, on one lane).
    sin, shift: Out
        Register number and shift of that row's command.
    """

    def __init__(self, *, lanes: int, vlen: int, streams: int = 1):
        check_lanes(lanes)
        check_vlen(vlen)
        self.lanes, self.vlen = lanes, vlen
        self.lane_bits = lanes.bit_length() - 1
        command = command_layout(streams)
        super().__init__({
            "cmd": In(stream.Signature(command)), "id": In(2), "full": In(1), "idle": In(1),
            "accept": Out(1), "current": Out(command), "current_id": Out(2), "starting": Out(1),
            "r_en": Out(1), "r_addr": Out(VMEM_BITS - self.lane_bits),
            "load_a": Out(1), "load_b": Out(1), "row": Out(1), "step": Out(STEP), "odd": Out(1),
            "sin": Out(3), "shift": Out(command["shift"].shape),
        })

    def elaborate(self, platform):
        m = Module()
        active, phase = Signal(), Signal(2, reset_less=True)
        first, odd = Signal(reset_less=True), Signal(reset_less=True)
        block_row = Signal(range(BLOCK // self.lanes), reset_less=True)
        now = self.current
        two = now.op.matches(*TWO_OPERANDS)
        quantised = is_quantised(destination(now.op, now.dkind))
        row_end, last, go = Signal(), Signal(), Signal()
        block_last = last | (block_row == BLOCK // self.lanes - 1)
        m.d.comb += [
            row_end.eq(phase == self._phases(now.op, two, quantised)),
            last.eq(now.n <= self.lanes),
            go.eq(active & ~(row_end & self._holds(m, active & row_end, block_last, block_row, quantised))),
        ]
        with m.If(go):
            m.d.sync += phase.eq(phase + 1)
            with m.If(row_end):
                m.d.sync += [
                    phase.eq(0), first.eq(0), odd.eq(~odd), block_row.eq(Mux(block_last, 0, block_row + 1)),
                    now.n.eq(now.n - self.lanes), now.a.eq(now.a + self.lanes),
                    active.eq(~last),
                ]
                with m.If(two):
                    m.d.sync += now.b.eq(now.b + self.lanes)
        self._accept(m, active, go & row_end & last)
        m.d.sync += self.starting.eq(self.accept)
        with m.If(self.accept):
            m.d.sync += [
                active.eq(1), phase.eq(0), first.eq(1), odd.eq(0), block_row.eq(0),
                now.eq(self.cmd.payload), self.current_id.eq(self.id),
            ]
        self._read(m, go, phase, two, odd)
        pair_middle = (now.op == Op.ROPE) & (phase == 1) if self.lanes == 1 else 0
        m.d.sync += [
            self.row.eq(go & (row_end | pair_middle)), self.odd.eq(odd), self.sin.eq(now.sin),
            self.shift.eq(now.shift), self.step.id.eq(self.current_id), self.step.op.eq(now.op),
            self.step.first.eq(first), self.step.last.eq(last), self.step.block_last.eq(block_last),
            self.step.accumulate.eq((now.op == Op.ROPE) & row_end), self.step.final.eq(row_end),
        ]
        return m

    @property
    def _halves(self):
        """Cycles the quantiser needs to put out a row."""
        return max(1, self.lanes // self.vlen)

    def _phases(self, op, two, quantised):
        """Last phase of a row; a one-operand row takes two cycles where the quantiser does."""
        wide = two | (quantised if self._halves > 1 else 0)
        return Mux(op == Op.ROPE, 3, wide) if self.lanes == 1 else wide

    def _read(self, m, go, phase, two, odd):
        wants_a, wants_b = ~phase[0], phase[0] & two
        m.d.comb += self.r_en.eq(go & (wants_a | wants_b))
        address = Mux(phase[0], self.current.b, self.current.a)
        if self.lanes == 1:
            # cos and the pair's first element lie on the even side
            up = (phase[1] & ~odd) & (self.current.op == Op.ROPE)
            down = Mux(phase[1], ~phase[0], phase[0]) & odd & (self.current.op == Op.ROPE)
            m.d.comb += self.r_addr.eq(address + Mux(up, 1, Mux(down, -1, 0)))
        else:
            m.d.comb += self.r_addr.eq(address >> self.lane_bits)
        m.d.sync += [self.load_a.eq(go & wants_a), self.load_b.eq(go & wants_b)]

    def _holds(self, m, ends_row, closes, block_row, quantised):
        """Whether a row that ends now would reach the quantiser too early.

        A closing row must arrive no sooner than the last write of the block before; after a column, whose rows leave
        slowly, no row may.
        """
        now, left, column, holds = self.current, Signal(range(BLOCK + 8)), Signal(reset_less=True), Signal()
        own = depth(now.op)
        m.d.comb += holds.eq(quantised & (left > own) & (closes | column))
        m.d.sync += left.eq(Mux(left == 0, 0, left - 1))
        is_column = destination(now.op, now.dkind) == Dest.VCOL
        # 2 more, so that a column's scale code finds the vmem port free before the next code comes
        writes = Mux(is_column, (block_row << self.lane_bits) + now.n[:6] + 2, (block_row + 1) * self._halves)
        with m.If(ends_row & ~holds & quantised & closes):
            m.d.sync += [left.eq(own + writes - 1), column.eq(is_column)]
        return holds

    def _accept(self, m, active, ending):
        """Take a command once no row of it can reach the end of the lanes before an earlier one."""
        now, new = self.current, self.cmd.payload
        drain, behind, solo = Signal(3), Signal(3), Signal()
        # SILU, the deepest with one operand, would enter the lanes together with RoPE's second product
        meets = active & (now.op == Op.ROPE) & (new.op == Op.SILU)
        m.d.comb += behind.eq(Mux(active, depth(now.op), drain))
        m.d.sync += drain.eq(Mux(behind == 0, 0, behind - 1))
        m.d.comb += [
            self.cmd.ready.eq(
                (ending | ~active) & ~self.full & (behind <= depth(new.op)) & ~meets
                & (self.idle | ~(new.fence | solo))
            ),
            self.accept.eq(self.cmd.ready & self.cmd.valid),
        ]
        with m.If(self.accept):
            m.d.sync += solo.eq(new.op.matches(*SOLO))
