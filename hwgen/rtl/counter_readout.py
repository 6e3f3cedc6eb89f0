"""The host port's copy of one tile's performance counters."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

TILE_COUNTERS = 8


class CounterReadout(wiring.Component):
    """Asks a tile for its counters and keeps them.

    One request is in flight; one made meanwhile replaces it: its own answer follows before `valid` rises.

    Members
    -------
    request: In(1), tile: In(32)
        Asks for the tile y << 16 | x and clears `valid`; `bad` is high in that cycle if there is no such tile.
    send: Out(1), send_ready: In(1), x: Out, y: Out
        Message to the tile, held until `send_ready`.
    arrives: In(1), word: In(32), index: In(3), last: In(1)
        A counter of the answer, its number, whether it is the last one.
    valid: Out(1), bad: Out(1)
    select: In(3), value: Out(32)
        Number of a counter, and its value in the same cycle.
    """

    def __init__(self, *, width: int, height: int):
        self.width, self.height = width, height
        super().__init__({
            "request": In(1), "tile": In(32), "send": Out(1), "send_ready": In(1), "x": Out(range(width)),
            "y": Out(range(height)), "arrives": In(1), "word": In(32), "index": In(3), "last": In(1),
            "valid": Out(1), "bad": Out(1), "select": In(3), "value": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        wanted, in_flight, legal = Signal(), Signal(), Signal()
        values = Array(Signal(32, reset_less=True, name=f"counter{i}") for i in range(TILE_COUNTERS))
        m.d.comb += [
            legal.eq((self.tile[:16] < self.width) & (self.tile[16:] < self.height)),
            self.bad.eq(self.request & ~legal),
            self.send.eq(wanted & ~in_flight),
            self.value.eq(values[self.select]),
        ]
        with m.If(self.send & self.send_ready):
            m.d.sync += [wanted.eq(0), in_flight.eq(1)]
        with m.If(self.arrives):
            m.d.sync += values[self.index].eq(self.word)
            with m.If(self.last):
                m.d.sync += [in_flight.eq(0), self.valid.eq(~wanted)]
        with m.If(self.request):
            m.d.sync += [self.valid.eq(0), wanted.eq(legal)]
            with m.If(legal):
                m.d.sync += [self.x.eq(self.tile[:16]), self.y.eq(self.tile[16:])]
        return m
