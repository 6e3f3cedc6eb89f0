"""Tokens between the units of a tile: one counter for every ordered pair and stream."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.starts import UNITS, push_bits

TOKEN_BITS = 6


class TokenCounters(wiring.Component):
    """Counters of 6 bits; a token given in one cycle can be taken in the next.

    Bit u of `available[i]`, of three for each stream, says that unit u has given unit i a token that is not yet taken.

    Parameters: `streams` in flight.

    Members (index i is a unit: matrix, vector, send; a bit a unit in every mask, above it the stream)
    -------
    give0..2, also0..2: In(push_bits)
        Unit i gives tokens: for completed instructions, and for WAITs. Bit i itself is ignored.
    take0..2: In(push_bits)
        Unit i takes tokens.
    available0..2: Out(3 * streams)
        Bit i is always set.
    clear: In(1)
    fault: Out(1)
        Pulses when a counter overflows or a token is taken that is not there.
    """

    def __init__(self, *, streams: int = 1):
        ports, self.streams = {}, streams
        for unit in range(UNITS):
            ports |= {f"{name}{unit}": In(push_bits(streams)) for name in ("give", "also", "take")}
            ports[f"available{unit}"] = Out(UNITS * streams)
        super().__init__({**ports, "clear": In(1), "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        faults = [self._pair(m, stream, giver, taker)
                  for stream in range(self.streams) for giver in range(UNITS) for taker in range(UNITS)]
        m.d.comb += self.fault.eq(Cat(faults).any())
        return m

    def _pair(self, m, stream, giver, taker):
        """Counter of one stream's tokens from one unit to another; returns its fault."""
        available = getattr(self, f"available{taker}")[UNITS * stream + giver]
        if giver == taker:
            m.d.comb += available.eq(1)
            return Const(0)
        name = f"{giver}_{taker}" + (f"_{stream}" if self.streams > 1 else "")
        counter = Signal(TOKEN_BITS, name=f"tokens_{name}")
        following = Signal(TOKEN_BITS + 1, name=f"following_{name}")

        def bit(port, unit):
            return port[unit] & (port[UNITS:] == stream if self.streams > 1 else 1)

        take = bit(getattr(self, f"take{taker}"), giver)
        more = bit(getattr(self, f"give{giver}"), taker) + bit(getattr(self, f"also{giver}"), taker)
        m.d.comb += [available.eq(counter != 0), following.eq(counter + more - take)]
        m.d.sync += counter.eq(following)
        with m.If(self.clear):
            m.d.sync += counter.eq(0)
        # both ends of the range leave through the top bit: 64 and 65, and -1
        return following[-1]
