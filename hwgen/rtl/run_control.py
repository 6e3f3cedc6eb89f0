"""The host port's run control: takes tokens in, starts the mesh once a step, picks and emits the answers."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hwgen.isa import ENDS
from hwgen.rtl.packet_receiver import CLEAR_FLAG, IDLE_FLAG, LOGITS_FLAG, OUTPUT_FLAG
from hwgen.rtl.starts import of_stream, stream_bits

POSITION_BITS = 24


class RunControl(wiring.Component):
    """One run of the chip, from START to done.

    A run checks its registers in the cycle of `start`. Then, step by step: take a token for each stream that wants one
    (prompt, or in logits mode the host's choice), `begin` every stream on the mesh, wait until all tiles have answered,
    emit. A token is emitted only once the output is empty, so a stalled output stalls the run and loses nothing.
    Between the last answer and the next `begin` lie 2 cycles with one stream. With several, one whose prompt has no
    length rests, as does one that has come to its end; the run ends with the last.

    Parameters: `context`, `vocab`, `streams` in flight.

    Members
    -------
    start: In(1)
        One cycle; ignored while `busy`. The run parameters are sampled then.
    start_pos, prompt_len, max_tokens: In(32 * streams), ends: In(32 * ENDS), logits: In(1)
        A stream's run ends after a token that is one of `ends`; a word beyond the vocabulary is none.
    busy, done, err_range: Out(1)
        `done` and `err_range` hold until the next `start`.
    prompt: In(stream of 32 bit)
        Token ids; ready only while one is wanted, of the streams in order.
    begin: Out(1), begin_ready: In(1), number: Out, idle: Out(1), token: Out(32), flags: Out(32)
        Start message for all tiles, held until `begin_ready`: of stream `number`, which has no token if `idle`.
    answered: In(1), best: In(32 * streams)
        All tiles have answered (one cycle); the tokens picked by them.
    wants_logits: Out(1), is_last: Out(streams)
        Stream `number` sends logits; what a stream puts out in this step ends its run whatever it is.
    put: Out(1), put_last: Out(1), drained: In(1)
        Emits the best of stream `number`, as its last word; nothing waits in the output.
    """

    def __init__(self, *, context: int, vocab: int, streams: int = 1):
        if not 1 <= context < 1 << POSITION_BITS:
            raise ValueError(f"Context must be 1 to {(1 << POSITION_BITS) - 1}, not {context!r}")
        if not 1 <= vocab < 1 << 31:
            raise ValueError(f"Vocabulary must be 1 to {(1 << 31) - 1}, not {vocab!r}")
        self.context, self.vocab, self.streams = context, vocab, streams
        words = {name: In(32 * streams) for name in ("start_pos", "prompt_len", "max_tokens", "best")}
        super().__init__(
            words
            | {
                "start": In(1), "ends": In(32 * ENDS), "logits": In(1),
                "busy": Out(1), "done": Out(1), "err_range": Out(1),
                "prompt": In(stream.Signature(32)),
                "begin": Out(1), "begin_ready": In(1), "number": Out(stream_bits(streams)), "idle": Out(1),
                "token": Out(32), "flags": Out(32),
                "answered": In(1), "wants_logits": Out(1), "is_last": Out(streams),
                "put": Out(1), "put_last": Out(1), "drained": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        streams, number = range(self.streams), self.number
        width = bits_for(self.context)

        def by_stream(shape, name):
            return Array(Signal(shape, name=f"{name}_{s}", reset_less=True) for s in streams)

        def each(values):
            return [values[32 * s : 32 * (s + 1)] for s in streams]

        position, prompt_left, outputs_left = (by_stream(width, n) for n in ("position", "prompt_left", "outputs_left"))
        token, running = by_stream(32, "token"), Signal(self.streams, reset_less=True)
        logits, clear = Signal(reset_less=True), Signal(reset_less=True)
        id_bits = bits_for(self.vocab - 1)
        # an id that ends a text, and above it whether there is one
        ends = [Signal(id_bits + 1, name=f"end_{i}", reset_less=True) for i in range(ENDS)]
        asked_ends = [self.ends.word_select(i, 32) for i in range(ENDS)]
        settings = list(zip(each(self.start_pos), each(self.prompt_len), each(self.max_tokens), strict=True))
        asked = Cat(length != 0 for _, length, _ in settings)
        resting = Cat(~asked if self.streams > 1 else 0)
        sound = resting | Cat(
            (length != 0) & (most != 0) & (at + length <= self.context) for at, length, most in settings)
        output = Signal(self.streams)
        wants = Signal(self.streams)  # a token from outside
        best, is_end, left, last_stream = Signal(32), Signal(), Signal(self.streams), Signal()
        runs, gives = running.bit_select(number, 1), (running & output).bit_select(number, 1)
        m.d.comb += [
            output.eq(Cat(prompt_left[s] == 0 for s in streams)),
            wants.eq(running & (~output | logits.replicate(self.streams))),
            self.is_last.eq(Cat((outputs_left[s] == 1) | (position[s] == self.context - 1) for s in streams)),
            best.eq(of_stream(self.best, number, self.streams)),
            last_stream.eq(number == self.streams - 1),
            self.idle.eq(~runs), self.token.eq(token[number]),
            self.flags.eq(position[number] | gives << OUTPUT_FLAG | logits << LOGITS_FLAG | clear << CLEAR_FLAG
                          | self.idle << IDLE_FLAG),
            self.wants_logits.eq(logits & gives),
            self.put_last.eq(
                self.is_last.bit_select(number, 1) | Cat(end == Cat(best[:id_bits], 1) for end in ends).any()),
            is_end.eq(self.is_last.bit_select(number, 1) | (self.put & self.put_last)),
            left.eq(running),
        ]

        def advance(following):
            m.d.sync += number.eq(Mux(last_stream, 0, number + 1))
            with m.If(last_stream):
                following()

        def next_step():
            with m.If(~left.any()):
                m.next = "DRAIN"
            with m.Elif((wants & left).any()):
                m.next = "TAKE"
            with m.Else():
                m.next = "BEGIN"

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.start):
                for s, (at, length, most) in enumerate(settings):
                    m.d.sync += [
                        position[s].eq(at), prompt_left[s].eq(length),
                        outputs_left[s].eq(Mux(most > self.context, self.context, most)),
                    ]
                legal = sound.all() & asked.any()
                m.d.sync += [
                    running.eq(asked), logits.eq(self.logits), clear.eq(1), number.eq(0),
                    *(end.eq(Cat(word[:id_bits], word[id_bits:] == 0))
                      for end, word in zip(ends, asked_ends, strict=True)),
                    self.done.eq(0), self.err_range.eq(~legal),
                ]
                m.next = "TAKE"
                with m.If(~legal):
                    m.next = "DRAIN"
            with m.State("TAKE"):
                wanted = wants.bit_select(number, 1)
                m.d.comb += self.prompt.ready.eq(wanted)
                with m.If(self.prompt.valid | ~wanted):
                    advance(lambda: setattr(m, "next", "BEGIN"))
                with m.If(self.prompt.valid & wanted):
                    m.d.sync += token[number].eq(self.prompt.payload)
                    with m.If(prompt_left[number] != 0):
                        m.d.sync += prompt_left[number].eq(prompt_left[number] - 1)
                    with m.If(self.prompt.payload >= self.vocab):
                        m.d.sync += self.err_range.eq(1)
                        m.next = "DRAIN"
            with m.State("BEGIN"):
                m.d.comb += self.begin.eq(1)
                with m.If(self.begin_ready):
                    m.d.sync += clear.eq(0)
                    advance(lambda: setattr(m, "next", "COMPUTE"))
            with m.State("COMPUTE"), m.If(self.answered):
                for s in streams:
                    with m.If(~output[s]):
                        m.d.sync += position[s].eq(position[s] + 1)
                with m.If((running & output).any()):
                    m.next = "EMIT"
                with m.Else():
                    m.next = "TAKE"
            with m.State("EMIT"), m.If(logits | self.drained | ~gives):
                m.d.comb += self.put.eq(gives & ~logits)
                with m.If(gives):
                    m.d.sync += [
                        token[number].eq(best), position[number].eq(position[number] + 1),
                        outputs_left[number].eq(outputs_left[number] - 1), running.eq(left),
                    ]
                    with m.If(is_end):
                        m.d.comb += left.bit_select(number, 1).eq(0)
                advance(next_step)
            with m.State("DRAIN"), m.If(self.drained):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"
        return m
