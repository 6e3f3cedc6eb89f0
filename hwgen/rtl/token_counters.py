"""Tokens between the units of a tile: one counter for every ordered pair."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

UNITS = 3
TOKEN_BITS = 6


class TokenCounters(wiring.Component):
    """Counters of 6 bits; a token given in one cycle can be taken in the next.

    Bit u of `available[i]` says that unit u has given unit i a token that is not yet taken.

    Members (index i is a unit: matrix, vector, send; a bit a unit in every mask)
    -------
    give0..2, also0..2: In(3)
        Unit i gives tokens: for completed instructions, and for WAITs. Bit i itself is ignored.
    take0..2: In(3)
        Unit i takes tokens.
    available0..2: Out(3)
        Bit i is always set.
    clear: In(1)
    fault: Out(1)
        Pulses when a counter overflows or a token is taken that is not there.
    """

    def __init__(self):
        ports = {}
        for unit in range(UNITS):
            ports |= {f"{name}{unit}": In(UNITS) for name in ("give", "also", "take")}
            ports[f"available{unit}"] = Out(UNITS)
        super().__init__({**ports, "clear": In(1), "fault": Out(1)})

    def elaborate(self, platform):
        m = Module()
        faults = []
        for giver in range(UNITS):
            for taker in range(UNITS):
                available = getattr(self, f"available{taker}")[giver]
                if giver == taker:
                    m.d.comb += available.eq(1)
                    continue
                counter = Signal(TOKEN_BITS, name=f"tokens_{giver}_{taker}")
                following = Signal(TOKEN_BITS + 1, name=f"following_{giver}_{taker}")
                take = getattr(self, f"take{taker}")[giver]
                more = getattr(self, f"give{giver}")[taker] + getattr(self, f"also{giver}")[taker]
                m.d.comb += [available.eq(counter != 0), following.eq(counter + more - take)]
                m.d.sync += counter.eq(following)
                with m.If(self.clear):
                    m.d.sync += counter.eq(0)
                # both ends of the range leave through the top bit: 64 and 65, and -1
                faults.append(following[-1])
        m.d.comb += self.fault.eq(Cat(faults).any())
        return m
