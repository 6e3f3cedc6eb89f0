"""Memory map of one tile: where every vector, cache and ROM slice lies.

Regions that are message destinations come first, in the same order and size on every tile, so that one multicast
address serves all of them. Streams have nothing in common but the ROM.
"""

from dataclasses import dataclass, field

from hwgen.compiler.memory import ROW, Memory, Region
from hwgen.compiler.place import AttentionUnit, Placement
from hwgen.compiler.words import vector_words
from hwgen.design import Design, TileClass
from hwgen.model_config import ModelConfig

BLOCK = 32


def up(n: int, to: int) -> int:
    """`n` rounded up to a multiple of `to`."""
    return -(-n // to) * to


def value_blocks(head_dim: int):
    """Spans of the <= 32 channel blocks of a value head."""
    return [(a, min(a + BLOCK, head_dim)) for a in range(0, head_dim, BLOCK)]


@dataclass
class UnitMemory:
    """Buffers and caches of one attention unit slot; caches are per layer."""

    q: list[Region]
    k: Region
    v: Region


@dataclass
class Cache:
    """K rows, V rows and value scale codes of one unit in one layer."""

    k: Region
    v: Region
    codes: list[Region]


@dataclass
class TileMemory:
    """The memories of tile `index`; `grant` takes what nobody reads, `streams` are the regions of each stream."""

    index: int
    cls: TileClass
    vmem: Memory = field(default_factory=lambda: Memory("vmem", ROW))
    xmem: Memory = field(default_factory=lambda: Memory("xmem"))
    kvmem: Memory = field(default_factory=lambda: Memory("kvmem"))
    rom: Memory = field(default_factory=lambda: Memory("rom"))

    def __post_init__(self):
        self.grant = self.vmem.allocate("grant", 1)
        self.streams: list[StreamMemory] = []

    def message_regions(self) -> list[Region]:
        """Regions that other tiles write."""
        return [self.grant] + [region for stream in self.streams for region in stream.message_regions()]


@dataclass
class StreamMemory:
    """All regions of a stream on a tile."""

    tile: TileMemory
    config: ModelConfig
    context: int

    def __post_init__(self):
        self.vlen = self.tile.cls.vlen
        self.vmem, self.xmem, self.kvmem = self.tile.vmem, self.tile.xmem, self.tile.kvmem

    def allocate_messages(self, config: ModelConfig, placement: Placement) -> None:
        """Destinations of messages, alike on every tile."""
        new = self.vmem.allocate
        self.x = new("x", config.hidden + BLOCK)
        # behind the first stage it comes as a piece of x, from a row start on
        lead = ROW if len(placement.stages) > 1 else 0
        whole = new("residual", lead + max(b - a for a, b in placement.hidden))
        self.residual = Region(whole.name, whole.memory, whole.base + lead, whole.size - lead)
        self.rope = new("rope", config.head_dim)
        self.gain = new("gain", config.hidden if config.tied else 0)
        self.attention = new("attention", config.heads * config.head_dim + BLOCK)
        self.h = new("h", config.ffn + BLOCK)

    def message_regions(self) -> list[Region]:
        """Regions that other tiles write."""
        common = [self.x, self.residual, self.rope, self.gain, self.attention, self.h]
        return common + [r for s in self.slots for r in (*s.q, s.k, s.v)]

    def allocate_units(self, units_by_layer: list[list[AttentionUnit]]) -> None:
        """Head buffers for the busiest layer, and the caches of all."""
        d = self.config.head_dim
        self.slots = []
        for slot in range(max((len(units) for units in units_by_layer), default=0)):
            heads = max(units[slot].count for units in units_by_layer if len(units) > slot)
            self.slots.append(UnitMemory(
                [self.vmem.allocate(f"q{slot}.{h}", d) for h in range(heads)],
                self.vmem.allocate(f"k{slot}", d), self.vmem.allocate(f"v{slot}", d)))
        heads = sum(len(s.q) for s in self.slots)
        words = vector_words(d, self.vlen)
        blocks = value_blocks(d)
        self.q_vectors = [self.xmem.allocate(f"q{h}", words) for h in range(heads)]
        ways = range(min(2, heads))
        reach = up(self.context, max(self.vlen, BLOCK)) // self.vlen
        self.p_vectors = [[self.xmem.allocate(f"p{w}.{b}", reach) for b in range(len(blocks))] for w in ways]
        self.scores = [self.vmem.allocate(f"scores{w}", self.context) for w in ways]
        self.weighted = [self.vmem.allocate(f"weighted{w}", d) for w in ways]
        self.outputs = [self.vmem.allocate(f"head{h}", d) for h in range(heads)]
        v_words = -(-self.context // self.vlen)
        self.caches = [
            [Cache(self.kvmem.allocate(f"k.{layer}.{u.slot}", self.context * words),
                   self.kvmem.allocate(f"v.{layer}.{u.slot}", d * v_words),
                   [self.vmem.allocate(f"codes.{layer}.{u.slot}.{b}", self.context) for b in range(len(blocks))])
             for u in units]
            for layer, units in enumerate(units_by_layer)]


def map_tile(index: int, config: ModelConfig, context: int, design: Design, placement: Placement) -> TileMemory:
    """Message buffers, head buffers and caches of a tile; the program adds its staging buffers and ROM slices."""
    memory = TileMemory(index, design.tile_class(index))
    memory.streams = [StreamMemory(memory, config, context) for _ in range(design.streams)]
    for stream in memory.streams:
        stream.allocate_messages(config, placement)
    for stream in memory.streams:
        stream.allocate_units([[u for u in units if u.tile == index] for units in placement.units])
    return memory
