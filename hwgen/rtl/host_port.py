# amaranth: UnusedElaboratable=no
"""The chip's only door: AXI4-Lite registers, AXI4-Stream tokens in and out, messages to and from the mesh."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.isa import ENDS
from hwgen.rtl.axi_lite_registers import AXI_LITE_PORTS, NO_EOS, REGISTERS, STATUS_BITS, AxiLiteSlave
from hwgen.rtl.counter_readout import CounterReadout
from hwgen.rtl.host_packets import KINDS, HostReceiver, HostSender
from hwgen.rtl.link import Link
from hwgen.rtl.logit_grants import CHUNK, LogitGrants
from hwgen.rtl.output_fifo import OutputFifo
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.run_control import RunControl
from hwgen.rtl.starts import of_stream, stream_bits

FIFO_WORDS = 2 * CHUNK
SETTINGS = {"MODE": 0}
"""Registers that only hold what the host writes, and their values after reset."""
OF_STREAM = ("START_POS", "PROMPT_LEN", "MAX_TOKENS")
"""Those that each stream has: register STREAM tells whose are read and written."""

_STREAM = {"tdata": 32, "tvalid": 1, "tlast": 1}
_MEMORY = ("write_en", "write_addr", "write_data", "read_en", "read_addr", "read_data")


class HostPort(wiring.Component):
    """Host port (ARCHITECTURE sections 5 and 6): starts every tile once a step, collects its answers for each stream.

    It always takes what arrives, one word a cycle, so it never blocks the network. Every message to it is one packet,
    and it counts on no order among packets. In tokens mode with one stream the next token is started 4 cycles after the
    last tile's answer.

    Parameters
    ----------
    network
        The parameters of `PacketFormat`.
    context, vocab, signature
        What the registers CONTEXT, VOCAB and SIGNATURE read.
    grant_order
        (x, y, rows) of the tiles that hold rows of the head, in row order; rows add up to `vocab`.
    grant_address
        Word of every tile's vector memory that a grant message overwrites.

    Members
    -------
    s_axi_*: AXI4-Lite slave; s_axis_*: token ids in; m_axis_*: tokens or logits out, with the stream as TID if several
    noc_out: Out(Link), noc_in: In(Link)
    fifo_write_en, fifo_write_addr, fifo_write_data, fifo_read_en, fifo_read_addr, fifo_read_data
        The output FIFO's memory, 128 words of 32 bit: read data one cycle after `fifo_read_en`, held while it is low.
    """

    def __init__(
        self, *, context: int, vocab: int, signature: int, grant_order: tuple[tuple[int, int, int], ...],
        grant_address: int = 0, **network,
    ):
        rows = sum(count for _, _, count in grant_order)
        if rows != vocab:
            raise ValueError(f"Rows of the grant order must add up to the vocabulary of {vocab}, not {rows!r}")
        if not 0 <= signature < 1 << 32:
            raise ValueError(f"Signature must be an unsigned 32-bit number, not {signature!r}")
        packet = PacketFormat(**network)
        if not 0 <= grant_address < 1 << packet.address_bits:
            raise ValueError(f"Grant address must have at most {packet.address_bits} bits, not {grant_address!r}")
        width, height = packet.width, packet.height
        self.width, self.height, self._graph_crc, self.grant_address = width, height, signature, grant_address
        self._slave = AxiLiteSlave()
        self._sender = HostSender(packet=packet)
        self._receiver = HostReceiver(packet=packet)
        self.streams, self._numbers = packet.streams, packet.counters
        self._control = RunControl(context=context, vocab=vocab, streams=packet.streams)
        self._grants = LogitGrants(width=width, height=height, grant_order=grant_order)
        self._counters = CounterReadout(width=width, height=height)
        self._fifo = OutputFifo(depth=FIFO_WORDS)
        members = {f"s_axi_{name}": port for name, port in AXI_LITE_PORTS.items()}
        members |= {f"s_axis_{name}": In(bits) for name, bits in _STREAM.items()} | {"s_axis_tready": Out(1)}
        members |= {"m_axis_tid": Out(stream_bits(packet.streams))} if packet.streams > 1 else {}
        members |= {f"m_axis_{name}": Out(bits) for name, bits in _STREAM.items()} | {"m_axis_tready": In(1)}
        members |= {f"fifo_{name}": self._fifo.signature.members[name] for name in _MEMORY}
        link = Link(packet.flit_bits, packet.virtual_channels)
        super().__init__(members | {"noc_out": Out(link), "noc_in": In(link)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.slave = self._slave
        m.submodules.sender = self._sender
        m.submodules.receiver = self._receiver
        m.submodules.control = self._control
        m.submodules.grants = self._grants
        m.submodules.counters = self._counters
        m.submodules.fifo = self._fifo
        wiring.connect(m, self._sender.link, wiring.flipped(self.noc_out))
        wiring.connect(m, self._receiver.link, wiring.flipped(self.noc_in))
        for name, port in AXI_LITE_PORTS.items():
            _join(m, port.flow, getattr(self, f"s_axi_{name}"), getattr(self._slave, name))
        for name in _MEMORY:
            flow = self._fifo.signature.members[name].flow
            _join(m, flow, getattr(self, f"fifo_{name}"), getattr(self._fifo, name))
        self._to_grant = Signal(self.streams, name="to_grant")  # streams whose logits are still to be granted
        self._granted = Signal(stream_bits(self.streams), name="granted_stream")
        overflow, fault = self._flags(m)
        self._answers(m)
        self._output(m)
        self._requests(m)
        self._registers(m, overflow, fault)
        return m

    @property
    def _started(self):
        """A run begins in this cycle."""
        return self._control.start & ~self._control.busy

    def _flags(self, m):
        """The run's sticky overflow and fault."""
        overflow, fault = Signal(), Signal()
        arriving = self._receiver
        m.d.sync += [
            overflow.eq((overflow | arriving.overflow) & ~self._started),
            fault.eq((fault | arriving.fault | self._grants.unasked) & ~self._started),
        ]
        return overflow, fault

    def _answers(self, m):
        """Counts the tiles' answers and keeps each stream's best result: the highest value, of equals the lowest id.

        A tile's answer may come before its last logits, so both must be there.
        """
        arriving, control, streams = self._receiver, self._control, self.streams
        tiles = self.width * self.height
        due, have = Signal(range(tiles * streams + 1)), Signal(streams)
        value, best = Signal(signed(32)), Signal(32 * streams, reset_less=True)
        best_id, own, own_id = Signal(32 * streams, reset_less=True), Signal(signed(32)), Signal(32)
        is_result, is_answer, better, begins = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            is_result.eq(arriving.valid & arriving.last & (arriving.kind == KINDS["result"])),
            is_answer.eq(is_result | (arriving.valid & arriving.last & (arriving.kind == KINDS["done"]))),
            value.eq(arriving.before),
            own.eq(of_stream(best, arriving.stream, streams)), own_id.eq(of_stream(best_id, arriving.stream, streams)),
            better.eq(~have.bit_select(arriving.stream, 1) | (value > own)
                      | ((value == own) & (arriving.word < own_id))),
            control.answered.eq((due == 0) & ~self._grants.busy & ~self._to_grant.any()),
            control.best.eq(best_id),
            begins.eq(control.begin & control.begin_ready & ~control.idle),
        ]
        m.d.sync += due.eq(due - is_answer + Mux(begins, tiles, 0))
        for s in range(streams):
            with m.If(is_result & better & (arriving.stream == s)):
                m.d.sync += [
                    have[s].eq(1), best.word_select(s, 32).eq(value), best_id.word_select(s, 32).eq(arriving.word)]
            with m.If(begins & (control.number == s)):
                m.d.sync += have[s].eq(0)

    def _output(self, m):
        """Tokens and logits into the FIFO, the FIFO onto the stream; TLAST with a stream's last word.

        What is in the FIFO belongs to one stream.
        """
        arriving, control, grants, fifo = self._receiver, self._control, self._grants, self._fifo
        logit, final = Signal(), Signal()
        m.d.comb += [
            logit.eq(arriving.valid & ((arriving.kind == KINDS["logits"]) | (arriving.kind == KINDS["last_logits"]))),
            grants.word.eq(logit),
            grants.room.eq(fifo.level <= FIFO_WORDS - CHUNK),
            fifo.put.eq(control.put | logit),
            fifo.word.eq(Mux(logit, arriving.word, of_stream(control.best, control.number, self.streams))),
            control.drained.eq(fifo.empty),
            self.m_axis_tvalid.eq(fifo.output.valid),
            self.m_axis_tdata.eq(fifo.output.payload),
            self.m_axis_tlast.eq(final & (fifo.level == 0)),
            fifo.output.ready.eq(self.m_axis_tready),
            control.prompt.valid.eq(self.s_axis_tvalid),
            control.prompt.payload.eq(self.s_axis_tdata),
            self.s_axis_tready.eq(control.prompt.ready),
        ]
        owner = Signal(stream_bits(self.streams))
        with m.If(control.put):
            m.d.sync += [final.eq(control.put_last), owner.eq(control.number)]
        with m.Elif(grants.restart):
            m.d.sync += [final.eq(0), owner.eq(self._granted)]
        with m.Elif(logit & grants.last_word & control.is_last.bit_select(owner, 1)):
            m.d.sync += final.eq(1)
        if self.streams > 1:
            m.d.comb += self.m_axis_tid.eq(owner)

    def _requests(self, m):
        """Start messages, grants and counter requests, in this order of priority, to the sender."""
        sender, control, grants, counters = self._sender, self._control, self._grants, self._counters
        fifo = self._fifo
        m.d.comb += [
            sender.valid.eq(control.begin | grants.grant | counters.send),
            control.begin_ready.eq(sender.ready),
            grants.grant_ready.eq(sender.ready & ~control.begin),
            counters.send_ready.eq(sender.ready & ~control.begin & ~grants.grant),
            grants.restart.eq(self._to_grant.any() & ~grants.busy & (fifo.empty if self.streams > 1 else 1)),
        ]
        asked, granted = (Signal(self.streams, name=name) for name in ("asked", "granted"))
        for s in reversed(range(self.streams)):
            with m.If(self._to_grant[s]):
                m.d.comb += self._granted.eq(s)
            m.d.comb += [
                asked[s].eq(control.begin & control.begin_ready & control.wants_logits & (control.number == s)),
                granted[s].eq(grants.restart & (self._granted == s)),
            ]
        m.d.sync += self._to_grant.eq((self._to_grant | asked) & ~granted)
        with m.If(control.begin):
            m.d.comb += [
                sender.to_all.eq(1), sender.ctr.eq(self._numbers.start), sender.two.eq(1),
                sender.addr.eq(control.number << 1), sender.words.eq(Cat(control.token, control.flags)),
            ]
        with m.Elif(grants.grant):
            m.d.comb += [
                sender.x.eq(grants.x), sender.y.eq(grants.y), sender.ctr.eq(self._numbers.grant),
                sender.addr.eq(self.grant_address),
            ]
        with m.Else():
            m.d.comb += [sender.x.eq(counters.x), sender.y.eq(counters.y), sender.ctr.eq(self._numbers.report)]
        arriving = self._receiver
        m.d.comb += [
            counters.arrives.eq(arriving.valid & (arriving.kind == KINDS["counters"])),
            counters.word.eq(arriving.word),
            counters.index.eq(arriving.index),
            counters.last.eq(arriving.last),
        ]

    def _registers(self, m, overflow, fault):
        slave, control, counters = self._slave, self._control, self._counters
        settings = {name: Signal(32, name=name.lower(), init=value) for name, value in SETTINGS.items()}
        cycles, err_busy, err_tile, start = Signal(32), Signal(), Signal(), Signal()

        def written(name, number=0):
            return slave.write & (slave.write_address == (REGISTERS[name] >> 2) + number)

        own = {name: [Signal(32, name=f"{name.lower()}_{s}") for s in range(self.streams)] for name in OF_STREAM}
        ends = [Signal(32, name=f"end_{i}", init=NO_EOS) for i in range(ENDS)]
        chosen = Signal(stream_bits(self.streams))
        with m.If(written("STREAM") & slave.write_mask[0]):
            m.d.sync += chosen.eq(slave.write_data)
        targets = [(setting, written(name)) for name, setting in settings.items()]
        targets += [
            (setting, written(name) & (chosen == s)) for name in OF_STREAM for s, setting in enumerate(own[name])]
        targets += [(end, written("ENDS", i) | (written("EOS_ID") if i == 0 else 0)) for i, end in enumerate(ends)]
        for setting, selected in targets:
            with m.If(selected):
                for lane in range(4):
                    with m.If(slave.write_mask[lane]):
                        m.d.sync += setting.word_select(lane, 8).eq(slave.write_data.word_select(lane, 8))
        m.d.comb += [
            start.eq(written("START") & slave.write_mask[0] & slave.write_data[0]),
            control.start.eq(start),
            *(getattr(control, name.lower()).eq(Cat(own[name])) for name in OF_STREAM),
            control.ends.eq(Cat(ends)),
            control.logits.eq(settings["MODE"][0]),
            counters.request.eq(written("TILE")),
            counters.tile.eq(slave.write_data),
            counters.select.eq(slave.read_address),
        ]
        m.d.sync += [
            err_busy.eq((err_busy | (start & control.busy)) & ~self._started),
            err_tile.eq((err_tile & ~self._started & ~counters.request) | counters.bad),
        ]
        with m.If(self._started):
            m.d.sync += cycles.eq(0)
        with m.Elif(control.busy):
            m.d.sync += cycles.eq(cycles + 1)
        bits = {
            "busy": control.busy, "done": control.done, "err_busy": err_busy, "overflow": overflow, "fault": fault,
            "counters_valid": counters.valid, "err_range": control.err_range | err_tile,
        }
        status = Cat(bits[name] for name in sorted(STATUS_BITS, key=STATUS_BITS.get))
        values = settings | {name: of_stream(Cat(own[name]), chosen, self.streams) for name in OF_STREAM} | {
            "EOS_ID": ends[0], "STREAM": self.streams << 16 | chosen, "STATUS": status, "CYCLES": cycles,
            "CONTEXT": control.context, "VOCAB": control.vocab,
            "MESH": self.height << 16 | self.width, "SIGNATURE": self._graph_crc,
        }
        with m.Switch(slave.read_address):
            for name, value in values.items():
                with m.Case(REGISTERS[name] >> 2):
                    m.d.comb += slave.read_data.eq(value)
            for i, end in enumerate(ends):
                with m.Case((REGISTERS["ENDS"] >> 2) + i):
                    m.d.comb += slave.read_data.eq(end)
            with m.Case("010---"):
                m.d.comb += slave.read_data.eq(counters.value)


def _join(m, flow, outer, inner):
    m.d.comb += inner.eq(outer) if flow == In else outer.eq(inner)
