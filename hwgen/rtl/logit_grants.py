"""The host port's side of logits mode: one chunk at a time, tile after tile, only into free FIFO space."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

CHUNK = 64
"""Logits per grant; a tile's last chunk may be shorter."""


class LogitGrants(wiring.Component):
    """Grants to the tiles that hold head rows, in row order, each for min(64, rows left in the tile) logits.

    The next grant is asked for once the previous chunk has arrived and the FIFO has room for another one.

    Members
    -------
    restart: In(1)
        Begin with the first tile (one cycle).
    room: In(1)
        The FIFO has 64 words free.
    grant: Out(1), grant_ready: In(1), x: Out, y: Out
        Asks for a grant to tile (x, y), held until `grant_ready`.
    word: In(1)
        A logit has arrived.
    busy: Out(1)
        Logits of the position are still to come.
    last_word: Out(1)
        The next word to arrive is the last of the position.
    unasked: Out(1)
        A logit arrives that was not granted: the chip is at fault.
    """

    def __init__(self, *, width: int, height: int, grant_order: tuple[tuple[int, int, int], ...]):
        for x, y, rows in grant_order:
            if not (0 <= x < width and 0 <= y < height and rows >= 1):
                raise ValueError(f"Grant must be (x, y, rows) inside the {width}x{height} mesh, not {(x, y, rows)!r}")
        if not grant_order:
            raise ValueError("Grant order must name at least one tile, not ()")
        self.grant_order = tuple(grant_order)
        super().__init__(
            {
                "restart": In(1), "room": In(1), "grant": Out(1), "grant_ready": In(1),
                "x": Out(range(width)), "y": Out(range(height)), "word": In(1), "last_word": Out(1),
                "unasked": Out(1), "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        most_rows = max(rows for _, _, rows in self.grant_order)
        tiles = len(self.grant_order)
        active = Signal()
        index = Signal(range(tiles), reset_less=True)
        rows = Signal(bits_for(most_rows))
        arrived = Signal(bits_for(most_rows), reset_less=True)
        pending = Signal(bits_for(CHUNK), reset_less=True)
        left = Signal(bits_for(most_rows))
        with m.Switch(index):
            for number, (x, y, count) in enumerate(self.grant_order):
                with m.Case(number):
                    m.d.comb += [self.x.eq(x), self.y.eq(y), rows.eq(count)]
        m.d.comb += [
            left.eq(rows - arrived),
            self.busy.eq(active),
            self.grant.eq(active & (pending == 0) & self.room),
            self.unasked.eq(self.word & ~(active & (pending != 0))),
            self.last_word.eq((index == tiles - 1) & (left == 1)),
        ]
        with m.If(self.grant & self.grant_ready):
            m.d.sync += pending.eq(Mux(left > CHUNK, CHUNK, left))
        with m.If(self.word):
            m.d.sync += [pending.eq(pending - 1), arrived.eq(arrived + 1)]
            with m.If(left == 1):
                m.d.sync += [arrived.eq(0), index.eq(index + 1)]
            with m.If(self.last_word):
                m.d.sync += active.eq(0)
        with m.If(self.restart):
            m.d.sync += [active.eq(1), index.eq(0), arrived.eq(0), pending.eq(0)]
        return m
