"""How many flits or credits there are."""

from amaranth.hdl import Assert, Cat, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class FlitCount(wiring.Component):
    """A count from 0 to `limit`, exact in the cycle after each change.

    `more` and `less` settle last in a router's cycle. So only whether there is any, which decides whether a flit may
    go, is found at once, and lies in a register of its own; the rest of the count, a row of ones, takes the change in
    at the beginning of the next cycle.

    Parameters: `limit`; `first`, the count after reset.
    Members: `more` and `less` (only while `any`) add one and take one off; `more_than` has bit k set while there are
    more than k; `any` is its bit 0. One more than `limit` is lost.
    """

    def __init__(self, *, limit: int, first: int):
        if not 0 <= first <= limit or limit < 1:
            raise ValueError(f"First count must be 0 to limit, and that 1 or more, not {first!r} of {limit!r}")
        self.limit, self.first = limit, first
        super().__init__({"more": In(1), "less": In(1), "more_than": Out(limit), "any": Out(1)})

    def elaborate(self, platform):
        m = Module()
        some = Signal(init=self.first > 0)
        ones, now = Signal(self.limit, init=(1 << self.first) - 1), Signal(self.limit)
        up, down = Signal(), Signal()
        m.d.comb += [
            now.eq(Cat(ones[1:], 0) | Mux(down, 0, ones) | Mux(up, Cat(1, ones[:-1]), 0)),
            self.more_than.eq(Cat(some, now[1:])), self.any.eq(some),
        ]
        m.d.sync += [
            up.eq(self.more & ~self.less), down.eq(self.less & ~self.more), ones.eq(now),
            some.eq(self.more | now[1:2].any() | (some & ~self.less)),
            Assert(ResetSignal() | (some == now[0]), "whether there is any does not match the count"),
        ]
        return m
