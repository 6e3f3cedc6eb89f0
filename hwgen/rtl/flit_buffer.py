"""Input buffer of a link."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.packet import check_buffer_flits, check_flit_bits


class FlitBuffer(wiring.Component):
    """FIFO of flits: a flit written in one cycle is at the head in the next; one written and one popped per cycle.

    The entry under the write pointer follows the input whenever the buffer is not full, so that `w_valid`, the last
    signal to settle, moves the pointer only and drives no enable of the data.

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
        write, read = Signal(self.depth, init=1), Signal(self.depth, init=1)
        head = Signal(self.flit_bits + 1)
        full = Signal()
        m.d.comb += [
            full.eq(self.r_valid & (write & read).any()),
            head.eq(one_hot_mux(read, [~entry for entry in entries])),
            self.r_data.eq(head[:-1]),
            self.r_last.eq(head[-1]),
        ]
        for i, entry in enumerate(entries):
            with m.If(write[i] & ~full):
                m.d.sync += entry.eq(~Cat(self.w_data, self.w_last))
        m.d.sync += self.overflow.eq(self.w_valid & full)
        with m.If(self.w_valid):
            m.d.sync += write.eq(write.rotate_left(1))
        with m.If(self.pop):
            m.d.sync += read.eq(read.rotate_left(1))
        emptied = self.pop & (write & read.rotate_left(1)).any()
        m.d.sync += self.r_valid.eq(self.w_valid | (self.r_valid & ~emptied))
        return m


def one_hot_mux(select, choices):
    """The choice whose bit of `select` is set, the OR of several, 0 for none."""
    terms = [Mux(bit, choice, 0) for bit, choice in zip(select, choices, strict=True)]
    while len(terms) > 1:
        terms = [terms[i] | terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]
