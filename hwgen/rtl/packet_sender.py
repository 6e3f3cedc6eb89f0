"""Send unit of a tile: reads words from vector memory and sends them as packets."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import VMEM_BITS, counter_numbers
from hwgen.rtl.link import Link
from hwgen.rtl.link_output import LinkOutput
from hwgen.rtl.packet import MAX_HOST_WORDS, MAX_UNICAST_FLITS, PacketFormat, row_bits
from hwgen.rtl.row_reader import RowReader
from hwgen.rtl.starts import push_bits

KIND_COUNTERS = 4
"""Message kind under which a tile's performance counters go to the host."""
PERFORMANCE_COUNTERS = 8


def send_command(streams: int) -> data.StructLayout:
    """What S.SEND carries; `src` is the word address of a row's first word, n >= 1, and at most 64 to the host."""
    return data.StructLayout({
        "src": VMEM_BITS, "n": 16, "dst": VMEM_BITS, "x0": 6, "y0": 6, "x1": 6, "y1": 6, "host": 1,
        "ctr": counter_numbers(streams).bits, "push": push_bits(streams),
    })


class PacketSender(wiring.Component):
    """Executes S.SEND: one command at a time, split into packets as `PacketFormat` has them; to the host, one packet.

    While credits and reads come, one flit leaves every cycle if a row has the words of a flit or more, else one in the
    cycles its rows take; a command follows the previous one without a pause. A packet once begun waits for nothing
    but credits and reads, and no other begins before its end. Without `multicast` only x0, y0 are used.

    Parameters: `lanes` (words a row) and those of `PacketFormat`.

    Members
    -------
    cmd : stream of `send_command`.
    r_en, r_addr (row), r_ready, r_data : vector memory; a read is done in a cycle with `r_en & r_ready` and its row is
        on `r_data` in the next cycle only.
    link : to the router's local input; registered.
    done : the command's `push`, for one cycle, in the cycle after its last row was read.
    flags : sticky (overflow, fault) of the tile: bits 0 and 1 of ctr in messages to the host.
    report : a pulse asks for `counters` (8 x 32 bit) to be sent to the host, after the current command.
    stalled : a flit is there and no credit.
    busy : a command or report is under way or due.
    fault : a credit came that was not out, as CreditCounter tells it.
    """

    def __init__(self, *, lanes: int, **network):
        self.packet = PacketFormat(**network)
        self.lanes = lanes
        # spans to be sent lie anywhere in vector memory, also beyond what messages can address
        self.row_bits = row_bits(lanes, VMEM_BITS)
        self._command = send_command(self.packet.streams)
        super().__init__({
            "cmd": In(stream.Signature(self._command)),
            "r_en": Out(1), "r_addr": Out(self.row_bits), "r_ready": In(1), "r_data": In(32 * lanes),
            "link": Out(Link(self.packet.flit_bits, self.packet.virtual_channels)),
            "done": Out(push_bits(self.packet.streams)), "flags": In(2),
            "report": In(1), "counters": In(data.ArrayLayout(32, PERFORMANCE_COUNTERS)),
            "stalled": Out(1), "busy": Out(1), "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        packet = self.packet
        per_flit = packet.words_per_flit
        m.submodules.channels = channels = LinkOutput(classes=packet.classes, buffer_flits=packet.buffer_flits)
        m.submodules.reader = reader = RowReader(flit_bits=packet.flit_bits, lanes=self.lanes, row_bits=self.row_bits)
        command = Signal(self._command, reset_less=True)
        several, reporting = Signal(), Signal()
        host = command.host | reporting
        remaining = Signal(16, reset_less=True)  # payload flits of the command that are to come, less one
        last_words = Signal(range(per_flit), reset_less=True)
        address = Signal(packet.address_bits, reset_less=True)
        self._read_rows(m, reader, command)
        accept, begin, report_due = self._take_turns(m)
        longest = Mux(several, max(1, packet.multicast_flits), MAX_UNICAST_FLITS) - 1
        left, final = Signal(range(max(MAX_UNICAST_FLITS, MAX_HOST_WORDS // per_flit))), Signal()
        m.d.comb += final.eq((remaining <= longest) | host)
        size = Mux(final, remaining, longest)[:len(left)]
        header = self._header(command, host, several, size, Mux(final, last_words, per_flit - 1), address)
        counter = ~remaining[:self._report_flits.bit_length() - 1]
        counters = self.counters.as_value().word_select(counter, min(packet.flit_bits, 32 * PERFORMANCE_COUNTERS))
        part = Signal(range(packet.header_flits))
        load, flit, there, last = Signal(), Signal(packet.flit_bits), Signal(), Signal()
        m.d.comb += [
            channels.send.eq(load), channels.credit.eq(self.link.credit), self.fault.eq(channels.fault),
            channels.multicast.eq(several), load.eq(there & channels.some), self.stalled.eq(there & ~channels.some),
            reader.last_flit.eq(remaining == 0),
        ]
        m.d.sync += [self.link.valid.eq(load), self.link.data.eq(flit), self.link.last.eq(last)]
        if packet.virtual_channels > 1:
            m.d.sync += self.link.vc.eq(channels.channel)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | report_due)
            with m.State("IDLE"):
                m.d.comb += accept.eq(1)
                with m.If(begin):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    there.eq(1), channels.first.eq(part == 0), flit.eq(header.word_select(part, packet.flit_bits)),
                ]
                with m.If(load):
                    m.d.sync += [part.eq(part + 1), left.eq(size)]
                    with m.If(part == packet.header_flits - 1):
                        m.d.sync += part.eq(0)
                        m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += [
                    there.eq(reader.ready | reporting), flit.eq(Mux(reporting, counters, reader.flit)),
                    last.eq(left == 0), reader.take.eq(load & ~reporting), accept.eq(load & (remaining == 0)),
                ]
                with m.If(load):
                    m.d.sync += [left.eq(left - 1), remaining.eq(remaining - 1)]
                    with m.If(~host):
                        m.d.sync += address.eq(address + per_flit)
                    with m.If(last):
                        m.next = "HEADER"
                    with m.If(accept & ~begin):
                        m.next = "IDLE"
        with m.If(begin):
            m.d.sync += [command.eq(self.cmd.payload), reporting.eq(report_due)]
            m.d.sync += self._first_values(report_due, several, remaining, last_words, address)
            m.d.comb += reader.start.eq(~report_due)
        return m

    def _read_rows(self, m, reader, command):
        m.d.comb += [
            reader.row.eq(self.cmd.payload.src >> (self.lanes - 1).bit_length()),
            reader.less_one.eq(self.cmd.payload.n - 1),
            self.r_en.eq(reader.r_en), self.r_addr.eq(reader.r_addr), reader.r_ready.eq(self.r_ready),
            reader.r_data.eq(self.r_data), self.done.eq(Mux(reader.complete, command.push, 0)),
        ]

    def _take_turns(self, m):
        """`accept`: the next may begin in this cycle; `begin`: it does; `report_due`: it is a report."""
        accept, begin, report_due = Signal(), Signal(), Signal()
        m.d.comb += [begin.eq(accept & (report_due | self.cmd.valid)), self.cmd.ready.eq(accept & ~report_due)]
        with m.If(self.report):
            m.d.sync += report_due.eq(1)
        with m.Elif(begin):
            m.d.sync += report_due.eq(0)
        return accept, begin, report_due

    def _first_values(self, report_due, several, remaining, last_words, address):
        command, per_flit = self.cmd.payload, self.packet.words_per_flit
        less_one = command.n - 1
        apart = (command.x0 != command.x1) | (command.y0 != command.y1)
        return [
            several.eq(apart & ~command.host & ~report_due & self.packet.multicast),
            remaining.eq(Mux(report_due, self._report_flits - 1, less_one[:16] >> self._flit_shift)),
            last_words.eq(Mux(report_due, min(per_flit, PERFORMANCE_COUNTERS) - 1, less_one)),
            address.eq(Mux(report_due, KIND_COUNTERS, command.dst)),
        ]

    @property
    def _report_flits(self):
        return max(1, PERFORMANCE_COUNTERS // self.packet.words_per_flit)

    @property
    def _flit_shift(self):
        return self.packet.words_per_flit.bit_length() - 1

    def _header(self, command, host, several, size, last, address):
        high_x, high_y = (command.x1, command.y1) if self.packet.multicast else (command.x0, command.y0)
        values = {
            "x0": Mux(host, 0, command.x0), "x1": Mux(host, 0, high_x), "y0": Mux(host, 0, command.y0),
            "y1": Mux(host, 0, high_y), "host": host,
            "flits": Mux(several, size + self.packet.header_flits, 0), "route": Const(0, 5),
            "ctr": Mux(host, self.flags, command.ctr), "last": last, "addr": address,
        }
        parts = [value[:bits] if bits else value[:0] for value, bits in
                 ((values[name], bits) for name, (_, bits) in self.packet.fields.items())]
        header = Cat(parts)
        return Cat(header, (self.packet.header_flits * self.packet.flit_bits - len(header)) * [0])
