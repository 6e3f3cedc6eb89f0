"""A whole chip as files: tiles, routers and host port from Amaranth, memories, nodes and the top from templates."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TileKind:
    """Hardware of one tile class, memories included."""

    name: str
    """Lower-case word; the modules are `node_NAME` and `tile_NAME`."""
    fetch: int
    stations: int
    vlen: int
    lanes: int
    imem_words: int
    """Depth of the program ROM in words of `fetch` instructions."""
    vmem_rows: int
    """Depth of the vector memory in rows of `lanes` words."""
    xmem_words: int
    kvmem_words: int
    rom_words: int
    """Depth of the largest weight ROM in the class; it fixes the width of the address."""


@dataclass(frozen=True)
class TilePlace:
    """One node: its class and the depth of its weight ROM (0: none)."""

    x: int
    y: int
    kind: int
    rom_words: int


@dataclass(frozen=True)
class ChipSpec:
    """Everything the Verilog of a chip depends on."""

    width: int
    height: int
    flit_bits: int
    buffer_flits: int
    multicast: bool
    address_bits: int
    """Width of the word address in a message header."""
    context: int
    vocab: int
    signature: int
    """CRC-32 of the integer graph."""
    grant_order: tuple[tuple[int, int, int], ...]
    """(x, y, head rows) of the tiles that hold head rows, in the order of their rows."""
    kinds: tuple[TileKind, ...]
    tiles: tuple[TilePlace, ...]
    """All nodes, row by row."""

    def rom_image(self, x: int, y: int) -> str:
        """Path of a tile's weight image, relative to the chip's folder."""
        return f"rom/tile_{x}_{y}.hex"

    def program_image(self, x: int, y: int) -> str:
        """Path of a tile's program image, relative to the chip's folder."""
        return f"program/tile_{x}_{y}.hex"
