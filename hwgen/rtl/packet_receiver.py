"""Arrivals of a tile: writes the words of packets into vector memory and tells their counter."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import COUNTER_REPORT, COUNTER_START
from hwgen.rtl.link import Link
from hwgen.rtl.packet import COUNTER_BITS, PacketFormat, row_bits
from hwgen.rtl.packet_input import PacketInput

StartMessage = data.StructLayout({"valid": 1, "token": 20, "position": 24, "output": 1, "logits": 1, "clear": 1})
"""Start of a program; `valid` is a pulse, the rest keeps its value until the next start."""


def counter_add(flit_words: int, lanes: int) -> data.StructLayout:
    """A pulse `valid`: counter `ctr` grows by `words`, which can be read from now on."""
    return data.StructLayout({"valid": 1, "ctr": COUNTER_BITS, "words": range(min(flit_words, lanes) + 1)})


class PacketReceiver(wiring.Component):
    """Takes packets off the router's local output and writes them at any word alignment.

    Header flits take a cycle each; a payload flit takes as many as it touches rows, more while `w_ready` is low. Flits
    of packets in different channels may mix, and packets may come in any order.

    Parameters: `lanes` (words a row) and those of `PacketFormat`; its own buffers are as long as every router's.

    Members
    -------
    link : from the router.
    w_en, w_addr (row), w_data, w_mask (bit per lane), w_ready : vector memory, written in a cycle with
        `w_en & w_ready`.
    counter_add : in the cycle after such a write.
    start : a message of ctr 15 is complete; where a flit holds one word, its two may come as packets of their own.
    report : a message of ctr 14 has come.
    fault : a flit came into a full buffer, one cycle ago.
    """

    def __init__(self, *, lanes: int, **network):
        self.packet = PacketFormat(**network)
        self.lanes = lanes
        self.row_bits = row_bits(lanes, self.packet.address_bits)
        super().__init__({
            "link": In(Link(self.packet.flit_bits, self.packet.virtual_channels)),
            "w_en": Out(1), "w_addr": Out(self.row_bits), "w_data": Out(32 * lanes), "w_mask": Out(lanes),
            "w_ready": In(1),
            "counter_add": Out(counter_add(self.packet.words_per_flit, lanes)), "start": Out(StartMessage),
            "report": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.flits = flits = PacketInput(packet=self.packet)
        wiring.connect(m, flits.link, wiring.flipped(self.link))
        special, written, done = Signal(), Signal(), Signal()
        m.d.comb += [
            special.eq((flits.ctr == COUNTER_REPORT) | (flits.ctr == COUNTER_START)),
            self.w_en.eq(flits.valid & flits.payload & ~special),
            written.eq(self.w_en & self.w_ready),
            flits.pop.eq(flits.valid & (~flits.payload | special | (written & done))),
            flits.advance.eq(1),
            self.fault.eq(flits.overflow),
        ]
        self._write_rows(m, flits.data, flits.addr, flits.words_less_one, written, done)
        count = sum(bit for bit in self.w_mask)
        m.d.sync += [
            self.counter_add.valid.eq(written), self.counter_add.ctr.eq(flits.ctr), self.counter_add.words.eq(count),
        ]
        command = flits.valid & flits.payload & special
        m.d.sync += self.report.eq(command & (flits.ctr == COUNTER_REPORT) & flits.last)
        self._start(m, command & (flits.ctr == COUNTER_START), flits.data, flits.addr[0])
        return m

    def _write_rows(self, m, flit, address, words_less_one, written, done):
        """Lane l of the flit's row number k gets word k * lanes + l - address % lanes, where there is one."""
        lanes, per_flit = self.lanes, self.packet.words_per_flit
        lane_bits = (lanes - 1).bit_length()
        row = Signal(range(max(2, per_flit // lanes + 1)))
        end = Signal(range(lanes + per_flit))
        offset = address[:lane_bits]
        end_row, end_lane = end[lane_bits:], end[:lane_bits]
        rotate = address[:(min(lanes, per_flit) - 1).bit_length()]
        turned = flit
        for i, bit in enumerate(rotate):
            turned = Mux(bit, turned.rotate_left(32 << i), turned)
        turned = turned.replicate(max(1, lanes // per_flit))
        m.d.comb += [
            end.eq(offset + words_less_one),
            done.eq(row == end_row),
            self.w_addr.eq(address[lane_bits:] + row),
            self.w_data.eq(turned.word_select(row[:(max(1, per_flit // lanes) - 1).bit_length()], 32 * lanes)),
        ]
        for lane in range(lanes):
            begun, ended = (row != 0) | (lane >= offset), (row == end_row) & (lane > end_lane)
            m.d.comb += self.w_mask[lane].eq(begun & ~ended)
        with m.If(written):
            m.d.sync += row.eq(Mux(done, 0, row + 1))

    def _start(self, m, command, flit, second):
        """Word 0 of the message is the token, word 1 the rest; either may come first where they come one by one."""
        if self.packet.words_per_flit == 1:
            came, complete, token, rest = Signal(2), Signal(), command & ~second, command & second
            now = came | Cat(token, rest)
            m.d.comb += complete.eq(now.all())
            m.d.sync += came.eq(Mux(complete, 0, now))
            flags = flit
        else:
            complete = token = rest = command
            flags = flit[32:]
        m.d.sync += self.start.valid.eq(complete)
        with m.If(token):
            m.d.sync += self.start.token.eq(flit[:20])
        with m.If(rest):
            m.d.sync += [
                self.start.position.eq(flags[:24]), self.start.output.eq(flags[24]), self.start.logits.eq(flags[25]),
                self.start.clear.eq(flags[26]),
            ]
