# amaranth: UnusedElaboratable=no
"""A tile core in Amaranth's simulator: memories with one cycle of latency, and a network of one node."""

import random

from amaranth.sim import Simulator

from hwgen.isa import encode
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.quantiser import mx_word_bytes
from hwgen.rtl.tile import Tile

MEMORIES = {"vmem": 32, "xmem": 8, "kvmem": 8}


class TileBench:
    """Runs `program` on a tile with weight words `rom` (bytes); `messages` are what the host got: (header, words)."""

    def __init__(self, program, rom, *, fetch=2, stations=2, vlen=8, lanes=2, flit_bits=64, buffer_flits=4, seed=0):
        self.network = {
            "width": 1, "height": 1, "flit_bits": flit_bits, "buffer_flits": buffer_flits, "address_bits": 9,
            "multicast": True,
        }
        self.packet = PacketFormat(**self.network)
        self.tile = Tile(
            fetch=fetch, stations=stations, vlen=vlen, lanes=lanes, rom_address_bits=10, imem_address_bits=8,
            vmem_address_bits=11 - lanes.bit_length(), x_address_bits=6, kv_address_bits=6, **self.network,
        )
        self.lanes, self.word = lanes, 8 * mx_word_bytes(vlen)
        self.chance = random.Random(seed)
        words = [encode(i) for i in program]
        words += [0] * (-len(words) % fetch)
        groups = [words[i:i + fetch] for i in range(0, len(words), fetch)]
        self.program = [sum(word << 128 * slot for slot, word in enumerate(group)) for group in groups]
        self.rom = [int.from_bytes(bytes(word), "little") for word in rom]
        rows = (1 << 11) // 2 // lanes
        self.memory = {
            "vmem": [self.chance.getrandbits(32 * lanes) for _ in range(rows)],
            "xmem": [self.chance.getrandbits(self.word) for _ in range(64)],
            "kvmem": [self.chance.getrandbits(self.word) for _ in range(64)],
        }
        self.messages, self.inbound, self.outbound = [], [], []
        self.cycle, self._rest, self._simulator = 0, 0, None

    def vmem(self, address, n):
        """n words of vector memory, signed."""
        word = (self.memory["vmem"][(address + i) // self.lanes] >> 32 * ((address + i) % self.lanes) & 0xFFFFFFFF
                for i in range(n))
        return [w - (1 << 32) if w >> 31 else w for w in word]

    def send(self, words, ctr, addr=0):
        """Queue a packet for the tile."""
        self.inbound += [(flit, False) for flit in self.packet.packet(words, ctr=ctr, addr=addr)]
        self.inbound[-1] = (self.inbound[-1][0], True)

    def start(self, token, position=0, output=1, logits=0, clear=0):
        self.send([token, position | output << 24 | logits << 25 | clear << 26], self.packet.counters.start)

    def report(self):
        self.send([0], self.packet.counters.report)

    def run(self, messages, cycles=4000):
        """Go on until the host has got so many messages and the tile has come to rest."""
        if self._simulator is None:
            self._simulator = Simulator(self.tile)
            self._simulator.add_clock(1e-6)
            self._simulator.add_testbench(self._live, background=True)
        deadline, self._rest = self.cycle + cycles, 0
        while len(self.messages) < messages or self._rest < 20:
            self._simulator.advance()
            if self.cycle > deadline:
                raise AssertionError(f"{len(self.messages)} of {messages} messages after {cycles} cycles")

    async def _live(self, ctx):
        """Memories and network, cycle by cycle."""
        roms = {self.tile.program: self.program, self.tile.rom: self.rom}
        credits, owed = self.packet.buffer_flits, 0
        while True:
            credits -= self._drive(ctx, credits, owed)
            await ctx.delay(2e-7)
            credits += ctx.get(self.tile.link_in.credit)
            owed = self._collect(ctx)
            reads = [(port, contents, ctx.get(port.addr)) for port, contents in roms.items() if ctx.get(port.en)]
            requests = {name: self._requests(ctx, name) for name in MEMORIES}
            self._rest = 0 if self.inbound or ctx.get(self.tile.activity) else self._rest + 1
            await ctx.tick()
            self.cycle += 1
            for port, contents, address in reads:
                ctx.set(port.data, contents[address] if address < len(contents) else 0)
            for name, request in requests.items():
                self._access(ctx, name, *request)

    def _drive(self, ctx, credits, owed):
        """A flit to the tile, in most cycles, and the credit it is owed. Returns whether a flit went."""
        link_in, link_out = self.tile.link_in, self.tile.link_out
        out = bool(self.inbound) and credits > 0 and self.chance.random() < 0.8
        ctx.set(link_in.valid, out)
        if out:
            flit, last = self.inbound.pop(0)
            ctx.set(link_in.data, flit)
            ctx.set(link_in.last, last)
        ctx.set(link_out.credit, owed)
        return out

    def _collect(self, ctx):
        """Take a flit from the tile; a whole packet goes to the host or back to the tile. Returns the credit owed."""
        link = self.tile.link_out
        if not ctx.get(link.valid):
            return 0
        self.outbound.append(ctx.get(link.data))
        if ctx.get(link.last):
            header, words = self.packet.words(self.outbound)
            if header["host"]:
                self.messages.append((header, words))
            else:
                self.inbound += [(flit, i == len(self.outbound) - 1) for i, flit in enumerate(self.outbound)]
            self.outbound = []
        return 1

    def _requests(self, ctx, name):
        port = getattr(self.tile, name)
        return tuple(ctx.get(getattr(port, field)) for field in (
            "read_en", "read_addr", "write_en", "write_addr", "write_data", "write_mask"))

    def _access(self, ctx, name, read, read_address, write, write_address, data, mask):
        contents, group = self.memory[name], MEMORIES[name]
        if read:
            ctx.set(getattr(self.tile, name).read_data, contents[read_address] if read_address < len(contents) else 0)
        if write:
            bits = sum(((1 << group) - 1) << group * i for i in range(mask.bit_length()) if mask >> i & 1)
            contents[write_address] = (contents[write_address] & ~bits) | (data & bits)
