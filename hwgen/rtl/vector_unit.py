"""Vector unit: elementwise operations, reductions and quantisation on rows of vector memory."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import VMEM_BITS, Dest
from hwgen.rtl.quantiser import Quantiser, mx_word_bytes
from hwgen.rtl.scalar_unit import REGISTER, ScalarUnit
from hwgen.rtl.starts import UNITS, of_stream, push_bits
from hwgen.rtl.vector_command import (
    DIRECT,
    MAXIMA,
    REDUCTIONS,
    STEP,
    TABLE,
    Op,
    check_lanes,
    check_vlen,
    command_layout,
    context_layout,
    destination,
    is_quantised,
)
from hwgen.rtl.vector_contexts import Part, VectorContexts, parts
from hwgen.rtl.vector_issue import VectorIssue
from hwgen.rtl.vector_lane import FACTOR_BITS, Operands, Result, VectorLane
from hwgen.rtl.vector_reducer import TOTAL_BITS, VectorReducer

_SHIFT_MAX = 55
"""Products are below 2^50: larger shifts give 0 as well."""


class VectorUnit(wiring.Component):
    """Executes vector instructions (ARCHITECTURE.md, "Programs") one after the other, overlapped where allowed.

    Reads one row of vector memory a cycle: a row takes one cycle with one operand, two with two (RoPE on one lane:
    four). From `cmd` taken to `done` of a one-row instruction: COPY 4 cycles, ADD 5, SCALE 7, MUL 8, ROPE 9, SILU 9;
    to X 3 more; MAX 5 + ceil(log4(lanes)), SUMSQ 6 more. Memory ports are never refused; instructions complete in
    order. Without `fence`, an instruction may read registers and memory before earlier ones have written them, but
    never overwrites what an earlier one has yet to read. Rows reach vmem, and MX words their memories, in program
    order; registers and scale codes may be written after the rows of a later instruction.

    Parameters: `lanes` (1, 2, 4, 8, 16), `vlen` (8, 16, ..., 256), `streams` in flight.

    Members
    -------
    cmd: In(stream of command_layout)
    position: In(16 * streams)
        Position of each stream's token; stable while the unit is busy.
    r_en, r_addr: Out; r_data: In(32 * lanes)
        Read port of vector memory by rows; data is taken in the cycle after `r_en`.
    w_en, w_addr, w_data, w_mask: Out
        Write port; `w_mask` one bit a word.
    x_en, x_addr, x_data, x_mask and kv_en, kv_addr, kv_data, kv_mask: Out
        Write ports of operand and KV memory; masks one bit a byte.
    done: Out(push_bits)
        `push` bits of an instruction whose results are all written by the end of this cycle.
    busy: Out(1)
    overflow: Out(1)
        An ADD left the int32 range (one cycle a row).
    """

    def __init__(self, *, lanes: int, vlen: int, streams: int = 1):
        check_lanes(lanes)
        check_vlen(vlen)
        self.lanes, self.vlen, self.streams = lanes, vlen, streams
        self.lane_bits = lanes.bit_length() - 1
        row, size = VMEM_BITS - self.lane_bits, mx_word_bytes(vlen)
        super().__init__({
            "cmd": In(stream.Signature(command_layout(streams))), "position": In(16 * streams),
            "r_en": Out(1), "r_addr": Out(row), "r_data": In(32 * lanes),
            "w_en": Out(1), "w_addr": Out(row), "w_data": Out(32 * lanes), "w_mask": Out(lanes),
            "x_en": Out(1), "x_addr": Out(16), "x_data": Out(8 * size), "x_mask": Out(size),
            "kv_en": Out(1), "kv_addr": Out(20), "kv_data": Out(8 * size), "kv_mask": Out(size),
            "done": Out(push_bits(streams)), "busy": Out(1), "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.issue = issue = VectorIssue(lanes=self.lanes, vlen=self.vlen, streams=self.streams)
        m.submodules.contexts = contexts = VectorContexts(streams=self.streams)
        m.submodules.scalars = scalars = ScalarUnit()
        m.submodules.reducer = reducer = VectorReducer(lanes=self.lanes)
        m.submodules.quantiser = quantiser = Quantiser(lanes=self.lanes, vlen=self.vlen, streams=self.streams)
        wiring.connect(m, wiring.flipped(self.cmd), issue.cmd)
        self._contexts(m, issue, contexts)
        m.d.comb += [self.r_en.eq(issue.r_en), self.r_addr.eq(issue.r_addr)]
        # under an emitting platform a lane is one module, however many there are
        self._place = getattr(platform, "place", lambda part: part)
        valid, step, mask, lanes = self._pipeline(m, issue, contexts, scalars, reducer)
        context = Signal(context_layout(self.streams))
        m.d.comb += context.eq(contexts.entries[step.id])
        result = Cat(lane.result for lane in lanes)
        m.d.comb += [
            self.overflow.eq(valid & Cat(lane.overflow for lane in lanes).any()),
            quantiser.values.eq(result), quantiser.valid.eq(valid & is_quantised(context.dkind)),
            quantiser.step.eq(step), quantiser.context.eq(context),
            quantiser.position.eq(of_stream(self.position, context.push[UNITS:], self.streams)),
            reducer.values.eq(result), reducer.magnitude.eq(quantiser.magnitude), reducer.step.eq(step),
            reducer.valid.eq(valid & step.op.matches(*REDUCTIONS, Op.EXP)),
        ]
        self._scalars(m, contexts, scalars, reducer)
        self._operand_memories(m, contexts, quantiser)
        self._vector_memory(m, contexts, quantiser, reducer, valid, step, context, mask, result)
        return m

    def _contexts(self, m, issue, contexts):
        new, now = self.cmd.payload, issue.current
        kind = destination(new.op, new.dkind)
        position = of_stream(self.position, now.push[UNITS:], self.streams)
        base = Mux(now.dkind == Dest.VCOL, position >> (self.vlen.bit_length() - 1), 0)
        m.d.comb += [
            issue.id.eq(contexts.id), issue.full.eq(contexts.full), issue.idle.eq(contexts.idle),
            contexts.put.eq(issue.accept), contexts.parts.eq(parts(new.op, kind)),
            contexts.context.eq(Cat(
                Const(0, 20), kind[:3], new.b, new.stride, new.frac, new.sout,
                (((new.n - 1) & (self.lanes - 1)) + 1)[:5], new.push,
            )),
            contexts.put_base.eq(issue.starting),
            contexts.base.eq(now.dst + Mux(now.dkind == Dest.KROW, position * now.stride, base)),
            self.done.eq(contexts.done), self.busy.eq(contexts.busy),
        ]

    def _pipeline(self, m, issue, contexts, scalars, reducer):
        """Control of the lanes; returns (valid, step, mask, lanes) of the row that has a result."""
        m.d.comb += scalars.read.eq(issue.sin)
        register = Signal(REGISTER, reset_less=True)
        at_p, p, odd = Signal(), Signal(STEP, reset_less=True), Signal(reset_less=True)
        shift = Signal(signed(7), reset_less=True)
        m.d.sync += at_p.eq(issue.row)
        with m.If(issue.row):
            m.d.sync += [p.eq(issue.step), odd.eq(issue.odd), shift.eq(issue.shift), register.eq(scalars.value)]
        second, runs, step = self._second_product(m, at_p, p)
        total = Signal(signed(10))
        m.d.comb += [
            total.eq(shift + Mux(p.op == Op.SCALE, register.exponent, 0)),
            step.amount.eq(Mux(total < 0, 0, Mux(total > _SHIFT_MAX, _SHIFT_MAX, total))),
        ]
        direct, table = p.op.matches(*DIRECT), p.op.matches(*TABLE)
        t1 = self._stage(m, runs & table, step, "t1")
        t2 = self._stage(m, *t1, "t2")
        enters = runs & ~direct & ~table
        m1 = self._stage(m, enters | t2[0], Mux(t2[0], t2[1].as_value(), step.as_value()), "m1")
        m2 = self._stage(m, *m1, "m2")
        s = self._stage(m, m2[0] & m2[1].final, m2[1], "s")
        ends, last_step = Signal(), Signal(STEP)
        m.d.comb += [
            ends.eq((runs & direct) | s[0]), last_step.eq(Mux(s[0], s[1].as_value(), step.as_value())),
        ]
        mask, tail, live = Signal(self.lanes, reset_less=True), Signal(5), Signal(self.lanes)
        m.d.comb += [
            tail.eq(contexts.entries[last_step.id].tail),
            live.eq(Cat(~last_step.last | (i < tail) for i in range(self.lanes))),
        ]
        m.d.sync += mask.eq(live)
        lanes = self._lanes(m)
        operands, source, low_fill = Signal(Operands), Signal(Result), Signal()
        m.d.comb += [
            operands.eq(_operands(p.op, step.accumulate)), source.eq(_result(last_step.op)),
            low_fill.eq(last_step.op.matches(*MAXIMA)),
        ]
        for i, lane in enumerate(lanes):
            m.d.comb += [
                lane.word.eq(self.r_data.word_select(i, 32)),
                lane.load_a.eq(issue.load_a), lane.load_b.eq(issue.load_b),
                lane.operands.eq(operands), lane.load_p.eq(enters),
                lane.mantissa.eq(register.mantissa), lane.k.eq(register.exponent), lane.is_exp.eq(p.op == Op.EXP),
                lane.minus.eq(~odd if self.lanes == 1 else 1 - i % 2),
                lane.load_t.eq(t2[0]), lane.is_exp_t.eq(t2[1].op == Op.EXP),
                lane.load_product.eq(m2[0]), lane.accumulate.eq(m2[1].accumulate),
                lane.source.eq(source), lane.amount.eq(last_step.amount), lane.live.eq(live[i]),
                lane.low_fill.eq(low_fill),
            ]
        self._norm_constants(m, issue, runs & (p.op == Op.SUMSQ), register, scalars, reducer)
        return *self._stage(m, ends, last_step, "w"), mask, lanes

    def _second_product(self, m, at_p, p):
        """RoPE's second product: a step of its own on one lane, else the cycle after the first, on the same row."""
        second, runs, step = Signal(), Signal(), Signal(STEP)
        m.d.comb += [runs.eq(at_p | second), step.eq(p)]
        if self.lanes > 1:
            first = at_p & (p.op == Op.ROPE)
            m.d.sync += second.eq(first)
            m.d.comb += [step.accumulate.eq(second), step.final.eq(~first)]
        return second, runs, step

    def _stage(self, m, valid, step, name):
        """(valid, step) one cycle later."""
        later, late_step = Signal(name=f"at_{name}"), Signal(STEP, name=f"step_{name}", reset_less=True)
        m.d.sync += [later.eq(valid), late_step.eq(step)]
        return later, late_step

    def _lanes(self, m):
        """The lanes, each with its partner's operands for RoPE."""
        lanes = [VectorLane() for _ in range(self.lanes)]
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = self._place(lane)
            partner = lanes[i ^ 1] if self.lanes > 1 else lane
            even, odd = (lane, partner) if i % 2 == 0 else (partner, lane)
            m.d.comb += [
                lane.other.eq(partner.x if self.lanes > 1 else lane.a),
                lane.cos.eq(even.b[:FACTOR_BITS].as_signed()), lane.sin.eq(odd.b[:FACTOR_BITS].as_signed()),
            ]
        return lanes

    def _norm_constants(self, m, issue, load, register, scalars, reducer):
        """k and the rounded epsilon of a SUMSQ; no other instruction starts until it is complete."""
        k, epsilon = Signal(8, reset_less=True), Signal(TOTAL_BITS, reset_less=True)
        constant = Cat(issue.current.b[:16], issue.current.stride)
        # one extra bit below keeps the half
        halves = (constant << 1) >> (register.exponent[:5] << 1)
        with m.If(load):
            m.d.sync += [k.eq(register.exponent), epsilon.eq((halves + 1) >> 1)]
        m.d.comb += [scalars.k.eq(k), reducer.initial.eq(epsilon)]

    def _scalars(self, m, contexts, scalars, reducer):
        op = reducer.op
        m.d.comb += [
            scalars.target.eq(contexts.entries[reducer.id].sout),
            scalars.put_maximum.eq(reducer.done & (op == Op.MAX)),
            scalars.put_bits.eq(reducer.done & (op == Op.MAXABS)),
            scalars.put_inverse.eq(reducer.done & op.matches(Op.SUMSQ, Op.EXP)), scalars.is_root.eq(op == Op.SUMSQ),
            scalars.maximum.eq(reducer.maximum), scalars.bits.eq(reducer.bits), scalars.total.eq(reducer.total),
            scalars.id.eq(reducer.id),
            contexts.events[Part.MAXIMUM].valid.eq(scalars.put_maximum | scalars.put_bits),
            contexts.events[Part.MAXIMUM].id.eq(reducer.id),
            contexts.events[Part.INVERSE].valid.eq(scalars.done),
            contexts.events[Part.INVERSE].id.eq(scalars.done_id),
        ]

    def _operand_memories(self, m, contexts, quantiser):
        m.d.comb += [
            self.x_en.eq(quantiser.enable & ~quantiser.is_kv), self.kv_en.eq(quantiser.enable & quantiser.is_kv),
            self.x_addr.eq(quantiser.address), self.kv_addr.eq(quantiser.address),
            self.x_data.eq(quantiser.data), self.kv_data.eq(quantiser.data),
            self.x_mask.eq(quantiser.mask), self.kv_mask.eq(quantiser.mask),
            contexts.events[Part.WORDS].valid.eq(quantiser.done), contexts.events[Part.WORDS].id.eq(quantiser.done_id),
        ]

    def _vector_memory(self, m, contexts, quantiser, reducer, valid, step, context, mask, result):
        """Rows have the write port; single words (scale code, then maximum and index) take a cycle without a row."""
        row, at = Signal(len(self.w_addr), reset_less=True), Signal(len(self.w_addr))
        writes = valid & (context.dkind == Dest.VMEM)
        m.d.comb += [
            at.eq(Mux(step.first, context.base >> self.lane_bits, row)),
            contexts.events[Part.ROWS].valid.eq(valid & step.last), contexts.events[Part.ROWS].id.eq(step.id),
        ]
        with m.If(valid):
            m.d.sync += row.eq(at + 1)
        has_code, code, code_at = Signal(), Signal(8, reset_less=True), Signal(VMEM_BITS, reset_less=True)
        code_id, pair, second = Signal(2, reset_less=True), Signal(), Signal(reset_less=True)
        pair_context = contexts.entries[reducer.id]
        word, word_at = Signal(32), Signal(VMEM_BITS)
        with m.If(has_code):
            m.d.comb += [word.eq(code), word_at.eq(code_at)]
        with m.Elif(second):
            id_base = Cat(pair_context.b[:16], pair_context.stride)
            m.d.comb += [word.eq(reducer.index + id_base), word_at.eq(pair_context.base + 1)]
        with m.Else():
            m.d.comb += [word.eq(reducer.maximum), word_at.eq(pair_context.base)]
        free = ~writes
        with m.If(free):
            m.d.sync += has_code.eq(0)
            with m.If(pair & ~has_code):
                m.d.sync += [second.eq(1), pair.eq(~second)]
        with m.If(quantiser.code_valid):
            m.d.sync += [
                has_code.eq(1), code.eq(quantiser.code), code_at.eq(quantiser.code_address),
                code_id.eq(quantiser.code_id),
            ]
        with m.If(reducer.done & (reducer.op == Op.ARGMAX)):
            m.d.sync += [pair.eq(1), second.eq(0)]
        m.d.comb += [
            self.w_en.eq(writes | has_code | pair),
            self.w_addr.eq(Mux(writes, at, word_at >> self.lane_bits)),
            self.w_mask.eq(Mux(writes, mask, 1 << (word_at[: self.lane_bits] if self.lane_bits else Const(0)))),
            self.w_data.eq(Mux(writes, result, Cat(*[word] * self.lanes))),
            contexts.events[Part.SINGLE].valid.eq(free & (has_code | (pair & second))),
            contexts.events[Part.SINGLE].id.eq(Mux(has_code, code_id, reducer.id)),
        ]


def _operands(op, accumulate):
    product = Mux(op == Op.SCALE, Operands.SCALE, Mux(op == Op.SUMSQ, Operands.SQUARE, Operands.PRODUCT))
    return Mux(op == Op.ROPE, Mux(accumulate, Operands.SINE, Operands.COSINE), product)


def _result(op):
    product = Mux(op == Op.SUMSQ, Result.SQUARE, Mux(op == Op.EXP, Result.EXP, Result.SHIFTED))
    return Mux(op.matches(*DIRECT), Mux(op == Op.ADD, Result.SUM, Result.COPY), product)


