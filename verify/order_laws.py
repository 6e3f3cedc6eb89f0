"""Laws of the order of service: who waits is passed over by each of the others once at most."""

from amaranth.hdl import Assert, Cat, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hwgen.rtl.service_order import ServiceOrder


class OrderLaws(wiring.Component):
    """One thing shared by clients that ask for it at any time; in a cycle the first of those that ask has it, or none.

    `watched` is any client. Counted are the others that are served while it asks.
    """

    def __init__(self, *, clients: int, watched: int):
        self.clients, self.watched = clients, watched
        super().__init__({"asks": In(clients), "able": In(1)})

    def elaborate(self, platform):
        m = Module()
        clients = range(self.clients)
        order, served = ServiceOrder(clients, "order"), Signal(self.clients)
        for i in clients:
            ahead = Cat(self.asks[j] & order.before(j, i) for j in clients if j != i).any()
            m.d.comb += served[i].eq(self.able & self.asks[i] & ~ahead)
        order.serve(m, {i: served[i] for i in clients})
        others = Signal(range(self.clients + 1))
        waits = self.asks[self.watched] & ~served[self.watched]
        with m.If(waits):
            m.d.sync += others.eq(others + served.any())
        with m.Else():
            m.d.sync += others.eq(0)
        m.d.sync += [
            Assert(ResetSignal() | ~self.able | (self.asks == 0) | served.any(), "nobody is served"),
            Assert(ResetSignal() | ((served & (served - 1)) == 0), "two are served"),
            Assert(ResetSignal() | (others < self.clients), "it is passed over too often"),
        ]
        return m
