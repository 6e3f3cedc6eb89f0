"""Input buffer of a link."""

from amaranth.hdl import Assert, Cat, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.flit_count import FlitCount
from hwgen.rtl.packet import check_buffer_flits, check_flit_bits


class FlitBuffer(wiring.Component):
    """FIFO of flits: a flit written in one cycle is at the head in the next; one written and one popped per cycle.

    Flits lie in order of arrival and move up when the head is popped: what comes out is a register, with no multiplexer
    before it, and that costs less than a ring. An entry without a flit follows the input, so that `w_valid`, the last
    signal to settle, drives no enable of the data.

    Parameters: `flit_bits`, `depth` (flits, any 2..16).
    Members: `w_valid, w_data, w_last` write; `r_valid, r_data, r_last` the head, removed by `pop` (only while
    `r_valid`); `overflow` pulses in the cycle after a flit came while full: what the buffer holds is
    then lost.
    """

    def __init__(self, *, flit_bits: int, depth: int):
        check_flit_bits(flit_bits)
        check_buffer_flits(depth)
        self.flit_bits, self.depth = flit_bits, depth
        super().__init__({
            "w_valid": In(1), "w_data": In(flit_bits), "w_last": In(1),
            "r_valid": Out(1), "r_data": Out(flit_bits), "r_last": Out(1), "pop": In(1), "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        entries = [Signal(self.flit_bits + 1, reset_less=True, name=f"entry{i}") for i in range(self.depth)]
        m.submodules.count = count = FlitCount(limit=self.depth, first=0)
        used, behind = count.more_than, Cat(count.more_than[1:], 0)
        m.d.comb += [count.more.eq(self.w_valid), count.less.eq(self.pop), self.r_valid.eq(count.any)]
        m.d.comb += Cat(self.r_data, self.r_last).eq(~entries[0])
        arrives = ~Cat(self.w_data, self.w_last)
        for i, entry in enumerate(entries):
            keep, move, load = (Signal(name=f"{what}{i}") for what in ("keep", "move", "load"))
            # while the last entry is used no flit is on its way: what it holds after a pop does not matter
            leaves = self.pop if i + 1 < self.depth else 0
            m.d.comb += [
                keep.eq(used[i] & ~leaves), move.eq(behind[i] & leaves), load.eq(~used[i] | (~behind[i] & leaves)),
            ]
            following = entries[i + 1] if i + 1 < self.depth else 0
            m.d.sync += entry.eq(Mux(keep, entry, 0) | Mux(move, following, 0) | Mux(load, arrives, 0))
        m.d.sync += self.overflow.eq(self.w_valid & used[-1])
        m.d.sync += Assert(ResetSignal() | ~self.pop | self.r_valid, "pop of an empty buffer")
        return m


def one_hot_mux(select, choices):
    """The choice whose bit of `select` is set, the OR of several, 0 for none."""
    terms = [Mux(bit, choice, 0) for bit, choice in zip(select, choices, strict=True)]
    while len(terms) > 1:
        terms = [terms[i] | terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]
