"""Vector instructions in flight: their contexts, and completion in order."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import Dest
from hwgen.rtl.starts import push_bits
from hwgen.rtl.vector_command import CONTEXTS, Op, context_layout


class Part(enum.IntEnum):
    """What an instruction may have to wait for: its last row written to vmem (or dropped), its last MX word, a
    maximum, an inverse, its last single word (maximum's index, scale code)."""

    ROWS, WORDS, MAXIMUM, INVERSE, SINGLE = range(5)


EVENTS = data.ArrayLayout(data.StructLayout({"valid": 1, "id": 2}), len(Part))
"""For each Part, the instruction that got it done in this cycle."""


def parts(op, dkind):
    """Bit mask of the parts that an operation with that destination has."""
    words = dkind.matches(Dest.X, Dest.KROW, Dest.VCOL)
    maximum, inverse = op.matches(Op.MAX, Op.MAXABS), op.matches(Op.SUMSQ, Op.EXP)
    single = (op == Op.ARGMAX) | (dkind == Dest.VCOL)
    rows = ~(words | maximum | inverse | single)
    return Cat(rows, words, maximum, inverse, single)


class VectorContexts(wiring.Component):
    """Queue of up to 4 contexts; the oldest leaves in the cycle in which its last part is done.

    Parameters: `streams` in flight.

    Members
    -------
    put: In(1), context: In(context_layout), parts: In(5)
        Adds an instruction under the number `id`. Its `base` follows one cycle later through `base` and `put_base`.
    id: Out(2), full, idle: Out(1)
        `idle`: none is left at the end of this cycle.
    events: In(EVENTS)
    entries: Out(4 contexts)
    done: Out(push_bits)
        `push` of the instruction that leaves in this cycle, else 0.
    busy: Out(1)
    """

    def __init__(self, *, streams: int = 1):
        self._context = context_layout(streams)
        super().__init__({
            "put": In(1), "context": In(self._context), "parts": In(len(Part)), "put_base": In(1), "base": In(20),
            "id": Out(2), "full": Out(1), "idle": Out(1), "events": In(EVENTS),
            "entries": Out(data.ArrayLayout(self._context, CONTEXTS)), "done": Out(push_bits(streams)), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        oldest, count, newest = Signal(2), Signal(3), Signal(2)
        pending = [Signal(len(Part), name=f"pending_{i}") for i in range(CONTEXTS)]
        entries = [Signal(self._context, name=f"context_{i}", reset_less=True) for i in range(CONTEXTS)]
        leaves = []
        for i in range(CONTEXTS):
            cleared = pending[i] & ~Cat(event.valid & (event.id == i) for event in self.events)
            m.d.sync += pending[i].eq(cleared)
            leaves.append(cleared == 0)
            with m.If(self.put & (self.id == i)):
                m.d.sync += [pending[i].eq(self.parts), entries[i].eq(self.context)]
            with m.If(self.put_base & (newest == i)):
                m.d.sync += entries[i].base.eq(self.base)
            m.d.comb += self.entries[i].eq(entries[i])
        leave = Signal()
        m.d.comb += [
            leave.eq((count != 0) & Cat(*leaves).bit_select(oldest, 1)),
            self.id.eq(oldest + count), self.full.eq(count == CONTEXTS), self.busy.eq(count != 0),
            self.idle.eq((count == 0) | (leave & (count == 1))),
            self.done.eq(Mux(leave, self.entries[oldest].push, 0)),
        ]
        m.d.sync += [oldest.eq(oldest + leave), count.eq(count + self.put - leave)]
        with m.If(self.put):
            m.d.sync += newest.eq(self.id)
        return m
