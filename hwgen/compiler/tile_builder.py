"""What the phases of a tile's program are written with: its instructions, staging buffers and ROM slices."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hwgen.compiler.dependencies import Step
from hwgen.compiler.memory import Region
from hwgen.compiler.place import Placement, Span
from hwgen.compiler.tile_memory import BLOCK, TileMemory, up
from hwgen.compiler.turns import Part, Segment
from hwgen.compiler.words import vector_words
from hwgen.design import Design
from hwgen.integer_graph import IntegerGraph
from hwgen.isa import (
    KIND_BITS,
    SCALAR_REGISTERS,
    STREAM_COUNTERS,
    Dest,
    Index,
    Instruction,
    Unit,
    When,
    counter_numbers,
)
from hwgen.noc.gather import multicast_pays

X, RESIDUAL, ROPE, GAIN, QKV, ATTENTION, H = range(STREAM_COUNTERS)
"""Arrival counters of a stream by what they count."""


class RomSlice(NamedTuple):
    """What a ROM region holds: rows `start..stop-1` of matrix `source` of layer `layer` (-1: not in a layer).

    `narrow`: as words of 4-bit codes, two in each of the region's words.
    """

    region: Region
    source: str
    layer: int
    start: int
    stop: int
    narrow: bool

    @property
    def base(self) -> int:
        """Address of the first row, in words of the matrix."""
        return self.region.base * 2 if self.narrow else self.region.base


@dataclass
class TileBuilder:
    """A stream's parts of a program and the ROM slices of tile `tile`, and what emits them; subclasses know the phases.

    `tiles` are the memories of all tiles; `slices` may hold those of another stream of the tile, which has the same.
    """

    graph: IntegerGraph
    design: Design
    placement: Placement
    tiles: list[TileMemory]
    index: int
    stream: int = 0
    slices: list[RomSlice] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self):
        self.config = self.graph.config
        self.tile = self.tiles[self.index]
        self.peers = [tile.streams[self.stream] for tile in self.tiles]
        self.memory = self.peers[self.index]
        self.vlen = self.memory.vlen
        # what is read and written in order by the vector unit alone, so that streams may share it
        self._registers = Region("registers", "registers", 0, SCALAR_REGISTERS)
        self.column, self.line = self.index % self.design.width, self.index // self.design.width
        self.stage = self.placement.stages[self.placement.stage(self.index)]
        self.hidden_rows = self.placement.hidden[self.index]
        self.ffn_rows = self.placement.ffn[self.index]
        self.head_rows = self.placement.vocabulary[self.index]
        self.grant = counter_numbers(self.design.streams).grant
        self._buffers, self._operands = {}, {}

    # --- instructions -------------------------------------------------------------------------------------------

    def part(self, segment: Segment, front: bool = False):
        """Begin a part of the program; every tile has the same parts."""
        self.parts.append(Part(segment, front, []))

    def emit(self, unit, op, fields, reads=(), writes=(), when=When.ALWAYS):
        self.parts[-1].steps.append(Step(Instruction(unit, op, fields, when), tuple(reads), tuple(writes)))

    def counter(self, kind):
        """Number of one of this stream's arrival counters."""
        return STREAM_COUNTERS * self.stream + kind

    def wait(self, unit, counter, count, *regions):
        """Block `unit` until `count` words have arrived, and see them as written by it."""
        if count:
            self.emit(unit, "WAIT", {"ctr": self.counter(counter), "count": count}, writes=[r.span() for r in regions])

    def vector(self, op, a, n, *, reads=(), writes=(), when=When.ALWAYS, **fields):
        """Vector instruction on `n` words of region `a`; scalar registers are tracked as spans of a pseudo region."""
        reads, writes = [a.span(0, n), *reads], list(writes)
        for key, spans in (("sin", reads), ("sout", writes)):
            if key in fields:
                spans.append((self._registers, fields[key], fields[key] + 1))
        self.emit(Unit.VECTOR, op, {"a": a.base, "n": n, **fields}, reads, writes, when)

    def to_vmem(self, op, a, n, dst, *, when=When.ALWAYS, reads=(), **fields):
        self.vector(op, a, n, reads=reads, writes=[dst.span(0, n)], when=when,
                    dst=dst.base, dkind=Dest.VMEM, **fields)

    def to_x(self, op, a, n, dst, frac, *, when=When.ALWAYS, reads=(), **fields):
        """Quantise the result into operand vector `dst`."""
        self.vector(op, a, n, reads=reads, writes=[dst.span(0, vector_words(n, self.vlen))], when=when,
                    dst=dst.base, dkind=Dest.X, frac=frac, **fields)

    def matmul(self, x, weights, first, rows, words, dst, offset=0, when=When.ALWAYS):
        """Rows `first .. first + rows - 1` of a ROM matrix times x into vmem at dst + offset."""
        self.emit(Unit.MATRIX, "MATMUL",
                  {"x": x.base, "base": weights.base + first * words, "rows": rows, "kwords": words, "stride": words,
                   "dst": dst.base + offset, "narrow": int(weights.narrow)},
                  [x.span(0, words)], [dst.span(offset, rows)], when)

    def gather(self, table, dst, *, first=0, n, index=Index.NONE, words, base=0, two_limb=0, when=When.ALWAYS):
        """Elements first.. of a table row into vmem; `base` words before the table stand for rows it lacks."""
        self.emit(Unit.MATRIX, "GATHER",
                  {"x": first, "base": (table.base - base) % (1 << 24), "rows": n, "stride": words, "dst": dst.base,
                   "index": index, "two_limb": two_limb, "narrow": int(table.narrow)}, (), [dst.span(0, n)], when)

    def send(self, src, n, target, counter, tile, *, start=0, when=When.ALWAYS):
        """n words from src to word `target` of a tile."""
        place = (tile % self.design.width, tile // self.design.width)
        self._send(src, n, target, counter, (place, place), start, when)

    def send_all(self, src, n, target, counter, tiles: Span | None = None, *, senders=1, when=When.ALWAYS):
        """The same to a stage's `tiles`, or to all, together with so many senders alike."""
        width = self.design.width
        first, stop = tiles or (0, self.design.tiles)
        band = replace(self.design.network, height=(stop - first) // width)
        if self.design.multicast and multicast_pays(band, n, senders):
            self._send(src, n, target, counter, ((0, first // width), (width - 1, stop // width - 1)), 0, when)
            return
        for step in range(stop - first):  # each begins with another one, the next
            self.send(src, n, target, counter, first + (self.index + 1 + step - first) % (stop - first), when=when)

    def _send(self, src, n, target, counter, corners, start, when):
        (x0, y0), (x1, y1) = corners
        self.emit(Unit.SEND, "SEND",
                  {"src": src.base + start, "n": n, "dst": target, "x0": x0, "y0": y0, "x1": x1, "y1": y1,
                   "ctr": self.counter(counter)}, [src.span(start, n)], (), when)

    def send_host(self, src, n, kind, *, start=0, when=When.ALWAYS):
        address = kind | self.stream << KIND_BITS
        self.emit(Unit.SEND, "SEND", {"src": src.base + start, "n": n, "dst": address, "host": 1},
                  [src.span(start, n)], (), when)

    def report_arrival(self, counter):
        """Tell the stage, in a gather to which this tile adds nothing, that x has arrived here: one word, not read."""
        self.send_all(self.memory.x, 1, self.tile.grant.base, counter, self.stage.tiles)

    # --- storage --------------------------------------------------------------------------------------------------

    def buffer(self, name, size):
        """The vector-memory staging buffer of that name, made at first use; reused by every layer."""
        found = self._buffers.get(name)
        if found is None or found.size < size:
            found = self._buffers[name] = self.memory.vmem.allocate(name, size)
        return found

    def operand(self, name, length, bias=False):
        """The operand vector of that name; with `bias` its constant block is written once per token."""
        found = self._operands.get(name)
        if found is None:
            found = self._operands[name] = self.memory.xmem.allocate(name, vector_words(length, self.vlen, bias))
        return found

    def rom(self, source, layer, start, stop, words):
        """A slice of the ROM holding rows of a matrix, `words` each."""
        found = next((part for part in self.slices if (part.source, part.layer) == (source, layer)), None)
        if found is None:
            narrow = source in self.graph.mxfp4
            size = (stop - start) * words
            region = self.tile.rom.allocate(f"{source}.{layer}", -(-size // 2) if narrow else size)
            found = RomSlice(region, source, layer, start, stop, narrow)
            self.slices.append(found)
        return found

    def quantised_length(self, length, bias):
        """Elements to quantise: whole blocks where a bias follows, since every word of a block carries its scale."""
        return up(length, BLOCK) if bias and self.vlen < BLOCK else length

    def norm(self, frac, when=When.ALWAYS):
        """Statistics of x into register 1, and the shift that SCALE adds to its exponent."""
        x, n = self.memory.x, self.config.hidden
        epsilon = self.graph.norm_epsilon
        self.vector("MAXABS", x, n, sout=0, when=when)
        self.vector("SUMSQ", x, n, sin=0, sout=1, b=epsilon & 0xFFFF, stride=epsilon >> 16, when=when)
        return -(self.graph.norm_exponent + frac)

    def normed_operand(self, frac, bias):
        """x normalised and quantised."""
        n = self.config.hidden
        operand = self.operand("x", n, self.config.attention_bias or self.config.mlp_bias)
        shift = self.norm(frac)
        self.to_x("SCALE", self.memory.x, self.quantised_length(n, bias), operand, frac, sin=1, shift=shift)
        return operand, vector_words(n, self.vlen, bias)
