"""The compiler: integer graph and design in, programs and memory images out, every capacity proven."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hwgen.compiler.dependencies import connect
from hwgen.compiler.memory import ROW
from hwgen.compiler.place import Placement, place
from hwgen.compiler.prove import prove_order, prove_routes
from hwgen.compiler.tile_builder import RomSlice
from hwgen.compiler.tile_memory import TileMemory, map_tile
from hwgen.compiler.tile_program import TileProgram
from hwgen.compiler.turns import take_turns
from hwgen.compiler.words import pack_codes, pack_rows, pack_table, rom_word_bytes, word_bytes
from hwgen.design import Design, TileClass
from hwgen.errors import HwgenError
from hwgen.integer_graph import IntegerGraph, biased, matrix_shape
from hwgen.isa import LONGEST, TOKENS, VMEM_BITS, WIDTH, Instruction, check

ADDRESS_LIMITS = {"vmem": 1 << VMEM_BITS, "xmem": 1 << 16, "kvmem": 1 << 20, "rom": 1 << 24}
"""Words that the instruction fields can address."""
IMEM_WORDS = 1 << 20
"""Program words at most: a bound on a fixed capacity, far above any program."""
ROM_DEPTHS = 8
"""Distinct weight-ROM depths in a chip: each is a macro of its own."""


@dataclass(frozen=True)
class Depths:
    """Memory depths of a tile class: vmem in rows of LANES words, the others in their own words."""

    vmem: int
    xmem: int
    kvmem: int
    imem: int
    rom: int


@dataclass(frozen=True)
class CompiledTile:
    """Program, memory map and ROM slices of one tile."""

    memory: TileMemory
    program: list[Instruction]
    slices: list[RomSlice]


@dataclass(frozen=True)
class CompiledChip:
    """Everything that emission and emulation need."""

    graph: IntegerGraph
    design: Design
    placement: Placement
    tiles: list[CompiledTile]
    depths: tuple[Depths, ...]
    """By tile class."""
    rom_depths: tuple[int, ...]
    """Words of every tile's weight ROM: at most ROM_DEPTHS values in a chip."""
    address_bits: int
    """Width of message addresses."""

    @property
    def grant_order(self) -> list[int]:
        """Tiles with head rows, in the order of their rows."""
        return [t for t, (a, b) in enumerate(self.placement.vocabulary) if b > a]

    def rom_words(self, index: int) -> np.ndarray:
        """uint8 [words, word bytes] of a tile's weight ROM."""
        tile = self.tiles[index]
        vlen = tile.memory.cls.vlen
        width = rom_word_bytes(vlen, self.graph.weights)
        parts = [np.zeros((0, width), np.uint8)]
        for part in tile.slices:
            words = _slice_words(self.graph, part, vlen)
            words = pack_codes(words, vlen) if part.narrow else words
            parts.append(np.pad(words, ((0, 0), (0, width - words.shape[1]))))
        return np.concatenate(parts)


def _slice_words(graph: IntegerGraph, part: RomSlice, vlen: int) -> np.ndarray:
    config = graph.config
    if part.source == "rope":
        return pack_table(graph.rope[part.start : part.stop], vlen)
    if part.source == "gain":
        return pack_table(graph.final_gain[None], vlen)
    if part.source == "constant":
        return pack_table(np.array([[64, 1] + [0] * 32]), vlen)
    if part.source in ("embed", "head"):
        matrix = graph.embed if part.source == "embed" or config.tied else graph.head
        return pack_rows(matrix[part.start : part.stop], config.hidden, vlen)
    matrix = getattr(graph.layers[part.layer], part.source)
    length = matrix_shape(config, part.source)[1]
    return pack_rows(matrix[part.start : part.stop], length, vlen, biased(config, part.source))


def compile_chip(graph: IntegerGraph, design: Design) -> CompiledChip:
    """Place, map, program and prove. Raises HwgenError with the number that a too-small design breaks."""
    config = graph.config
    if config.vocab > TOKENS:
        raise HwgenError(f"vocabulary must be at most {TOKENS} tokens, not {config.vocab}")
    placement = place(config, design)
    memories = [map_tile(t, config, graph.context, design, placement) for t in range(design.tiles)]
    tiles = []
    for index, memory in enumerate(memories):
        _check_addresses(memory, design, graph)  # before programs are built on addresses that do not exist
        slices: list[RomSlice] = []
        streams = [TileProgram(graph, design, placement, memories, index, stream, slices).build().parts
                   for stream in range(design.streams)]
        _check_addresses(memory, design, graph)
        for parts in streams:
            connect([step for part in parts for step in part.steps])
        program = take_turns(streams, design.pipeline_stages, placement.stage(index))
        _prove_fields(program, memory, design, graph)
        tiles.append(CompiledTile(memory, program, slices))
    depths = tuple(_depths(design, index, tiles, graph) for index in range(len(design.classes)))
    reach = max(region.base + region.size for m in memories for region in m.message_regions())
    prove_routes(design)
    prove_order(design, placement)
    address_bits = max(1, (reach - 1).bit_length())
    rom_depths = _rom_depths(design, tiles, depths, graph.weights)
    return CompiledChip(graph, design, placement, tiles, depths, rom_depths, address_bits)


def _limit(name: str, graph: IntegerGraph) -> int:
    """Words of a memory that instructions can address; of words of 4-bit codes, two lie in each of the ROM's."""
    return ADDRESS_LIMITS[name] // (2 if name == "rom" and graph.mxfp4 else 1)


def _check_addresses(memory: TileMemory, design: Design, graph: IntegerGraph):
    longest = max(memory.vmem.regions, key=lambda region: region.size)
    # every tile has the whole of x, attention and h; else only logits are longer than scores and codes of all positions
    advice = {"x": "", "attention": "", "h": "", "logits": ": use more tiles"}.get(
        longest.name, ": use a shorter context")
    _check(f"{longest.name} in vmem", longest.size, LONGEST, advice, memory, design, graph)
    for part in (memory.vmem, memory.xmem, memory.kvmem, memory.rom):
        fewer = f", or fewer than {design.streams} streams" if design.streams > 1 and part is not memory.rom else ""
        advice = f": use more tiles or a shorter context{fewer}"
        _check(part.name, part.used, _limit(part.name, graph), advice, memory, design, graph)


def _check(what: str, words: int, limit: int, advice: str, memory: TileMemory, design: Design, graph: IntegerGraph):
    if words > limit:
        raise HwgenError(
            f"{what} of tile {_place(memory, design)} must be at most {limit} words, not {words}, "
            f"at context {graph.context}{advice}")


def _prove_fields(program: list[Instruction], memory: TileMemory, design: Design, graph: IntegerGraph):
    """Whatever a program says can be encoded: words of rows and strides of caches, and exponents of any graph."""
    try:
        for instruction in program:
            check(instruction)
    except ValueError as error:
        raise HwgenError(f"{error}, in the program of tile {_place(memory, design)} with vlen {memory.cls.vlen} "
                         f"and context {graph.context}") from None


def _place(memory: TileMemory, design: Design) -> str:
    return f"{memory.index % design.width},{memory.index // design.width}"


def _depths(design: Design, index: int, tiles, graph: IntegerGraph) -> Depths:
    cls = design.classes[index]
    own = [t for t in tiles if design.node_class[t.memory.index] == index]
    vmem = max(-(-t.memory.vmem.used // ROW) for t in own) * ROW // cls.lanes
    xmem, kvmem, rom = (max(getattr(t.memory, name).used for t in own) for name in ("xmem", "kvmem", "rom"))
    imem = max(-(-len(t.program) // cls.fetch) for t in own)
    needed = Depths(*(max(2, depth) for depth in (vmem, xmem, kvmem, imem, rom)))
    return _fit(cls, needed, graph)


def _rom_depths(design: Design, tiles, depths, weights: str) -> tuple[int, ...]:
    """A fixed capacity as it is; else the smallest of a few depths that is enough, chosen for the least ROM in all."""
    fixed = {i for i, cls in enumerate(design.classes) if cls.wmem_kib is not None}
    needs = Counter()
    for memory in (t.memory for t in tiles if design.node_class[t.memory.index] not in fixed):
        needs[max(2, memory.rom.used)] += rom_word_bytes(memory.cls.vlen, weights)
    chosen = few_depths(needs, max(1, ROM_DEPTHS - len(fixed)))
    return tuple(
        depths[c].rom if (c := design.node_class[t.memory.index]) in fixed
        else next(level for level in chosen if level >= t.memory.rom.used)
        for t in tiles)


def few_depths(needs: dict[int, int], count: int) -> list[int]:
    """At most `count` of the depths needed, so that all memories, each as deep as the next of these, are smallest.

    `needs`: bytes of a word of all memories together that need a depth.
    """
    levels = np.array(sorted(needs), np.float64)
    if len(levels) <= count:
        return sorted(needs)
    widths = np.cumsum([0.0] + [needs[level] for level in levels])
    # bytes of needs first .. last, all as deep as the last [last, first]
    group = levels[:, None] * np.where(np.tri(len(levels)), widths[1:, None] - widths[:-1], np.inf)
    least, starts = group[:, 0], []
    for _ in range(count - 1):
        split = group[:, 1:] + least[:-1]
        starts.append(split.argmin(1) + 1)
        least = split.min(1)
    ends = [len(levels)]
    for start in reversed(starts):
        ends.append(start[ends[-1] - 1])
    return [int(levels[end - 1]) for end in reversed(ends)]


def _kib(count: int) -> str:
    return f"{count / 1024:.4g}"


def _fit(cls: TileClass, needed: Depths, graph: IntegerGraph) -> Depths:
    """Depths of a class whose capacities may be fixed; what a fixed data memory has to spare lengthens the cache."""
    word, rom_word = word_bytes(cls.vlen), rom_word_bytes(cls.vlen, graph.weights)
    instruction = cls.fetch * WIDTH // 8
    fixed = needed.vmem * cls.lanes * 4 + needed.xmem * word
    for knob, capacity, need in (
        ("dmem_kib", cls.dmem_kib, fixed + needed.kvmem * word),
        ("imem_kib", cls.imem_kib, needed.imem * instruction),
        ("wmem_kib", cls.wmem_kib, needed.rom * rom_word),
    ):
        if capacity is not None and capacity * 1024 < need:
            extra = ""
            if knob == "dmem_kib":
                extra = f", of which {_kib(needed.kvmem * word)} KiB hold the KV cache of context {graph.context}"
            raise HwgenError(f"{knob} of tile class {cls.name} must be at least {_kib(need)}{extra}, not {capacity}: "
                             f"{_kib(need - capacity * 1024)} KiB too small")
    depths = Depths(
        needed.vmem, needed.xmem,
        needed.kvmem if cls.dmem_kib is None else int(cls.dmem_kib * 1024 - fixed) // word,
        needed.imem if cls.imem_kib is None else int(cls.imem_kib * 1024) // instruction,
        needed.rom if cls.wmem_kib is None else int(cls.wmem_kib * 1024) // rom_word,
    )
    for knob, name in (("dmem_kib", "kvmem"), ("wmem_kib", "rom"), ("imem_kib", "imem")):
        depth, limit = getattr(depths, name), IMEM_WORDS if name == "imem" else _limit(name, graph)
        if depth > limit:
            raise HwgenError(f"{knob} of tile class {cls.name} must leave {name} at most {limit} words, "
                             f"as many as can be addressed, not {depth}")
    return depths
