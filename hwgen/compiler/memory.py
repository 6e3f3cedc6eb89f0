"""Regions of a tile's memories and their allocation."""

from dataclasses import dataclass, field

ROW = 16
"""Alignment of vector-memory regions in words: a row start for every LANES."""


@dataclass(frozen=True, eq=False)
class Region:
    """`size` words from `base` of memory `memory` (vmem, xmem, kvmem, rom); compared by identity."""

    name: str
    memory: str
    base: int
    size: int

    def span(self, start: int = 0, size: int | None = None):
        """(region, first word, word after the last) of a part of the region."""
        return self, start, self.size if size is None else start + size


@dataclass
class Memory:
    """Bump allocator of one memory."""

    name: str
    align: int = 1
    used: int = 0
    regions: list[Region] = field(default_factory=list)

    def allocate(self, name: str, size: int) -> Region:
        region = Region(name, self.name, self.used, size)
        self.used += -(-size // self.align) * self.align
        self.regions.append(region)
        return region
