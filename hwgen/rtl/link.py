"""Link between two routers, or a router and what hangs on it, and the credit count its sender keeps."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.packet import check_flit_bits


class Link(wiring.Signature):
    """One direction of a link, seen from the sender.

    A flit passes in every cycle with `valid`; there is no ready. `last` marks the last flit of a packet. The receiver
    answers with one cycle of `credit` for each flit that has left its buffer; the sender starts with as many
    credits as the buffer has flits and sends only while it has one.

    Parameters: `flit_bits`.
    """

    def __init__(self, flit_bits: int):
        check_flit_bits(flit_bits)
        self.flit_bits = flit_bits
        super().__init__({"valid": Out(1), "data": Out(flit_bits), "last": Out(1), "credit": In(1)})


class CreditCounter(wiring.Component):
    """Credits of one link. A credit that comes back can be spent in the next cycle.

    Parameters: `credits`, the receiver's buffer depth in flits.
    Members: `send` and `credit` change the count by one; `count`; `some` = count is not zero; `fault` pulses when a
    credit is spent that is not there, or one comes back that was not out.
    """

    def __init__(self, *, credits: int):
        if credits < 1:
            raise ValueError(f"Credits must be 1 or more, not {credits!r}")
        self.credits = credits
        super().__init__({
            "send": In(1), "credit": In(1), "count": Out(range(credits + 1), init=credits), "some": Out(1),
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.some.eq(self.count != 0),
            self.fault.eq((self.send & ~self.some) | (self.credit & (self.count == self.credits))),
        ]
        with m.If(self.send & ~self.credit):
            m.d.sync += self.count.eq(self.count - 1)
        with m.Elif(self.credit & ~self.send):
            m.d.sync += self.count.eq(self.count + 1)
        return m
