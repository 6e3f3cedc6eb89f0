# amaranth: UnusedElaboratable=no
"""Tile core: sequencer, stations, matrix unit, vector unit and network interface around external memories."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hwgen.isa import VMEM_BITS
from hwgen.rtl.arrival_counters import ArrivalCounters
from hwgen.rtl.link import Link
from hwgen.rtl.matrix_unit import MatrixUnit
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.packet_receiver import PacketReceiver
from hwgen.rtl.packet_sender import PacketSender
from hwgen.rtl.performance import COUNTERS, PerformanceCounters
from hwgen.rtl.quantiser import mx_word_bytes
from hwgen.rtl.row_writer import RowWriter
from hwgen.rtl.sequencer import Sequencer, rom_signature
from hwgen.rtl.starts import POSITION_BITS
from hwgen.rtl.station import Station
from hwgen.rtl.token_counters import TokenCounters
from hwgen.rtl.vector_unit import VectorUnit

UNITS = ("MATRIX", "VECTOR", "SEND")


def sram_signature(width: int, group: int, address_bits: int) -> wiring.Signature:
    """Ports of a memory with one read and one write port, seen from the user; a write enable for `group` bits."""
    return wiring.Signature({
        "read_en": Out(1), "read_addr": Out(address_bits), "read_data": In(width),
        "write_en": Out(1), "write_addr": Out(address_bits), "write_data": Out(width),
        "write_mask": Out(width // group),
    })


class Tile(wiring.Component):
    """Tile core. Memories, ROMs and router are outside; towards them it has the plain ports of a memory or a link.

    Parameters: `fetch`, `stations`, `vlen`, `lanes` (the tile class); `weights` (as MatrixUnit); `rom_address_bits`,
    `imem_address_bits`, `vmem_address_bits` (rows), `x_address_bits`, `kv_address_bits` (address widths of the
    memories); those of `PacketFormat` (the network).

    Members
    -------
    program, rom: Out(read ports of the program and the weight ROM)
    vmem, xmem, kvmem: Out(vector, operand and KV memory)
    link_out: Out(Link), link_in: In(Link)
        To and from the router's local port.
    router_fault: In(1)
    activity: Out(3)
        Matrix, vector and send unit at work in this cycle.
    """

    def __init__(
        self, *, fetch: int, stations: int, vlen: int, lanes: int, rom_address_bits: int, imem_address_bits: int,
        vmem_address_bits: int, x_address_bits: int, kv_address_bits: int, weights: str = "mxint8", **network,
    ):
        self.fetch, self.stations, self.vlen, self.lanes = fetch, stations, vlen, lanes
        self.network, packet = network, PacketFormat(**network)
        link = Link(packet.flit_bits, packet.virtual_channels)
        most = VMEM_BITS - exact_log2(lanes)
        if not 1 <= vmem_address_bits <= most:
            raise ValueError(f"Vector memory address width must be 1 to {most} bits, not {vmem_address_bits!r}")
        self.row_bits, self.imem_address_bits = vmem_address_bits, imem_address_bits
        self.streams = packet.streams
        self.matrix = MatrixUnit(vlen=vlen, weights=weights, streams=self.streams)
        self.vector = VectorUnit(lanes=lanes, vlen=vlen, streams=self.streams)
        word = 8 * mx_word_bytes(vlen)
        super().__init__({
            "program": Out(rom_signature(fetch * 128, imem_address_bits)),
            "rom": Out(rom_signature(len(self.matrix.rom_data), rom_address_bits)),
            "vmem": Out(sram_signature(32 * lanes, 32, vmem_address_bits)),
            "xmem": Out(sram_signature(word, 8, x_address_bits)),
            "kvmem": Out(sram_signature(word, 8, kv_address_bits)),
            "link_out": Out(link), "link_in": In(link), "router_fault": In(1),
            "activity": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        # under an emitting platform the units that tile classes may have in common are modules of their own
        place = getattr(platform, "place", lambda part: part)
        sequencer = Sequencer(fetch=self.fetch, address_bits=self.imem_address_bits, streams=self.streams)
        writer = RowWriter(lanes=self.lanes, streams=self.streams)
        sender = PacketSender(**self.network, lanes=self.lanes)
        receiver = PacketReceiver(**self.network, lanes=self.lanes)
        tokens, performance = TokenCounters(streams=self.streams), PerformanceCounters()
        arrivals = ArrivalCounters(
            word_bits=len(receiver.counter_add.words), waiters=len(UNITS), streams=self.streams)
        units = (self.matrix, self.vector, sender)
        stations = [
            Station(unit=name, depth=self.stations, vlen=self.vlen, command=unit.cmd.payload.shape(),
                    streams=self.streams)
            for name, unit in zip(UNITS, units, strict=True)
        ]
        parts = {
            "sequencer": sequencer, "writer": writer, "sender": sender, "receiver": receiver, "tokens": tokens,
            "performance": performance, "arrivals": arrivals, "matrix": self.matrix, "vector": self.vector,
        }
        parts |= {f"{name.lower()}_station": station for name, station in zip(UNITS, stations, strict=True)}
        for name, part in parts.items():
            m.submodules[name] = place(part) if part in (self.matrix, self.vector) else part
        self._issue(m, sequencer, stations, units, (writer, self.vector, sender), tokens, arrivals)
        self._memories(m, sequencer, writer, sender, receiver)
        self._network(m, sequencer, sender, receiver, arrivals)
        faults = Cat(
            sequencer.fault, tokens.fault, arrivals.fault, sender.fault, receiver.fault, self.router_fault,
            *(station.fault for station in stations),
        ).any()
        self._flags(m, sequencer, sender, faults)
        self._performance(m, performance, sequencer, stations, sender)
        return m

    def _issue(self, m, sequencer, stations, units, finishers, tokens, arrivals):
        """Sequencer to stations to units, and their tokens back."""
        m.d.comb += [sequencer.idle.eq(Cat(s.idle for s in stations).all()), tokens.clear.eq(sequencer.ended)]
        for i, (station, unit, finisher) in enumerate(zip(stations, units, finishers, strict=True)):
            wiring.connect(m, getattr(sequencer, f"issue{i}"), station.enqueue)
            wiring.connect(m, station.cmd, unit.cmd)
            wiring.connect(m, station.wait, getattr(arrivals, f"wait{i}"))
            m.d.comb += [
                station.token.eq(sequencer.token), station.position.eq(sequencer.position),
                *([station.stream.eq(sequencer.stream)] if self.streams > 1 else []),
                station.done.eq(finisher.done[i]), station.available.eq(getattr(tokens, f"available{i}")),
                getattr(tokens, f"give{i}").eq(finisher.done), getattr(tokens, f"also{i}").eq(station.give),
                getattr(tokens, f"take{i}").eq(station.take),
            ]

    def _memories(self, m, sequencer, writer, sender, receiver):
        """Each memory's ports; vector memory is written by vector unit, matrix results, arrivals in this order."""
        matrix, vector, vmem = self.matrix, self.vector, self.vmem
        wiring.connect(m, sequencer.program, wiring.flipped(self.program))
        wiring.connect(m, matrix.result, writer.result)
        m.d.comb += [
            *(vector.position.word_select(s, 16).eq(sequencer.position.word_select(s, POSITION_BITS))
              for s in range(self.streams)),
            self.rom.en.eq(matrix.rom_en), self.rom.addr.eq(matrix.rom_addr), matrix.rom_data.eq(self.rom.data),
        ]
        for memory, name in ((self.xmem, "x"), (self.kvmem, "kv")):
            m.d.comb += [
                memory.read_en.eq(getattr(matrix, f"{name}_en")), memory.read_addr.eq(getattr(matrix, f"{name}_addr")),
                getattr(matrix, f"{name}_data").eq(memory.read_data),
                memory.write_en.eq(getattr(vector, f"{name}_en")),
                memory.write_addr.eq(getattr(vector, f"{name}_addr")),
                memory.write_data.eq(getattr(vector, f"{name}_data")),
                memory.write_mask.eq(getattr(vector, f"{name}_mask")),
            ]
        m.d.comb += [
            vmem.read_en.eq(vector.r_en | sender.r_en),
            vmem.read_addr.eq(Mux(vector.r_en, vector.r_addr, sender.r_addr)),
            sender.r_ready.eq(~vector.r_en), sender.r_data.eq(vmem.read_data), vector.r_data.eq(vmem.read_data),
            vmem.write_en.eq(vector.w_en | writer.w_en | receiver.w_en),
            writer.w_ready.eq(~vector.w_en), receiver.w_ready.eq(~vector.w_en & ~writer.w_en),
        ]
        first = Mux(vector.w_en, 0, Mux(writer.w_en, 1, 2))
        for name in ("addr", "data", "mask"):
            choices = Array(getattr(source, f"w_{name}") for source in (vector, writer, receiver))
            m.d.comb += getattr(vmem, f"write_{name}").eq(choices[first])

    def _network(self, m, sequencer, sender, receiver, arrivals):
        wiring.connect(m, sender.link, wiring.flipped(self.link_out))
        wiring.connect(m, receiver.link, wiring.flipped(self.link_in))
        m.d.comb += sender.report.eq(receiver.report)
        m.d.comb += sequencer.start.eq(receiver.start)
        m.d.comb += [getattr(arrivals.add, name).eq(receiver.counter_add[name])
                     for name in arrivals.add.signature.members]

    def _flags(self, m, sequencer, sender, faults):
        """Sticky overflow and fault, which every message to the host carries."""
        overflow, fault = Signal(), Signal()
        m.d.sync += [
            overflow.eq((overflow & ~sequencer.clear) | self.matrix.overflow | self.vector.overflow),
            fault.eq((fault & ~sequencer.clear) | faults),
        ]
        m.d.comb += sender.flags.eq(Cat(overflow, fault))

    def _performance(self, m, performance, sequencer, stations, sender):
        matrix, vector, _ = stations
        events = {
            "running": sequencer.running, "mac_busy": self.matrix.mac_busy, "matrix_waits_token": matrix.waits_token,
            "matrix_waits_message": matrix.waits_message, "vector_busy": self.vector.busy,
            "vector_waits_message": vector.waits_message, "send_waits_network": sender.stalled,
            "issue_blocked": sequencer.blocked,
        }
        m.d.comb += [getattr(performance, name).eq(events[name]) for name in COUNTERS]
        m.d.comb += [
            performance.clear.eq(sequencer.clear),
            sender.counters.eq(Cat(getattr(performance, f"value{i}") for i in range(len(COUNTERS)))),
            self.activity.eq(Cat(self.matrix.mac_busy, self.vector.busy, sender.busy)),
        ]
