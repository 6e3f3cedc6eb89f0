"""What one virtual channel of a link has under way, and the promises that both of its sides make."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class LinkWatch(wiring.Component):
    """Counts the flits that are out and tells whether a packet is under way.

    Parameters: `credits`, the receiver's buffer depth.
    Members: `valid`, `last` and `credit` as on the link; `held`: flits sent whose credit is not back; `open`: the last
    flit sent was not the last of its packet; both as before this cycle. `sender` holds while the sender keeps its
    promise (it sends only against a credit) and `receiver` while the receiver does (no credit but for a flit it has).
    """

    def __init__(self, *, credits: int):
        self.credits = credits
        super().__init__({
            "valid": In(1), "last": In(1), "credit": In(1), "held": Out(range(credits + 1)), "open": Out(1),
            "sender": Out(1), "receiver": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.held.eq(self.held + self.valid - self.credit)
        m.d.sync += self.open.eq(Mux(self.valid, ~self.last, self.open))
        m.d.comb += [
            self.sender.eq(~self.valid | (self.held != self.credits)),
            self.receiver.eq(~self.credit | (self.held != 0)),
        ]
        return m
