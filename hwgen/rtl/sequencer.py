"""The tile's sequencer: fetches one program a token and issues its instructions, in order, to the units' queues."""

from amaranth.hdl import C, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import OPERATIONS, WIDTH, Unit, When, layout
from hwgen.rtl.starts import POSITION_BITS, TOKEN_BITS, of_stream, start_layout, stream_bits

FETCH = (1, 2, 4)
_UNIT, _OP, _WHEN = slice(0, 2), slice(2, 6), slice(6, 9)
_END, _RANGE, _STREAM = (OPERATIONS[Unit.CONTROL][name][0] for name in ("END", "RANGE", "STREAM"))


def rom_signature(width: int, address_bits: int) -> wiring.Signature:
    """Read port of a synchronous memory, seen from the reader: data one cycle after `en`, held while `en` is low."""
    return wiring.Signature({"en": Out(1), "addr": Out(address_bits), "data": In(width)})


class Sequencer(wiring.Component):
    """Issues up to `fetch` instructions a cycle, at most one a unit, from the program word being executed.

    The first instruction is issued 3 cycles after `start`; a program word of `fetch` instructions whose units have room
    takes one cycle, else as many as it needs; words follow each other without a gap. Instructions whose
    condition is false, those of idle streams, RANGE and STREAM, occupy a slot and no unit. RANGE and STREAM end the
    cycle's issue. END waits for `idle`.

    Parameters: `fetch` (1, 2, 4), `address_bits` of the program ROM, `streams` in flight.

    Members
    -------
    start: In(start_layout)
        Begins as soon as the program before has ended; one may be held.
    program: Out(read port of the program ROM, `fetch` x 128 bit)
    issue0..2: Out(stream of 128 bit)
        To the stations of the matrix, vector and send unit.
    idle: In(1)
        All stations and units have finished.
    token, position: Out(20 * streams), stream: Out
        Of every stream in the program being run; the stream whose instructions are being issued.
    running: Out(1), clear: Out(1), ended: Out(1)
        A program is being run; it begins and asks to clear counters and flags (one cycle); it ends (one cycle).
    blocked: Out(1)
        The next instruction waits for room in its queue.
    fault: Out(1)
        Pulses when a start comes while one is held.
    """

    def __init__(self, *, fetch: int, address_bits: int, streams: int = 1):
        if fetch not in FETCH:
            raise ValueError(f"Fetch must be 1, 2 or 4, not {fetch!r}")
        if address_bits < 1:
            raise ValueError(f"Program address width must be 1 or more, not {address_bits!r}")
        self.fetch, self.address_bits, self.streams = fetch, address_bits, streams
        chosen = {"stream": Out(stream_bits(streams))} if streams > 1 else {}
        super().__init__({
            "start": In(start_layout(streams)), **chosen, "program": Out(rom_signature(fetch * WIDTH, address_bits)),
            "issue0": Out(stream.Signature(WIDTH)), "issue1": Out(stream.Signature(WIDTH)),
            "issue2": Out(stream.Signature(WIDTH)), "idle": In(1),
            "token": Out(TOKEN_BITS * streams), "position": Out(POSITION_BITS * streams), "running": Out(1),
            "clear": Out(1), "ended": Out(1), "blocked": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        begin, conditions = self._starts(m)
        window = Signal(self.fetch * WIDTH, reset_less=True)
        todo = Signal(self.fetch)
        finish = Signal(self.fetch)
        self._fetches(m, begin, window, todo, finish)
        slots = [window.word_select(i, WIDTH) for i in range(self.fetch)]
        self._issues(m, slots, todo, finish, conditions)
        return m

    def _starts(self, m):
        """Holds one start and begins it; returns that pulse and, by `When`, whether an instruction is to be issued."""
        streams = self.streams
        held, begin, self._owner = Signal(), Signal(), Signal()
        waiting = Signal(start_layout(streams), reset_less=True)
        output, logits, idle = (Signal(streams, reset_less=True, name=name) for name in ("output", "logits", "idle"))
        m.d.comb += [
            begin.eq(held & ~self.running),
            self.clear.eq(begin & waiting.clear),
            self.fault.eq(self.start.valid & held & ~begin),
        ]
        with m.If(self.start.valid):
            m.d.sync += [held.eq(1), waiting.eq(self.start)]
        with m.Elif(begin):
            m.d.sync += held.eq(0)
        with m.If(begin):
            m.d.sync += [
                self.running.eq(1), self.token.eq(waiting.token), self.position.eq(waiting.position),
                output.eq(waiting.output), logits.eq(waiting.logits), idle.eq(waiting.idle),
            ]
        with m.If(self.ended):
            m.d.sync += self.running.eq(0)
        if streams == 1:  # an idle stream alone is never started
            active, wants, by_logits = C(1), output, logits
        else:
            active, wants, by_logits = (
                of_stream(bits, self.stream, streams) for bits in (~idle, output & ~idle, logits))
            with m.If(self.ended):
                m.d.sync += self.stream.eq(0)
        conditions = {
            When.ALWAYS: active, When.OUTPUT: wants, When.TOKENS: wants & ~by_logits, When.LOGITS: wants & by_logits,
            When.OWNER: self._owner & active, When.NOT_TOKENS: active & ~(wants & ~by_logits),
        }
        return begin, conditions

    def _fetches(self, m, begin, window, todo, finish):
        """Program words from the ROM, through its held output, into the window."""
        address, fetched, take = Signal(self.address_bits), Signal(), Signal()
        m.d.comb += [
            take.eq(fetched & ((todo & ~finish) == 0) & ~self.ended),
            self.program.en.eq((self.running | begin) & (~fetched | take)),
            self.program.addr.eq(address),
        ]
        m.d.sync += [fetched.eq((fetched & ~take) | self.program.en), todo.eq(todo & ~finish)]
        with m.If(self.program.en):
            m.d.sync += address.eq(address + 1)
        with m.If(take):
            m.d.sync += [window.eq(self.program.data), todo.eq(~0)]
        with m.If(self.ended):
            m.d.sync += [address.eq(0), fetched.eq(0), todo.eq(0)]

    def _issues(self, m, slots, todo, finish, conditions):
        """Walks the window's slots in order, as far as units and queues allow."""
        streams = [self.issue0, self.issue1, self.issue2]
        go = C(1)  # everything before this slot is finished or issued in this cycle
        used = [C(0)] * len(streams)
        finished, blocked = [], []
        token = of_stream(self.token, self.stream if self.streams > 1 else None, self.streams)
        for i, slot in enumerate(slots):
            unit, code = slot[_UNIT], slot[_OP]
            wanted, here, full = Signal(name=f"wanted{i}"), Signal(name=f"here{i}"), Signal(name=f"full{i}")
            done = Signal(name=f"done{i}")
            with m.Switch(slot[_WHEN]):
                for when, condition in conditions.items():
                    with m.Case(when):
                        # what controls the program itself belongs to no stream
                        m.d.comb += wanted.eq(condition | (unit == Unit.CONTROL if self.streams > 1 else 0))
            m.d.comb += here.eq(todo[i] & go)
            control = here & wanted & (unit == Unit.CONTROL)
            free = C(0)
            for u, target in enumerate(streams):
                mine = here & wanted & (unit == u) & ~used[u]
                with m.If(mine):
                    m.d.comb += [target.valid.eq(1), target.payload.eq(slot)]
                free = free | (mine & target.ready)
                with m.If(mine & ~target.ready):
                    m.d.comb += full.eq(1)
                used[u] = used[u] | mine
            blocked.append(full)
            is_range = control & (code == _RANGE)
            ends_issue = is_range
            with m.If(is_range):
                low, high = (slot[at:at + width] for at, width in layout(Unit.CONTROL, "RANGE").values())
                m.d.sync += self._owner.eq((token >= low) & (token < high))
            if self.streams > 1:
                chooses = control & (code == _STREAM)
                ends_issue = is_range | chooses
                with m.If(chooses):
                    at, width = layout(Unit.CONTROL, "STREAM")["stream"]
                    m.d.sync += self.stream.eq(slot[at:at + width])
            with m.If(control & (code == _END) & self.idle & (todo[:i] == 0)):
                m.d.comb += self.ended.eq(1)
            m.d.comb += done.eq(here & (~wanted | free | ends_issue))
            finished.append(done)
            go = go & (~todo[i] | (done & ~ends_issue))
        # one signal a slot: bits of one signal that depend on each other look like a loop to simulators
        m.d.comb += [finish.eq(Cat(finished)), self.blocked.eq(Cat(blocked).any())]
