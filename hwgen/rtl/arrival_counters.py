"""Counters of words that have arrived, and the WAIT instructions that take from them."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import COUNTER_REPORT

COUNTERS = COUNTER_REPORT
COUNT_BITS = 20


def add_signature(word_bits: int) -> wiring.Signature:
    """Words that have become readable, seen from who counts them up."""
    return wiring.Signature({"valid": Out(1), "ctr": Out(4), "words": Out(word_bits)})


WAIT = wiring.Signature({"valid": Out(1), "ctr": Out(4), "count": Out(COUNT_BITS), "granted": In(1)})
"""A station's WAIT: it asks with `valid`, held until `granted`, which may come in the same cycle."""


class ArrivalCounters(wiring.Component):
    """14 counters of 20 bits; one addition and one satisfied WAIT a cycle, the first station before the others.

    A WAIT is granted at the earliest in the cycle after the last word it needs was counted.

    Parameters: `word_bits`, width of one addition; `waiters`, stations that may wait at once.
    Members: `add`; `wait0`, `wait1`, ...; `fault` pulses when a counter overflows or does not exist.
    """

    def __init__(self, *, word_bits: int, waiters: int):
        if not 1 <= word_bits <= COUNT_BITS:
            raise ValueError(f"Arrivals in one cycle must fit 1 to {COUNT_BITS} bits, not {word_bits!r}")
        if waiters < 1:
            raise ValueError(f"Waiters must be 1 or more, not {waiters!r}")
        self.word_bits, self.waiters = word_bits, waiters
        ports = {f"wait{i}": In(WAIT) for i in range(waiters)}
        super().__init__({"add": In(add_signature(word_bits)), **ports, "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        counters = [Signal(COUNT_BITS, name=f"counter{i}") for i in range(COUNTERS)]
        read = Array(counters)
        taken, left = Signal(COUNTERS), Signal(COUNT_BITS)
        busy = 0
        for i in range(self.waiters):
            wait = getattr(self, f"wait{i}")
            difference = Signal(COUNT_BITS + 1, name=f"difference{i}")
            m.d.comb += difference.eq(read[wait.ctr] - wait.count)
            m.d.comb += wait.granted.eq(wait.valid & ~difference[-1] & ~busy)
            with m.If(wait.granted):
                m.d.comb += [taken.eq(1 << wait.ctr), left.eq(difference)]
            busy |= wait.granted
        grown = Signal(COUNT_BITS + 1)
        m.d.comb += grown.eq(Mux(taken.bit_select(self.add.ctr, 1), left, read[self.add.ctr]) + self.add.words)
        m.d.comb += self.fault.eq(self.add.valid & (grown[-1] | (self.add.ctr >= COUNTERS)))
        for i, counter in enumerate(counters):
            with m.If(self.add.valid & (self.add.ctr == i)):
                m.d.sync += counter.eq(grown)
            with m.Elif(taken[i]):
                m.d.sync += counter.eq(left)
        return m
