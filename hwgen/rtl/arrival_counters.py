"""Counters of words that have arrived, and the WAIT instructions that take from them."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import counter_numbers

COUNT_BITS = 20


def add_signature(counter_bits: int, word_bits: int) -> wiring.Signature:
    """Words that have become readable, seen from who counts them up."""
    return wiring.Signature({"valid": Out(1), "ctr": Out(counter_bits), "words": Out(word_bits)})


def wait_signature(counter_bits: int) -> wiring.Signature:
    """A station's WAIT: it asks with `valid`, held until `granted`, which may come in the same cycle."""
    return wiring.Signature({"valid": Out(1), "ctr": Out(counter_bits), "count": Out(COUNT_BITS), "granted": In(1)})


class ArrivalCounters(wiring.Component):
    """Counters of 20 bits, 7 for each stream and one for grants.

    One addition and one satisfied WAIT a cycle, the first station before the others. A WAIT is granted at the
    earliest in the cycle after the last word it needs was counted.

    Parameters: `word_bits`, width of one addition; `waiters`, stations that may wait at once; `streams` in flight.
    Members: `add`; `wait0`, `wait1`, ...; `fault` pulses when a counter overflows or does not exist.
    """

    def __init__(self, *, word_bits: int, waiters: int, streams: int = 1):
        if not 1 <= word_bits <= COUNT_BITS:
            raise ValueError(f"Arrivals in one cycle must fit 1 to {COUNT_BITS} bits, not {word_bits!r}")
        if waiters < 1:
            raise ValueError(f"Waiters must be 1 or more, not {waiters!r}")
        self.word_bits, self.waiters = word_bits, waiters
        numbers = counter_numbers(streams)
        self.counters = numbers.grant + 1
        ports = {f"wait{i}": In(wait_signature(numbers.bits)) for i in range(waiters)}
        super().__init__({"add": In(add_signature(numbers.bits, word_bits)), **ports, "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        counters = [Signal(COUNT_BITS, name=f"counter{i}") for i in range(self.counters)]
        read = Array(counters)
        taken, left = Signal(self.counters), Signal(COUNT_BITS)
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
        m.d.comb += self.fault.eq(self.add.valid & (grown[-1] | (self.add.ctr >= self.counters)))
        for i, counter in enumerate(counters):
            with m.If(self.add.valid & (self.add.ctr == i)):
                m.d.sync += counter.eq(grown)
            with m.Elif(taken[i]):
                m.d.sync += counter.eq(left)
        return m
