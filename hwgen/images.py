"""Memory images and listings of a compiled chip, made tile by tile so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

from hwgen.compiler.compile import CompiledChip
from hwgen.isa import WIDTH, disassemble, encode

CHUNK = 1 << 14
"""Words a piece of a streamed image."""


def hex_lines(words: np.ndarray) -> Iterator[str]:
    """`$readmemh` text of memory words uint8 [n, bytes], byte 0 in the low bits of a word."""
    size = words.shape[1] * 2
    for start in range(0, len(words), CHUNK):
        text = np.ascontiguousarray(words[start : start + CHUNK, ::-1]).tobytes().hex()
        yield "".join(f"{text[at : at + size]}\n" for at in range(0, len(text), size))


def rom_image(chip: CompiledChip, tile: int) -> Iterator[str]:
    """The weight ROM of a tile, as pieces of text; never empty, since a simulator warns about empty images."""
    words = chip.rom_words(tile)
    if not len(words):
        words = np.zeros((1, words.shape[1]), np.uint8)
    yield from hex_lines(words)


def program_image(chip: CompiledChip, tile: int) -> str:
    """The program ROM of a tile: FETCH instructions a line, slot 0 in the low bits."""
    fetch = chip.design.tile_class(tile).fetch
    codes = [encode(i) for i in chip.tiles[tile].program]
    codes += [0] * (-len(codes) % fetch)
    lines = []
    for at in range(0, len(codes), fetch):
        word = sum(code << WIDTH * slot for slot, code in enumerate(codes[at : at + fetch]))
        lines.append(f"{word:0{fetch * WIDTH // 4}x}\n")
    return "".join(lines)


def listing(chip: CompiledChip, tile: int) -> str:
    """Readable program of a tile, with the memory map its addresses refer to."""
    width = chip.design.width
    memory = chip.tiles[tile].memory
    lines = [f"; tile {tile % width},{tile // width}, class {memory.cls.name}\n"]
    for part in (memory.vmem, memory.xmem, memory.kvmem, memory.rom):
        lines += [f"; {part.name:<5} {r.base:>8} {r.size:>8} {r.name}\n" for r in part.regions if r.size]
    lines += [f"{at:>5}  {disassemble(i)}\n" for at, i in enumerate(chip.tiles[tile].program)]
    return "".join(lines)
