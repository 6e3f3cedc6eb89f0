# amaranth: UnusedElaboratable=no
"""A host port under test: its FIFO memory, a mesh of Python tiles, and a host, all on Amaranth's simulator."""

import random

from amaranth.hdl import Const, Elaboratable, Module, ResetInserter, Signal
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from hwgen.model_config import end_ids
from hwgen.rtl.axi_lite_registers import REGISTERS, STATUS_BITS
from hwgen.rtl.host_packets import KINDS
from hwgen.rtl.host_port import FIFO_WORDS, HostPort
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.packet_receiver import CLEAR_FLAG, IDLE_FLAG, LOGITS_FLAG, OUTPUT_FLAG

NETWORK = {"flit_bits": 32, "width": 2, "height": 2, "buffer_flits": 4, "address_bits": 8, "multicast": True}
MODEL = {"context": 16, "vocab": 150, "signature": 0xCAFE1234}


class Ported(Elaboratable):
    """The host port with its FIFO memory."""

    def __init__(self, port):
        self.port, self.reset = port, Signal()

    def elaborate(self, platform):
        m = Module()
        port = self.port
        m.submodules.port = ResetInserter(self.reset)(port)
        m.submodules.memory = memory = Memory(shape=32, depth=FIFO_WORDS, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(port.fifo_write_en), write.addr.eq(port.fifo_write_addr), write.data.eq(port.fifo_write_data),
            read.en.eq(port.fifo_read_en), read.addr.eq(port.fifo_read_addr), port.fifo_read_data.eq(read.data),
        ]
        return m


class HostBench:
    """Mesh tiles answer every start; `logit(token, position, row)` is what the head computes.

    Attributes to check: `starts` [(x, y, token, flags)] of streams that have a token, `beats` [(data, last)] and the
    streams that they belong to, `owners`.
    """

    def __init__(self, logit=lambda token, position, row: (token * 7 + position * 13 + row * 29) % 101 - 50,
                 flags=lambda tile, position: 0, head_rows=((0, 0, 70), (1, 1, 80)), seed=1, **changes):
        settings = NETWORK | MODEL | {"grant_order": head_rows} | changes
        self.port = HostPort(**settings)
        channels = ("virtual_channels", "routing", "streams")
        self.packet = PacketFormat(**{name: settings[name] for name in (*NETWORK, *channels) if name in settings})
        self.context, self.logit, self.flags = settings["context"], logit, flags
        self.random = random.Random(seed)
        self.first_row, first = {}, 0
        for x, y, rows in head_rows:
            self.first_row[x, y] = (first, rows)
            first += rows
        self.tiles = [(x, y) for y in range(settings["height"]) for x in range(settings["width"])]
        self.starts, self.beats, self.owners = [], [], []
        self.accept = lambda: True
        self.inputs = []
        self.resetting = False
        self._reset_mesh()

    def _reset_mesh(self):
        self.outgoing = []
        self.state = {tile: {"start": {}, "grants": 0, "left": []} for tile in self.tiles}

    def run(self, host):
        """Simulate until `host(bench, ctx)` returns."""
        self.chip = Ported(self.port)
        simulator = Simulator(self.chip)
        simulator.add_clock(1e-6)

        async def main(ctx):
            await host(self, ctx)

        simulator.add_testbench(main)
        for part in (self._send, self._receive, self._feed, self._drain):
            simulator.add_testbench(part, background=True)
        simulator.run()

    async def reset(self, ctx):
        """Resets chip and mesh together, wherever they are."""
        ctx.set(self.chip.reset, 1)
        self.starts, self.beats, self.owners, self.inputs = [], [], [], []
        self.resetting = True
        await ctx.tick().repeat(2)
        self._reset_mesh()
        self.resetting = False
        ctx.set(self.chip.reset, 0)

    async def write(self, ctx, name, value, mask=0xF, offset=0):
        port = self.port
        for signal, v in (("awaddr", REGISTERS[name] + offset), ("wdata", value), ("wstrb", mask), ("awvalid", 1),
                          ("wvalid", 1), ("bready", 1)):
            ctx.set(getattr(port, f"s_axi_{signal}"), v)
        await ctx.tick().until(port.s_axi_awready)
        ctx.set(port.s_axi_awvalid, 0)
        ctx.set(port.s_axi_wvalid, 0)
        await ctx.tick().until(port.s_axi_bvalid)

    async def read(self, ctx, name, offset=0):
        port = self.port
        ctx.set(port.s_axi_araddr, REGISTERS[name] + offset)
        ctx.set(port.s_axi_arvalid, 1)
        ctx.set(port.s_axi_rready, 1)
        await ctx.tick().until(port.s_axi_arready)
        ctx.set(port.s_axi_arvalid, 0)
        data, = await ctx.tick().sample(port.s_axi_rdata).until(port.s_axi_rvalid)
        return data

    async def status(self, ctx):
        value = await self.read(ctx, "STATUS")
        return {name for name, bit in STATUS_BITS.items() if value >> bit & 1}

    async def write_ends(self, ctx, ends):
        """Words for the first of the registers ENDS; the others keep theirs."""
        for number, end in enumerate(ends):
            await self.write(ctx, "ENDS", end, offset=4 * number)

    async def start_streams(self, ctx, prompts, max_tokens, eos=None, mode=0, start_pos=0):
        """A prompt for each stream, none for one that rests; their tokens go in step by step."""
        for step in range(max(map(len, prompts))):
            self.inputs += [prompt[step] for prompt in prompts if step < len(prompt)]
        for stream, prompt in enumerate(prompts):
            for name, value in (("STREAM", stream), ("START_POS", start_pos), ("PROMPT_LEN", len(prompt)),
                                ("MAX_TOKENS", max_tokens[stream])):
                await self.write(ctx, name, value)
        await self.write_ends(ctx, end_ids(eos))
        for name, value in (("MODE", mode), ("START", 1)):
            await self.write(ctx, name, value)

    async def start(self, ctx, prompt, max_tokens, eos=None, mode=0, start_pos=0, prompt_len=None):
        self.inputs.extend(prompt)
        length = len(prompt) if prompt_len is None else prompt_len
        await self.write_ends(ctx, end_ids(eos))
        for name, value in (("START_POS", start_pos), ("PROMPT_LEN", length), ("MAX_TOKENS", max_tokens),
                            ("MODE", mode), ("START", 1)):
            await self.write(ctx, name, value)

    async def finish(self, ctx, polls=3000):
        """Waits for done; the status flags then."""
        for _ in range(polls):
            if "done" in (status := await self.status(ctx)):
                return status
        raise TimeoutError(f"Run must end within {polls} polls of STATUS, not go on: {sorted(status)}")

    def expected(self, prompt, max_tokens, eos=None, start_pos=0):
        """Tokens of a run in tokens mode."""
        tokens, token, position = [], prompt[-1], start_pos + len(prompt) - 1
        while True:
            row = self.logits(token, position)
            token = row.index(max(row))
            tokens.append(token)
            position += 1
            if token in end_ids(eos) or len(tokens) == max_tokens or position == self.context:
                return tokens

    def logits(self, token, position):
        return [self.logit(token, position, row) for row in range(sum(n for _, n in self.first_row.values()))]

    async def _feed(self, ctx):
        port, offer = self.port, False
        while True:
            offer = bool(self.inputs) and (offer or self.random.random() < 0.7)
            ctx.set(port.s_axis_tvalid, offer)
            ctx.set(port.s_axis_tdata, self.inputs[0] if offer else 0)
            _, _, ready = await ctx.tick().sample(port.s_axis_tready)
            if offer and ready and not self.resetting:
                self.inputs.pop(0)
                offer = False

    async def _drain(self, ctx):
        port, held = self.port, None
        while True:
            ready = self.accept()
            ctx.set(port.m_axis_tready, ready)
            owner = port.m_axis_tid if self.packet.streams > 1 else Const(0)
            _, _, valid, data, last, stream = await ctx.tick().sample(
                port.m_axis_tvalid, port.m_axis_tdata, port.m_axis_tlast, owner)
            if self.resetting:
                held = None
                continue
            assert held is None or (valid, data, last, stream) == held, "output changed while it waited"
            held = (valid, data, last, stream) if valid and not ready else None
            if valid and ready:
                self.beats.append((data, last))
                self.owners.append(stream)

    async def _receive(self, ctx):
        """Takes flits from the port, gives credits back after a while, and lets the tiles act on packets."""
        link, channels = self.port.noc_out, self.packet.virtual_channels
        flits, owed = [[] for _ in range(channels)], [0] * channels
        while True:
            give = [count > 0 and self.random.random() < 0.6 for count in owed]
            owed = [count - given for count, given in zip(owed, give, strict=True)]
            ctx.set(link.credit, sum(given << i for i, given in enumerate(give)))
            _, _, valid, data, last, vc = await ctx.tick().sample(link.valid, link.data, link.last, self._channel(link))
            if self.resetting:
                flits, owed = [[] for _ in range(channels)], [0] * channels
            elif valid:
                owed[vc] += 1
                assert owed[vc] <= self.packet.buffer_flits, "sent without credit"
                flits[vc].append(data)
                if last:
                    self._arrived(*self.packet.words(flits[vc]), vc)
                    flits[vc] = []

    def _channel(self, link):
        return link.vc if self.packet.virtual_channels > 1 else Const(0)

    def _arrived(self, header, words, vc):
        assert not header["host"]
        targets = [(x, y) for x, y in self.tiles
                   if header["x0"] <= x <= header["x1"] and header["y0"] <= y <= header["y1"]]
        several = len(targets) > 1
        size = self.packet.header_flits + -(-len(words) // self.packet.words_per_flit)
        assert header["flits"] == (size - 1 if several else 0)
        assert vc in [channel for c in self.packet.classes if (c.multicast if several else c.unicast)
                      for channel in c.channels]
        for tile in targets:
            state = self.state[tile]
            if header["ctr"] == self.packet.counters.start:
                state["start"].update({header["addr"] + i: word for i, word in enumerate(words)})
                if len(state["start"]) == 2 * self.packet.streams:
                    for stream in range(self.packet.streams):
                        self._started(tile, stream, state["start"][2 * stream], state["start"][2 * stream + 1])
                    state["start"] = {}
            elif header["ctr"] == self.packet.counters.grant:
                assert len(words) == 1
                state["grants"] += 1
                self._answer_grant(tile)
            elif header["ctr"] == self.packet.counters.report:
                self._message(tile, KINDS["counters"], [tile[0] * 100 + tile[1] * 10 + i for i in range(8)])

    def _started(self, tile, stream, token, flags):
        if flags >> IDLE_FLAG & 1:
            return
        self.starts.append((*tile, token, flags))
        position, output, logits = flags & (1 << OUTPUT_FLAG) - 1, flags >> OUTPUT_FLAG & 1, flags >> LOGITS_FLAG & 1
        if self.packet.streams == 1:
            assert (flags >> CLEAR_FLAG & 1) == (len(self.starts) <= len(self.tiles))
        if tile in self.first_row and output:
            first, rows = self.first_row[tile]
            values = [self.logit(token, position, first + i) for i in range(rows)]
            if logits:
                self.state[tile]["left"].append((stream, values))
                self._answer_grant(tile)
                return
            best = max(values)
            self._message(tile, KINDS["result"], [best, first + values.index(best)], self.flags(tile, position), stream)
        else:
            self._message(tile, KINDS["done"], [0], self.flags(tile, position), stream)

    def _answer_grant(self, tile):
        state = self.state[tile]
        if not (state["grants"] and state["left"]):
            return
        state["grants"] -= 1
        stream, values = state["left"].pop(0)
        self._message(tile, KINDS["logits"] if values[64:] else KINDS["last_logits"], values[:64], stream=stream)
        if values[64:]:
            state["left"].insert(0, (stream, values[64:]))
        else:
            self._message(tile, KINDS["done"], [0], stream=stream)

    def _message(self, tile, kind, words, ctr=0, stream=0):
        """Queues a packet to the host, in any place among those that wait."""
        flits = self.packet.packet(words, host=1, addr=kind + 8 * stream, ctr=ctr)
        self.outgoing.insert(self.random.randint(0, len(self.outgoing)), flits)

    async def _send(self, ctx):
        link, channels = self.port.noc_in, self.packet.virtual_channels
        flits, credits = [[] for _ in range(channels)], [self.packet.buffer_flits] * channels
        while True:
            vc = self.random.randrange(channels)
            if not flits[vc] and self.outgoing and self.random.random() < 0.5:
                flits[vc] = list(self.outgoing.pop(0))
            go = bool(flits[vc]) and credits[vc] > 0
            ctx.set(link.valid, go)
            if go:
                ctx.set(link.data, flits[vc][0])
                ctx.set(link.last, len(flits[vc]) == 1)
                if channels > 1:
                    ctx.set(link.vc, vc)
                flits[vc].pop(0)
                credits[vc] -= 1
            _, _, credit = await ctx.tick().sample(link.credit)
            credits = [count + (credit >> i & 1) for i, count in enumerate(credits)]
            if self.resetting:
                flits, credits = [[] for _ in range(channels)], [self.packet.buffer_flits] * channels
            assert max(credits) <= self.packet.buffer_flits
