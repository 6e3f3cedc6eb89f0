"""The host port's run control: takes tokens in, starts the mesh once per token, picks and emits the answers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

POSITION_BITS = 24
OUTPUT_FLAG, LOGITS_FLAG, CLEAR_FLAG = 24, 25, 26
"""Bits of the start message's second word."""


class RunControl(wiring.Component):
    """One run of the chip, from START to done.

    A run checks its registers in the cycle of `start`. Then, for every position: take a token (prompt, or in logits
    mode the host's choice), `begin` it on the mesh, wait until all tiles have answered, emit. A token is emitted only
    once the output is empty, so a stalled output stalls the run and loses nothing. Between the last answer and the
    next `begin` lie 2 cycles.

    Members
    -------
    start: In(1)
        One cycle; ignored while `busy`. The five run parameters are sampled then.
    start_pos, prompt_len, max_tokens, eos: In(32), logits: In(1)
    busy, done, err_range: Out(1)
        `done` and `err_range` hold until the next `start`.
    prompt: In(stream of 32 bit)
        Token ids; ready only while one is wanted.
    begin: Out(1), begin_ready: In(1), token: Out(32), flags: Out(32)
        Start message for all tiles, held until `begin_ready`.
    answered: In(1), best: In(32)
        All tiles have answered (one cycle); the token picked by them.
    wants_logits: Out(1), is_last: Out(1)
        The position being computed sends logits; its output ends the run whatever it is.
    put: Out(1), put_last: Out(1), drained: In(1)
        Emits `best`, as the run's last word; nothing waits in the output.
    """

    def __init__(self, *, context: int, vocab: int):
        if not 1 <= context < 1 << POSITION_BITS:
            raise ValueError(f"Context must be 1 to {(1 << POSITION_BITS) - 1}, not {context!r}")
        if not 1 <= vocab < 1 << 31:
            raise ValueError(f"Vocabulary must be 1 to {(1 << 31) - 1}, not {vocab!r}")
        self.context, self.vocab = context, vocab
        words = {name: In(32) for name in ("start_pos", "prompt_len", "max_tokens", "eos", "best")}
        super().__init__(
            words
            | {
                "start": In(1), "logits": In(1), "busy": Out(1), "done": Out(1), "err_range": Out(1),
                "prompt": In(stream.Signature(32)),
                "begin": Out(1), "begin_ready": In(1), "token": Out(32), "flags": Out(32),
                "answered": In(1), "wants_logits": Out(1), "is_last": Out(1),
                "put": Out(1), "put_last": Out(1), "drained": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = bits_for(self.context)
        position, prompt_left, outputs_left = (Signal(width, reset_less=True) for _ in range(3))
        token, eos = Signal(32, reset_less=True), Signal(32, reset_less=True)
        logits, clear = Signal(reset_less=True), Signal(reset_less=True)
        output = Signal()
        legal = (
            (self.prompt_len != 0) & (self.max_tokens != 0) & (self.start_pos + self.prompt_len <= self.context)
        )
        m.d.comb += [
            output.eq(prompt_left == 0),
            self.is_last.eq((outputs_left == 1) | (position == self.context - 1)),
            self.token.eq(token),
            self.flags.eq(position | output << OUTPUT_FLAG | logits << LOGITS_FLAG | clear << CLEAR_FLAG),
            self.wants_logits.eq(logits & output),
            self.put_last.eq(self.is_last | (self.best == eos)),
        ]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [
                    position.eq(self.start_pos),
                    prompt_left.eq(self.prompt_len),
                    outputs_left.eq(Mux(self.max_tokens > self.context, self.context, self.max_tokens)),
                    eos.eq(self.eos),
                    logits.eq(self.logits),
                    clear.eq(1),
                    self.done.eq(0),
                    self.err_range.eq(~legal),
                ]
                m.next = "TAKE"
                with m.If(~legal):
                    m.next = "DRAIN"
            with m.State("TAKE"):
                m.d.comb += self.prompt.ready.eq(1)
                with m.If(self.prompt.valid):
                    m.d.sync += token.eq(self.prompt.payload)
                    with m.If(prompt_left != 0):
                        m.d.sync += prompt_left.eq(prompt_left - 1)
                    m.next = "BEGIN"
                    with m.If(self.prompt.payload >= self.vocab):
                        m.d.sync += self.err_range.eq(1)
                        m.next = "DRAIN"
            with m.State("BEGIN"):
                m.d.comb += self.begin.eq(1)
                with m.If(self.begin_ready):
                    m.d.sync += clear.eq(0)
                    m.next = "COMPUTE"
            with m.State("COMPUTE"), m.If(self.answered):
                with m.If(output):
                    m.next = "EMIT"
                with m.Else():
                    m.d.sync += position.eq(position + 1)
                    m.next = "TAKE"
            with m.State("EMIT"), m.If(logits | self.drained):
                m.d.comb += self.put.eq(~logits)
                m.d.sync += [token.eq(self.best), position.eq(position + 1), outputs_left.eq(outputs_left - 1)]
                with m.If(self.is_last | (self.put & self.put_last)):
                    m.next = "DRAIN"
                with m.Elif(logits):
                    m.next = "TAKE"
                with m.Else():
                    m.next = "BEGIN"
            with m.State("DRAIN"), m.If(self.drained):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"
        return m
