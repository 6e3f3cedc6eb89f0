"""Arrivals of a tile: writes the words of packets into vector memory and tells their counter."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import COUNTER_REPORT, COUNTER_START
from hwgen.rtl.flit_buffer import FlitBuffer
from hwgen.rtl.link import Link
from hwgen.rtl.packet import COUNTER_BITS, PacketFormat, row_bits

StartMessage = data.StructLayout({"valid": 1, "token": 20, "position": 24, "output": 1, "logits": 1, "clear": 1})
"""Start of a program; `valid` is a pulse, the rest keeps its value until the next start."""


def counter_add(flit_words: int, lanes: int) -> data.StructLayout:
    """A pulse `valid`: counter `ctr` grows by `words`, which can be read from now on."""
    return data.StructLayout({"valid": 1, "ctr": COUNTER_BITS, "words": range(min(flit_words, lanes) + 1)})


class PacketReceiver(wiring.Component):
    """Takes packets off the router's local output and writes them at any word alignment.

    Header flits take a cycle each; a payload flit takes as many as it touches rows, more while `w_ready` is low.

    Parameters: mesh `width` x `height`, `flit_bits`, `lanes` (words a row), `address_bits` (word address),
    `buffer_flits` (of its own buffer, as of every router's), `multicast`.

    Members
    -------
    link : from the router.
    w_en, w_addr (row), w_data, w_mask (bit per lane), w_ready : vector memory, written in a cycle with
        `w_en & w_ready`.
    counter_add : in the cycle after such a write.
    start : a message of ctr 15 is complete (word 1 has come; word 0, the token, came before or with it).
    report : a message of ctr 14 has come.
    fault : a flit came into a full buffer, one cycle ago.
    """

    def __init__(self, *, width: int, height: int, flit_bits: int, lanes: int, address_bits: int, buffer_flits: int,
                 multicast: bool):
        self.packet = PacketFormat(
            width=width, height=height, flit_bits=flit_bits, buffer_flits=buffer_flits, address_bits=address_bits,
            multicast=multicast,
        )
        self.lanes = lanes
        self.row_bits = row_bits(lanes, address_bits)
        super().__init__({
            "link": In(Link(flit_bits)),
            "w_en": Out(1), "w_addr": Out(self.row_bits), "w_data": Out(32 * lanes), "w_mask": Out(lanes),
            "w_ready": In(1),
            "counter_add": Out(counter_add(self.packet.words_per_flit, lanes)), "start": Out(StartMessage),
            "report": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        packet = self.packet
        per_flit = packet.words_per_flit
        m.submodules.buffer = buffer = FlitBuffer(flit_bits=packet.flit_bits, depth=packet.buffer_flits)
        m.d.comb += [
            buffer.w_valid.eq(self.link.valid), buffer.w_data.eq(self.link.data), buffer.w_last.eq(self.link.last),
            self.link.credit.eq(buffer.pop), self.fault.eq(buffer.overflow),
        ]
        ctr = Signal(COUNTER_BITS, reset_less=True)
        last_words = Signal(range(per_flit), reset_less=True)
        address = Signal(packet.address_bits, reset_less=True)
        payload = self._read_header(m, buffer, ctr, last_words, address)

        words_less_one = Signal(range(per_flit))
        special, written, done = Signal(), Signal(), Signal()
        m.d.comb += [
            words_less_one.eq(Mux(buffer.r_last, last_words, per_flit - 1)),
            special.eq((ctr == COUNTER_REPORT) | (ctr == COUNTER_START)),
            self.w_en.eq(buffer.r_valid & payload & ~special),
            written.eq(self.w_en & self.w_ready),
            buffer.pop.eq(buffer.r_valid & (~payload | special | (written & done))),
        ]
        self._write_rows(m, buffer.r_data, address, words_less_one, written, done)
        count = sum(bit for bit in self.w_mask)
        m.d.sync += [self.counter_add.valid.eq(written), self.counter_add.ctr.eq(ctr), self.counter_add.words.eq(count)]
        with m.If(payload & buffer.pop):
            m.d.sync += address.eq(address + per_flit)
        command = buffer.r_valid & payload & special
        m.d.sync += self.report.eq(command & (ctr == COUNTER_REPORT) & buffer.r_last)
        self._start(m, command & (ctr == COUNTER_START), buffer.r_data, address, words_less_one)
        return m

    def _read_header(self, m, buffer, ctr, last_words, address):
        """Take the header's fields as its flits pass; return whether the flit at the head is payload."""
        packet = self.packet
        place = Signal(range(packet.header_flits + 1))
        payload, first = Signal(), Signal(packet.flit_bits, reset_less=True)
        header = Cat(first, buffer.r_data) if packet.header_flits == 2 else buffer.r_data
        m.d.comb += payload.eq(place == packet.header_flits)
        with m.If(buffer.pop & (~payload | buffer.r_last)):
            m.d.sync += place.eq(Mux(payload, 0, place + 1))
        with m.If(buffer.pop & ~payload):
            m.d.sync += first.eq(buffer.r_data)
            for name, target in {"ctr": ctr, "last": last_words, "addr": address}.items():
                at, bits = packet.fields[name]
                m.d.sync += target.eq(header[at:at + bits])
        return payload

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

    def _start(self, m, command, flit, address, words_less_one):
        """Word 0 of the message is the token; word 1, wherever in the flit it lies, starts."""
        second = flit[:32] if self.packet.words_per_flit == 1 else Mux(address == 0, flit[32:64], flit[:32])
        complete = Mux(address == 0, words_less_one != 0, address == 1)
        with m.If(command & (address == 0)):
            m.d.sync += self.start.token.eq(flit[:20])
        m.d.sync += self.start.valid.eq(command & complete)
        with m.If(command & complete):
            m.d.sync += [
                self.start.position.eq(second[:24]), self.start.output.eq(second[24]), self.start.logits.eq(second[25]),
                self.start.clear.eq(second[26]),
            ]
