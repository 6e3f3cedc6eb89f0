"""Queue of one unit's instructions: holds them in order until tokens, messages and the unit let them start."""

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hwgen.isa import COMMON_WIDTH, OPERATIONS, WAIT, WIDTH, Index, Unit, counter_numbers, layout
from hwgen.rtl.arrival_counters import wait_signature
from hwgen.rtl.indexed_base import IndexedBase
from hwgen.rtl.starts import POSITION_BITS, TOKEN_BITS, UNITS, of_stream, push_bits, stream_bits

_OP, _FENCE, _POP, _PUSH = slice(2, 6), 9, slice(10, 13), slice(13, 16)
_FLIGHT_BITS = 5


class Station(wiring.Component):
    """In-order queue of `depth` instructions in front of a unit.

    An instruction taken in one cycle can start in the next. The head starts once it has all tokens of `pop`, its
    fence (if the unit has none of its own) is met and the unit takes it; a WAIT also needs its counter. A WAIT that
    gives tokens is fenced: its tokens stand for everything before it. What depends on token and position is resolved
    on the way in; a GATHER's row address takes up to 12 cycles more at the head.

    Parameters: `unit` (name in `isa.Unit`), `depth` (1-8), `vlen`, `command` (layout of the unit's command: fields of
    the instruction, `n`, `rows`, `kwords` and `base` final, and op, fence, gather, push where the unit wants
    them), `streams` in flight.

    Members
    -------
    enqueue: In(stream of 128 bit)
    cmd: Out(stream of `command`)
        `push` has the unit's own bit set, and the stream: the unit's completion pulse for it is `done`.
    done: In(1)
        An instruction of the unit has completed.
    token, position: In(20 * streams), stream: In
        Constant while instructions are in the queue; the stream of the instruction to be enqueued.
    available: In(3 * streams), take, give: Out(push_bits)
        Tokens there for the unit, by stream; taken by it, and given by its WAITs.
    wait: Out(wait_signature)
    idle: Out(1)
        Nothing in the queue and nothing in the unit.
    waits_token, waits_message: Out(1)
        The head waits for a token; a WAIT with all its tokens waits for its counter.
    fault: Out(1)
        Pulses when more completes than was started, or too much is in flight.
    """

    def __init__(self, *, unit: str, depth: int, vlen: int, command: data.StructLayout, streams: int = 1):
        if unit not in ("MATRIX", "VECTOR", "SEND"):
            raise ValueError(f"Unit must be MATRIX, VECTOR or SEND, not {unit!r}")
        if not 1 <= depth <= 8:
            raise ValueError(f"Stations must be 1 to 8, not {depth!r}")
        self.unit, self.depth, self.vlen, self.command, self.streams = unit, depth, vlen, command, streams
        chosen = {"stream": In(stream_bits(streams))} if streams > 1 else {}
        super().__init__({
            "enqueue": In(stream.Signature(WIDTH)), "cmd": Out(stream.Signature(command)), "done": In(1),
            "token": In(TOKEN_BITS * streams), "position": In(POSITION_BITS * streams), **chosen,
            "available": In(UNITS * streams), "take": Out(push_bits(streams)), "give": Out(push_bits(streams)),
            "wait": Out(wait_signature(counter_numbers(streams).bits)),
            "idle": Out(1), "waits_token": Out(1), "waits_message": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        entry, head = data.View(self._entry(), Signal(self._entry())), data.View(self._entry(), Signal(self._entry()))
        m.d.comb += entry.eq(self._resolve(self.enqueue.payload))
        pop, level, head_valid = self._queue(m, entry, head)
        own = 1 << Unit[self.unit]
        flight = Signal(_FLIGHT_BITS)
        landed, tokens, fence = Signal(), Signal(), Signal()
        m.d.comb += [
            landed.eq(flight == 0),
            tokens.eq((head.pop & ~of_stream(self.available, head.push[UNITS:], self.streams)) == 0),
            fence.eq(Mux(head.is_wait, head.fence | head.push[:UNITS].any(), head.fence if self._fences else C(0))),
        ]
        ready = Signal()
        m.d.comb += ready.eq(head_valid & tokens & (landed | ~fence))
        address, addressed = self._address(m, head, head_valid, pop)
        m.d.comb += [
            self.wait.valid.eq(ready & head.is_wait),
            self.wait.ctr.eq(head.body), self.wait.count.eq(head.body[WAIT[0][1]:]),
            self.cmd.valid.eq(ready & ~head.is_wait & addressed),
            self._connect(head, own),
            pop.eq((self.wait.valid & self.wait.granted) | (self.cmd.valid & self.cmd.ready)),
            self.take.eq(Cat(Mux(pop, head.pop, 0) & ((1 << UNITS) - 1 - own), head.push[UNITS:])),
            self.give.eq(Mux(self.wait.valid & self.wait.granted, head.push, 0)),
            self.idle.eq((level == 0) & landed),
            self.waits_token.eq(head_valid & ~tokens),
            self.waits_message.eq(self.wait.valid & ~self.wait.granted),
        ]
        if address is not None:
            m.d.comb += self.cmd.payload.base.eq(address)
        following = Signal(_FLIGHT_BITS + 1)
        m.d.comb += following.eq(flight + (self.cmd.valid & self.cmd.ready) - self.done)
        m.d.comb += self.fault.eq(following[-1])
        m.d.sync += flight.eq(following)
        return m

    @property
    def _fences(self):
        """Whether the station waits for a fence, because the unit does not."""
        return "fence" not in self.command.members

    def _entry(self):
        members = {"is_wait": 1, "fence": 1, "pop": UNITS, "push": push_bits(self.streams), "body": self._body().size}
        if "base" in self.command.members:
            members |= {"index": 2}
        return data.StructLayout(members)

    def _body(self):
        return data.StructLayout({k: v for k, v in self.command.members.items() if k not in ("push", "fence")})

    def _resolve(self, word):
        """Entry for an instruction word."""
        unit = Unit[self.unit]
        name = next(name for name, (code, _) in OPERATIONS[unit].items() if code)
        fields = {key: word[at:at + width] for key, (at, width) in layout(unit, name).items()}
        stream = self.stream if self.streams > 1 else C(0, 0)
        position = of_stream(self.position, stream, self.streams)
        next_position = position + 1
        if "dyn" in fields:
            fields["n"] = Mux(fields["dyn"], next_position, fields["n"])
        if "dyn_rows" in fields:
            fields["rows"] = Mux(fields["dyn_rows"], next_position, fields["rows"])
            fields["kwords"] = Mux(
                fields["dyn_k"], (position >> exact_log2(self.vlen)) + 1, fields["kwords"]
            )
            fields["gather"] = word[_OP] == OPERATIONS[unit]["GATHER"][0]
        fields["op"] = word[_OP]
        body = Cat(*(_sized(fields[key], width) for key, width in self._body().members.items()))
        is_wait = word[_OP] == 0
        body = Mux(is_wait, word[COMMON_WIDTH:COMMON_WIDTH + sum(width for _, width in WAIT)], body)
        parts = {
            "is_wait": is_wait, "fence": word[_FENCE], "pop": word[_POP], "push": Cat(word[_PUSH], stream),
            "body": body, "index": fields.get("index", C(0)),
        }
        return Cat(*(_sized(parts[key], width) for key, width in self._entry().members.items()))

    def _queue(self, m, entry, head):
        """Shift register of entries whose first is the head: the head comes straight from a register."""
        size = self._entry().size
        entries = [Signal(size, reset_less=True, name=f"entry{i}") for i in range(self.depth)]
        level = Signal(range(self.depth + 1))
        pop, push, last = Signal(), Signal(), Signal(range(self.depth + 1))
        m.d.comb += [
            self.enqueue.ready.eq(level != self.depth),
            push.eq(self.enqueue.valid & self.enqueue.ready),
            last.eq(level - pop),
            head.eq(entries[0]),
        ]
        m.d.sync += level.eq(last + push)
        for i, register in enumerate(entries):
            with m.If(push & (last == i)):
                m.d.sync += register.eq(entry)
            if i + 1 < self.depth:
                with m.Elif(pop):
                    m.d.sync += register.eq(entries[i + 1])
        return pop, level, level != 0

    def _address(self, m, head, head_valid, pop):
        """(final base, whether it is ready); the base is (None, 1) for units without tables."""
        if "base" not in self.command.members:
            return None, C(1)
        m.submodules.indexed_base = indexed = IndexedBase(index_bits=max(POSITION_BITS, TOKEN_BITS))
        body = data.View(self._body(), head.body)
        started, needed = Signal(), Signal()
        m.d.comb += [
            needed.eq(head_valid & ~head.is_wait & body.gather & (head.index != Index.NONE)),
            indexed.start.eq(needed & ~started),
            indexed.base.eq(body.base),
            indexed.stride.eq(body.stride),
            indexed.index.eq(of_stream(
                Mux(head.index == Index.TOKEN, self.token, self.position), head.push[UNITS:], self.streams)),
        ]
        m.d.sync += started.eq(needed & ~pop)
        return Mux(needed, indexed.sum, body.base), ~needed | (started & indexed.ready)

    def _connect(self, head, own):
        """Command from the head, but for an indexed base."""
        body = data.View(self._body(), head.body)
        statements = [
            self.cmd.payload[key].eq(body[key])
            for key in self.command.members if key not in ("push", "fence", "base")
        ]
        statements.append(self.cmd.payload.push.eq(head.push | own))
        if not self._fences:
            statements.append(self.cmd.payload.fence.eq(head.fence))
        return statements


def _sized(value, shape):
    """The bits of `value`, cut or padded with zeros to the width of `shape`."""
    width = Shape.cast(shape).width
    bits = Cat(value)
    return bits[:width] if len(bits) >= width else Cat(bits, C(0, width - len(bits)))
