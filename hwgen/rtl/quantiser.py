"""Quantiser: rows of integers in, MXINT8 words out."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import SCALE_BIAS
from hwgen.isa import VMEM_BITS, Dest
from hwgen.rtl.bits import bit_length, maximum_tree, or_tree
from hwgen.rtl.vector_command import BLOCK, STEP, Op, check_lanes, check_vlen, context_layout

_TOP = 25
"""Bits below the element in a value whose highest magnitude bit was moved to bit 31."""
_WEIGHTED_BIAS = 16
CODE_AT, CODE_BITS = 16, 8
"""Place of an element's exponent code in a value of EXP; p lies below."""


def mx_word_bytes(vlen: int) -> int:
    """Bytes of an MX word: elements, then one scale byte a block (at least one)."""
    return vlen + max(1, vlen // BLOCK)


class Quantiser(wiring.Component):
    """Collects blocks of 32 and writes them as MXINT8, exactly as `mx.quantize_int` and (EXP) `mx.quantize_weighted`.

    A block is complete with its 32nd element or its vector's last; 3 cycles later its first row is on the output, then
    one row a cycle (VCOL: one element a cycle; VLEN < LANES: VLEN elements a cycle). Nothing stalls: a block may be
    complete only when the one before has left (see VectorIssue). The first write to a word fills all of it: zeros
    behind the elements, and scales of 0.

    Parameters: `lanes`, `vlen`, `streams` in flight.

    Members
    -------
    values: In(lanes x 32 bit), valid: In(1), step: In(STEP), context: In(context_layout), position: In(16)
        A row (zeros in lanes that are not live), the context of its instruction and the position of its stream.
    magnitude: Out(32)
        OR of the absolute values of the row, combinational.
    enable, is_kv: Out(1), address: Out(20), data, mask: Out
        Write port, `mask` one bit a byte.
    code_valid: Out(1), code: Out(8), code_address: Out(20), code_id: Out(2)
        One cycle for every VCOL: the block's scale code and where in vmem it belongs.
    done: Out(1), done_id: Out(2)
        With the last write of an instruction.
    """

    def __init__(self, *, lanes: int, vlen: int, streams: int = 1):
        check_lanes(lanes)
        check_vlen(vlen)
        self.lanes, self.vlen, self.width = lanes, vlen, min(lanes, vlen)
        size, self._context = mx_word_bytes(vlen), context_layout(streams)
        super().__init__({
            "values": In(data.ArrayLayout(32, lanes)), "valid": In(1), "step": In(STEP), "context": In(self._context),
            "position": In(16), "magnitude": Out(32),
            "enable": Out(1), "is_kv": Out(1), "address": Out(20), "data": Out(8 * size), "mask": Out(size),
            "code_valid": Out(1), "code": Out(8), "code_address": Out(VMEM_BITS), "code_id": Out(2),
            "done": Out(1), "done_id": Out(2),
        })
        rows = BLOCK // lanes
        self._emission = data.StructLayout({
            "valid": 1, "dkind": 3, "address": 20, "group": range(max(2, vlen // self.width)),
            "sub": range(max(2, lanes)), "starts": 1, "last": 1, "id": 2,
            # of one stream the position stays as it is
            "byte": vlen.bit_length() - 1 if streams > 1 else 0,
        })
        """One write on its way out: `group` of bytes in the word, `sub` element or half of the row, block's first,
        place in a V row's word."""
        self._row_type = range(max(2, rows))

    def elaborate(self, platform):
        m = Module()
        row = Signal(self._row_type)
        with m.If(self.valid):
            m.d.sync += row.eq(Mux(self.step.block_last, 0, row + 1))
        closed = Signal()
        m.d.sync += closed.eq(self.valid & self.step.block_last)
        weighted, frac = Signal(reset_less=True), Signal(self._context["frac"].shape, reset_less=True)
        with m.If(self.valid & self.step.block_last):
            m.d.sync += [weighted.eq(self.step.op == Op.EXP), frac.eq(self.context.frac)]
        lift = self._scale(m, row, closed, weighted, frac)
        # the block before may still be in the shifter while `weighted` is the new block's
        shifts_weighted = Signal(reset_less=True)
        with m.If(closed):
            m.d.sync += shifts_weighted.eq(weighted)
        reading, read_row = self._sequence(m, row)
        self._emit(m, reading, self._elements(m, row, read_row, shifts_weighted, lift))
        return m

    def _scale(self, m, row, closed, weighted, frac):
        """Block scale into `code`, two cycles after the row that closes the block; returns the left shift of values."""
        sizes = [Mux(v[31], -v.as_signed(), v)[:32] for v in self.values]
        m.d.comb += self.magnitude.eq(or_tree(sizes))
        reaches = [Signal(9, name=f"reach_of_{i}") for i in range(self.lanes)]
        for own, v in zip(reaches, self.values, strict=True):
            at_top = bit_length(v[:CODE_AT]) + v[CODE_AT : CODE_AT + CODE_BITS]
            m.d.comb += own.eq(Mux(v[:CODE_AT].any(), at_top, 0))
        bits, reach, seen = Signal(32, reset_less=True), Signal(9, reset_less=True), Signal()
        new_block = Signal(reset_less=True)
        with m.If(self.valid):
            m.d.sync += bits.eq(Mux(row == 0, 0, bits) | self.magnitude)
        # the maximum takes two cycles: lanes to groups of four, then groups to one
        groups = []
        for at in range(0, self.lanes, 4):
            group = Signal(9, reset_less=True, name=f"reach_{at}")
            m.d.sync += group.eq(maximum_tree(reaches[at : at + 4]))
            groups.append(group)
        m.d.sync += [seen.eq(self.valid), new_block.eq(row == 0)]
        total = Signal(9)
        m.d.comb += total.eq(maximum_tree([*groups, Mux(new_block, 0, reach)]))
        with m.If(seen):
            m.d.sync += reach.eq(total)
        top, code, lift = Signal(range(33)), Signal(8, reset_less=True), Signal(5, reset_less=True)
        m.d.comb += [top.eq(bit_length(bits)), self.code.eq(code)]
        with m.If(closed):
            m.d.sync += lift.eq(32 - top)
            with m.If(weighted):
                m.d.sync += code.eq(Mux(total > _WEIGHTED_BIAS, total - _WEIGHTED_BIAS, 0))
            with m.Else():
                m.d.sync += code.eq(Mux(top == 0, 0, top - 1 + SCALE_BIAS - frac))
        return lift

    def _sequence(self, m, row):
        """Walk over the rows of a closed block; returns the write of this cycle and the row it needs."""
        now = Signal(self._emission)
        read_row, rows = Signal(self._row_type, reset_less=True), Signal(self._row_type, reset_less=True)
        tail, is_last, vector_start = Signal(5, reset_less=True), Signal(reset_less=True), Signal()
        stride = Signal(self._context["stride"].shape, reset_less=True)
        live = Mux((read_row == rows) & is_last, tail, self.lanes)
        halves = Mux(live > self.vlen, 2, 1) if self.lanes > self.vlen else 1
        row_end = now.sub == Mux(now.dkind == Dest.VCOL, live, halves) - 1
        out = Signal(self._emission)
        m.d.comb += [out.eq(now), out.last.eq(is_last & row_end & (read_row == rows))]
        with m.If(now.valid):
            m.d.sync += [now.sub.eq(now.sub + 1), now.starts.eq(0), now.group.eq(now.group + 1)]
            with m.If(row_end):
                m.d.sync += [now.sub.eq(0), read_row.eq(read_row + 1), now.valid.eq(read_row != rows)]
            with m.If(now.dkind == Dest.VCOL):
                m.d.sync += now.address.eq(now.address + stride)
            with m.Elif(now.group == self.vlen // self.width - 1):
                m.d.sync += [now.group.eq(0), now.address.eq(now.address + 1)]
        with m.If(self.valid & self.step.first):
            m.d.sync += vector_start.eq(1)
        with m.If(self.valid & self.step.block_last):
            m.d.sync += [
                now.valid.eq(1), now.starts.eq(1), now.sub.eq(0), now.id.eq(self.step.id), read_row.eq(0),
                rows.eq(row), tail.eq(self.context.tail), is_last.eq(self.step.last), vector_start.eq(0),
                now.dkind.eq(self.context.dkind), stride.eq(self.context.stride), now.byte.eq(self.position),
            ]
            with m.If(vector_start | self.step.first):
                m.d.sync += [
                    now.address.eq(self.context.base), now.group.eq(0),
                    self.code_address.eq(self.context.b + self.position),
                ]
        return out, read_row

    def _elements(self, m, row, read_row, weighted, lift):
        """Buffer the block; returns the elements of `read_row` two cycles later."""
        rows = Array(
            Signal(data.ArrayLayout(32, self.lanes), name=f"block_{i}", reset_less=True).as_value()
            for i in range(BLOCK // self.lanes)
        )
        with m.If(self.valid):
            m.d.sync += rows[row].eq(self.values.as_value())
        read = Signal(data.ArrayLayout(32, self.lanes), reset_less=True)
        m.d.sync += read.eq(rows[read_row])
        elements = []
        for i, value in enumerate(read):
            element = Signal(signed(8), name=f"element_{i}", reset_less=True)
            code = value[CODE_AT : CODE_AT + CODE_BITS]
            own = Signal(signed(10), name=f"lift_{i}")
            m.d.comb += own.eq(Mux(weighted, _WEIGHTED_BIAS + code - self.code, lift))
            number = Mux(weighted, value[:CODE_AT], value.as_signed())
            m.d.sync += element.eq(Mux(own[-1], 0, _rounded(m, number, own[:5], i)))
            elements.append(element)
        return elements

    def _emit(self, m, reading, elements):
        """Two stages behind `reading`: place the elements in the word."""
        shifting, now = Signal(self._emission), Signal(self._emission)
        m.d.sync += [shifting.eq(reading), now.eq(shifting)]
        column = now.dkind == Dest.VCOL
        m.d.comb += [
            self.enable.eq(now.valid), self.is_kv.eq(now.dkind != Dest.X), self.address.eq(now.address),
            self.done.eq(now.valid & now.last), self.done_id.eq(now.id), self.code_id.eq(shifting.id),
            self.code_valid.eq(shifting.valid & shifting.starts & (shifting.dkind == Dest.VCOL)),
        ]
        single = Array(elements)[now.sub] if self.lanes > 1 else elements[0]
        part = Cat(*elements)
        if self.lanes > self.vlen:
            part = Mux(now.sub[0], part[8 * self.width :], part[: 8 * self.width])
        part = Mux(column, Cat(*[single[:8]] * self.width), part)
        byte = now.byte if len(now.byte) else self.position[: self.vlen.bit_length() - 1]
        group = Mux(column, byte >> (self.width.bit_length() - 1), now.group)
        starts_word = now.group == 0
        words, mask = [], []
        for g in range(self.vlen // self.width):
            hit = group == g
            words.append(Mux(hit, part, Const(0, 8 * self.width)))
            mask += [Mux(column, byte == g * self.width + i, hit | starts_word) for i in range(self.width)]
        # code of the block being written: it is stable until the next block's first row leaves the shifter
        code = Signal(8, reset_less=True)
        m.d.sync += code.eq(self.code)
        per_block = (BLOCK // self.width).bit_length() - 1
        for block in range(max(1, self.vlen // BLOCK)):
            hit = now.group >> per_block == block if self.vlen > BLOCK else Const(1)
            words.append(Mux(hit, code, Const(0, 8)))
            mask.append(~column & (hit | starts_word))
        m.d.comb += [self.data.eq(Cat(*words)), self.mask.eq(Cat(*mask))]


def _rounded(m, number, lift, i):
    """number << lift, divided by 2^25 with ties to even, limited to -127..127."""
    moved, floor = Signal(signed(33), name=f"moved_{i}"), Signal(signed(8), name=f"floor_{i}")
    nearest = Signal(signed(9), name=f"nearest_{i}")
    up = moved[_TOP - 1] & (moved[: _TOP - 1].any() | moved[_TOP])
    m.d.comb += [moved.eq(number << lift), floor.eq(moved[_TOP:]), nearest.eq(floor + up)]
    return Mux(nearest == 128, 127, Mux(nearest == -128, -127, nearest))
