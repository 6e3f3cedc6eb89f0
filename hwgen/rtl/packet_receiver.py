"""Arrivals of a tile: writes the words of packets into vector memory and tells their counter."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.rtl.link import Link
from hwgen.rtl.packet import PacketFormat, row_bits
from hwgen.rtl.packet_input import PacketInput
from hwgen.rtl.starts import POSITION_BITS, TOKEN_BITS, start_layout, stream_bits

OUTPUT_FLAG, LOGITS_FLAG, CLEAR_FLAG, IDLE_FLAG = 24, 25, 26, 27
"""Bits of the second word of a start message, above the position."""


def counter_add(counter_bits: int, flit_words: int, lanes: int) -> data.StructLayout:
    """A pulse `valid`: counter `ctr` grows by `words`, which can be read from now on."""
    return data.StructLayout({"valid": 1, "ctr": counter_bits, "words": range(min(flit_words, lanes) + 1)})


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
    start : the start messages of all streams are there, in any order; where a flit holds one word, the two words of
        each may come as packets of their own. `valid` is a pulse, the rest keeps its value until the next start.
    report : a message that asks for the performance counters has come.
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
            "counter_add": Out(counter_add(self.packet.counters.bits, self.packet.words_per_flit, lanes)),
            "start": Out(start_layout(self.packet.streams)),
            "report": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        numbers = self.packet.counters
        m.submodules.flits = flits = PacketInput(packet=self.packet)
        wiring.connect(m, flits.link, wiring.flipped(self.link))
        special, written, done = Signal(), Signal(), Signal()
        is_report, is_start = (flits.ctr == number for number in (numbers.report, numbers.start))
        m.d.comb += [
            special.eq(is_report | is_start),
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
        m.d.sync += self.report.eq(command & is_report & flits.last)
        self._start(m, command & is_start, flits.data, flits.addr)
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

    def _start(self, m, command, flit, address):
        """Words 2s and 2s + 1 belong to stream s: token, and the rest; either may come first where they come apart."""
        streams, apart = self.packet.streams, self.packet.words_per_flit == 1
        # what a flit brings: one of the words, or both of a stream
        index = address[:(2 * streams - 1).bit_length()] if apart else address[1:1 + stream_bits(streams)]
        count = 2 * streams if apart else streams
        brings, complete = Signal(count, name="brings"), Signal()
        m.d.comb += brings.eq(Cat(command & (index == n) for n in range(count)) if count > 1 else command)
        if count > 1:
            came = Signal(count, name="came")
            m.d.comb += complete.eq((came | brings).all())
            m.d.sync += came.eq(Mux(complete, 0, came | brings))
        else:
            m.d.comb += complete.eq(brings)
        m.d.sync += self.start.valid.eq(complete)
        token, rest = (brings[0::2], brings[1::2]) if apart else (brings, brings)
        flags, start = flit if apart else flit[32:], self.start
        for stream in range(streams):
            with m.If(token[stream]):
                m.d.sync += start.token.word_select(stream, TOKEN_BITS).eq(flit)
            with m.If(rest[stream]):
                m.d.sync += [
                    start.position.word_select(stream, POSITION_BITS).eq(flags),
                    start.output[stream].eq(flags[OUTPUT_FLAG]),
                    start.logits[stream].eq(flags[LOGITS_FLAG]), start.idle[stream].eq(flags[IDLE_FLAG]),
                ]
        with m.If(rest[0]):
            m.d.sync += start.clear.eq(flags[CLEAR_FLAG])
