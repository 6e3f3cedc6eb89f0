"""Virtual channels of a router's output: who may have one, and how much room is behind it."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.link import CreditCounter


class OutputChannels(wiring.Component):
    """Credits of one output's channels and whether packets hold them.

    A channel is busy from the cycle after a packet's first flit to that in which its last one is sent. Of each class
    the free channel with most credits is offered to new packets.

    Parameters: `channels`; `classes`, tuples of channels that share them; `credits` of each channel.
    Members: `send` (bit v: a flit goes in channel v), `last` (it ends its packet) and `credit` (bit v: one comes back);
    `some` (bit v: channel v has credits); for each class k `offer_k` (bit v: channel v is offered) and `room_k` (bit n:
    that channel is free and has more than n credits); `fault`, see `CreditCounter`.
    """

    def __init__(self, *, channels: int, classes: tuple[tuple[int, ...], ...], credits: int):
        self.channels, self.classes, self.credits = channels, classes, credits
        offers = {}
        for k in range(len(classes)):
            offers |= {f"offer_{k}": Out(channels), f"room_{k}": Out(credits)}
        super().__init__({
            "send": In(channels), "last": In(1), "credit": In(channels), "some": Out(channels), **offers,
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        counters, busy = [], Signal(self.channels)
        for v in range(self.channels):
            counter = CreditCounter(credits=self.credits)
            m.submodules[f"credits_{v}"] = counter
            m.d.comb += [
                counter.send.eq(self.send[v]), counter.credit.eq(self.credit[v]), self.some[v].eq(counter.some)]
            with m.If(self.send[v]):
                m.d.sync += busy[v].eq(~self.last)
            counters.append(counter)
        m.d.comb += self.fault.eq(Cat(counter.fault for counter in counters).any())
        for k, members in enumerate(self.classes):
            rooms = [([v], Mux(busy[v], 0, counters[v].more_than)) for v in members]
            offer, room = _roomiest(rooms)
            m.d.comb += getattr(self, f"room_{k}").eq(room)
            m.d.comb += [getattr(self, f"offer_{k}")[v].eq(offer[v]) for v in members]
        return m


def _roomiest(rooms):
    """({channel: whether it has most room, the lowest of several}, its room)."""
    if len(rooms) == 1:
        (members, room), = rooms
        return {members[0]: Const(1)}, room
    half = len(rooms) // 2
    (first, first_room), (second, second_room) = _roomiest(rooms[:half]), _roomiest(rooms[half:])
    more = (second_room & ~first_room).any()
    offer = {v: bit & ~more for v, bit in first.items()} | {v: bit & more for v, bit in second.items()}
    return offer, first_room | second_room  # rows of ones: the longer one
