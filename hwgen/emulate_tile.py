"""A tile of the emulator: its memories, its program, and what every instruction does to them."""

import random
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from hwgen.arithmetic import mx, vector
from hwgen.arithmetic.fixed import wrap32
from hwgen.arithmetic.mxfp4 import decode
from hwgen.arithmetic.tables import reciprocal
from hwgen.compiler.compile import CompiledChip
from hwgen.compiler.words import scale_bytes, word_bytes
from hwgen.isa import OPERATIONS, SCALAR_REGISTERS, Dest, Index, Instruction, Unit, When, counter_numbers

POISON = 0x5A


@dataclass
class Message:
    """Words for `address` of a tile, or of the host (`tile` None)."""

    tile: int | None
    address: int
    counter: int
    words: np.ndarray
    overflow: bool


class MxMemory:
    """Memory of MX words: elements int8 [words, vlen], scale codes uint8 [words, scale bytes]."""

    def __init__(self, words: int, vlen: int):
        self.vlen = vlen
        self.elements = np.full((words, vlen), POISON, np.int8)
        self.codes = np.full((words, scale_bytes(vlen)), POISON, np.uint8)

    @classmethod
    def of(cls, words: np.ndarray, vlen: int) -> "MxMemory":
        """The MX words of a ROM as they are."""
        memory = cls(0, vlen)
        memory.elements, memory.codes = words[:, :vlen].view(np.int8), words[:, vlen : word_bytes(vlen)]
        return memory

    @classmethod
    def of_codes(cls, words: np.ndarray, vlen: int) -> "MxMemory":
        """The words of 4-bit codes in a ROM, two in each of its own."""
        memory, codes = cls(0, vlen), words[:, :vlen]
        memory.elements = decode(np.stack([codes & 15, codes >> 4], -1)).reshape(-1, vlen)
        memory.codes = words[:, vlen:].reshape(len(memory.elements), -1)
        return memory

    def rows(self, addresses) -> mx.Mx:
        """MX rows [n, blocks, 32] made of the words at `addresses` [n, words]."""
        n, words = addresses.shape
        elements, codes = self.elements[addresses], self.codes[addresses]
        if self.vlen >= mx.BLOCK:
            return mx.Mx(elements.reshape(n, -1, mx.BLOCK), codes.reshape(n, -1), words * self.vlen)
        per = mx.BLOCK // self.vlen
        elements = np.pad(elements, ((0, 0), (0, -words % per), (0, 0))).reshape(n, -1, mx.BLOCK)
        return mx.Mx(elements, codes[:, ::per, 0], words * self.vlen)

    def store(self, address: int, vector_: mx.Mx):
        """Write a quantised vector as whole words from `address`."""
        length, vlen = vector_.length, self.vlen
        words = -(-length // vlen)
        flat = np.zeros(words * max(vlen, mx.BLOCK), np.int8)
        flat[: vector_.elements.size] = vector_.elements.reshape(-1)
        self.elements[address : address + words] = flat[: words * vlen].reshape(words, vlen)
        if vlen >= mx.BLOCK:
            codes = np.zeros(words * (vlen // mx.BLOCK), np.uint8)
            codes[: vector_.blocks] = vector_.scales
            self.codes[address : address + words] = codes.reshape(words, -1)
        else:
            self.codes[address : address + words, 0] = np.repeat(vector_.scales, mx.BLOCK // vlen)[:words]


@dataclass
class Start:
    """The host's start message."""

    token: int
    position: int
    output: bool
    logits: bool


@dataclass
class TileEmulator:
    """One tile: memories, units, tokens and arrival counters."""

    chip: CompiledChip
    index: int
    random: random.Random
    overflow: bool = False
    mac_busy: int = 0
    start: Start | None = None
    """Of the stream whose instruction is being run."""

    def __post_init__(self):
        self.counters = [0] * (counter_numbers(self.chip.design.streams).grant + 1)
        tile = self.chip.tiles[self.index]
        depths = self.chip.depths[self.chip.design.node_class[self.index]]
        cls = self.chip.design.tile_class(self.index)
        self.vlen = cls.vlen
        self.program = tile.program
        self.vmem = np.full(depths.vmem * cls.lanes, 0x5A5A5A5A, np.int64)
        self.xmem, self.kvmem = MxMemory(depths.xmem, cls.vlen), MxMemory(depths.kvmem, cls.vlen)
        words = self.chip.rom_words(self.index)
        self.roms = [MxMemory.of(words, cls.vlen)]
        if self.chip.graph.mxfp4:
            self.roms.append(MxMemory.of_codes(words, cls.vlen))
        self.queues = {}

    def begin(self, starts: list[Start | None]):
        """Issue the whole program into the queues, dropping what the streams' tokens do not need."""
        self.registers = [(0, 0)] * SCALAR_REGISTERS
        self.tokens = Counter()
        self.queues = {u: deque() for u in range(3)}
        stream, owner = 0, False
        for i in self.program:
            if i.op == "STREAM":
                stream = i.fields["stream"]
            start = starts[stream]
            if start is None:
                continue
            if i.op == "RANGE":
                owner = i.fields["lo"] <= start.token < i.fields["hi"]
            holds = {
                When.ALWAYS: True, When.OUTPUT: start.output, When.TOKENS: start.output and not start.logits,
                When.LOGITS: start.output and start.logits, When.OWNER: owner,
                When.NOT_TOKENS: not start.output or start.logits,
            }[i.when]
            if holds and i.unit != Unit.CONTROL:
                self.queues[i.unit].append((i, stream, start))

    @property
    def done(self) -> bool:
        return not any(self.queues.values())

    def ready(self):
        """Units whose next instruction may run."""
        for unit, queue in self.queues.items():
            if not queue:
                continue
            i, stream, _ = queue[0]
            if all(self.tokens[stream, u, unit] > 0 for u in range(3) if i.pop >> u & 1) and (
                i.op != "WAIT" or self.counters[i.fields["ctr"]] >= i.fields["count"]
            ):
                yield unit

    def step(self, unit) -> list[Message]:
        """Run the next instruction of a ready unit."""
        i, stream, self.start = self.queues[unit].popleft()
        for u in range(3):
            if i.pop >> u & 1:
                self.tokens[stream, u, unit] -= 1
        sent = getattr(self, f"_{i.op.lower()}")(i, {**_defaults(i), **i.fields}) or []
        for u in range(3):
            if i.push >> u & 1:
                self.tokens[stream, unit, u] += 1
        return sent

    def _wait(self, _, f):
        self.counters[f["ctr"]] -= f["count"]

    def _matmul(self, _, f):
        rows = self.start.position + 1 if f["dyn_rows"] else f["rows"]
        words = self.start.position // self.vlen + 1 if f["dyn_k"] else f["kwords"]
        k = np.arange(words)
        x = self.xmem.rows((f["x"] + k)[None])
        memory = self.kvmem if f["kv"] else self.roms[f["narrow"]]
        w = memory.rows(f["base"] + np.arange(rows)[:, None] * f["stride"] + k)
        if f["bare"]:
            w = mx.Mx(w.elements, np.full_like(w.scales, mx.SCALE_BIAS), w.length)
        values, overflow = mx.matmul(x, w)
        self.overflow |= bool(overflow.any())
        self.mac_busy += rows * words
        self.vmem[f["dst"] : f["dst"] + rows] = values[0]

    def _gather(self, _, f):
        index = {Index.NONE: 0, Index.TOKEN: self.start.token, Index.POSITION: self.start.position}[f["index"]]
        base = (f["base"] + index * f["stride"]) % (1 << 24)
        rom, limbs = self.roms[f["narrow"]], 1 + f["two_limb"]
        element = f["x"] + np.arange(f["rows"])
        total, flags = np.zeros(len(element), np.int64), np.zeros(len(element), bool)
        for limb in range(limbs):
            word, lane = base + element // self.vlen * limbs + limb, element % self.vlen
            code = rom.codes[word, lane // mx.BLOCK].astype(np.int64)
            value, flag = mx.shift_block(rom.elements[word, lane].astype(np.int64) * 64, code - mx.SCALE_BIAS)
            total, flags = total + value, flags | flag
        values, wide = mx.accumulate(total[:, None], flags[:, None])
        self.overflow |= bool(wide.any())
        self.mac_busy += limbs * len(element)
        self.vmem[f["dst"] : f["dst"] + len(element)] = values

    def _operands(self, f):
        n = self.start.position + 1 if f["dyn"] else f["n"]
        return self.vmem[f["a"] : f["a"] + n].copy(), self.vmem[f["b"] : f["b"] + n].copy(), n

    def _store(self, f, values):
        dst, kind = f["dst"], f["dkind"]
        if kind == Dest.VMEM:
            self.vmem[dst : dst + len(values)] = values
            return
        quantised = mx.quantize_int(values, f["frac"])
        if kind == Dest.X:
            self.xmem.store(dst, quantised)
        elif kind == Dest.KROW:
            self.kvmem.store(dst + self.start.position * f["stride"], quantised)
        else:
            word, byte = divmod(self.start.position, self.vlen)
            rows = dst + np.arange(len(values)) * f["stride"] + word
            self.kvmem.elements[rows, byte] = quantised.elements[0, : len(values)]
            self.vmem[f["b"] + self.start.position] = int(quantised.scales[0])

    def _copy(self, _, f):
        self._store(f, self._operands(f)[0])

    def _add(self, _, f):
        a, b, _ = self._operands(f)
        total, overflow = vector.add(a, b)
        self.overflow |= overflow
        self._store(f, total)

    def _mul(self, _, f):
        a, b, _ = self._operands(f)
        self._store(f, vector.mul(a, b, f["shift"]))

    def _scale(self, _, f):
        self._store(f, vector.scale(self._operands(f)[0], self.registers[f["sin"]], f["shift"]))

    def _rope(self, _, f):
        a, b, _ = self._operands(f)
        self._store(f, vector.rope(a, b, f["shift"]))

    def _silu(self, _, f):
        self._store(f, vector.silu(self._operands(f)[0], f["shift"]))

    def _max(self, _, f):
        self.registers[f["sout"]] = (int(self._operands(f)[0].max()), 0)

    def _maxabs(self, _, f):
        self.registers[f["sout"]] = (0, int(vector.norm_shift(self._operands(f)[0])))

    def _sumsq(self, _, f):
        epsilon = (f["b"] & 0xFFFF) + (f["stride"] << 16)
        a = self.vmem[f["a"] : f["a"] + f["n"]]
        mantissa, exponent = vector.norm_register(a, self.registers[f["sin"]][1], epsilon)
        self.registers[f["sout"]] = (int(mantissa), int(exponent))

    def _exp(self, _, f):
        a, codes, _ = self._operands(f)
        p = vector.softmax_numerators(a, self.registers[f["sin"]][0])
        self.xmem.store(f["dst"], mx.quantize_weighted(p, codes))
        mantissa, exponent = reciprocal(p.sum())
        self.registers[f["sout"]] = (int(mantissa), int(exponent))

    def _argmax(self, _, f):
        value, index = vector.argmax(self._operands(f)[0])
        self.vmem[f["dst"] : f["dst"] + 2] = value, index + (f["b"] & 0xFFFF) + (f["stride"] << 16)

    def _send(self, _, f):
        words = self.vmem[f["src"] : f["src"] + f["n"]].copy()
        if f["host"]:
            return [Message(None, f["dst"], 0, words, self.overflow)]
        width = self.chip.design.width
        return [Message(y * width + x, f["dst"], f["ctr"], words, False)
                for y in range(f["y0"], f["y1"] + 1) for x in range(f["x0"], f["x1"] + 1)]

    def receive(self, message: Message):
        self.vmem[message.address : message.address + len(message.words)] = wrap32(message.words)
        self.counters[message.counter] += len(message.words)


def _defaults(i: Instruction):
    return {name: 0 for name, _ in OPERATIONS[i.unit][i.op][1]}
