"""The manifest: the one source of every number that benches, flows and reports share."""

from hwgen import __version__
from hwgen.compiler.compile import CompiledChip, Depths
from hwgen.compiler.words import rom_word_bytes, word_bytes
from hwgen.emit.chip import ChipSpec, TileKind, TilePlace
from hwgen.errors import HwgenError
from hwgen.formats import BUILD
from hwgen.isa import ENDS, KIND_BITS, WIDTH
from hwgen.model_config import end_ids
from hwgen.rtl.axi_lite_registers import REGISTERS, STATUS_BITS
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.performance import COUNTERS
from hwgen.rtl.starts import stream_bits


def chip_spec(chip: CompiledChip) -> ChipSpec:
    """What the Verilog depends on. Raises HwgenError where a message header does not fit the network."""
    design, graph = chip.design, chip.graph
    spec = ChipSpec(
        width=design.width, height=design.height, flit_bits=design.flit_bits, buffer_flits=design.buffer_flits,
        multicast=design.multicast, virtual_channels=design.virtual_channels, routing=design.routing,
        link_registers=design.link_registers, port_flits=design.port_flits,
        address_bits=max(KIND_BITS + stream_bits(design.streams), chip.address_bits), streams=design.streams,
        context=graph.context, vocab=graph.config.vocab, signature=graph.signature(),
        grant_order=tuple((*_place(chip, t), _rows(chip.placement.vocabulary[t])) for t in chip.grant_order),
        kinds=tuple(_kind(cls, depths, graph.weights) for cls, depths in zip(design.classes, chip.depths, strict=True)),
        tiles=tuple(TilePlace(*_place(chip, t), design.node_class[t], chip.rom_depths[t])
                    for t in range(design.tiles)))
    try:
        PacketFormat(**spec.network, address_bits=spec.address_bits, streams=spec.streams)
    except ValueError as error:
        raise HwgenError(str(error)) from None
    return spec


def _place(chip, tile):
    return tile % chip.design.width, tile // chip.design.width


def _rows(span):
    return span[1] - span[0]


def _kind(cls, depths: Depths, weights: str) -> TileKind:
    return TileKind(
        name=cls.name, fetch=cls.fetch, stations=cls.stations, vlen=cls.vlen, lanes=cls.lanes,
        imem_words=depths.imem, vmem_rows=depths.vmem, xmem_words=depths.xmem, kvmem_words=depths.kvmem,
        rom_words=depths.rom, weights=weights)


def manifest(chip: CompiledChip, files: list[str], images: bool) -> dict:
    """Plain values, ready for JSON; `files` are the Verilog files in compile order."""
    design, graph, config = chip.design, chip.graph, chip.graph.config
    return {
        "hwgen": __version__,
        "format": BUILD.mark,
        "top": "chip",
        "files": files,
        "constraints": "constraints.sdc",
        "images": images,
        "memory_images": _image_entries(chip) if images else [],
        "width": design.width,
        "height": design.height,
        "flit_bits": design.flit_bits,
        "virtual_channels": design.virtual_channels,
        "buffer_flits": design.buffer_flits,
        "routing": design.routing,
        "multicast": design.multicast,
        "link_registers": design.link_registers,
        "port_flits": dict(design.port_flits),
        "pipeline_stages": design.pipeline_stages,
        "streams": design.streams,
        "clock_mhz": design.clock_mhz,
        "context": graph.context,
        "vocab": config.vocab,
        "bos": config.bos,
        "eos_ids": end_ids(config.eos_ids),
        "signature": graph.signature(),
        "weights": graph.weights,
        "mxfp4": sorted(graph.mxfp4),
        "registers": REGISTERS,
        "status_bits": STATUS_BITS,
        "counters": COUNTERS,
        "ends": ENDS,
        "model": config.to_dict(),
        "classes": [_class_entry(cls, depths, graph.weights)
                    for cls, depths in zip(design.classes, chip.depths, strict=True)],
        "tiles": [_tile_entry(chip, t) for t in range(design.tiles)],
    }


def _image_entries(chip: CompiledChip) -> list[dict]:
    """Of every memory image its file, how many words it holds, and hexadecimal digits of a word."""
    entries = []
    for t, tile in enumerate(chip.tiles):
        place, cls = _place(chip, t), tile.memory.cls
        entries += [
            {"file": ChipSpec.program_image(*place), "words": -(-len(tile.program) // cls.fetch),
             "digits": cls.fetch * WIDTH // 4},
            # the image of an empty ROM has a word, too
            {"file": ChipSpec.rom_image(*place), "words": max(1, tile.memory.rom.used),
             "digits": rom_word_bytes(cls.vlen, chip.graph.weights) * 2},
        ]
    return entries


def _class_entry(cls, depths: Depths, weights: str) -> dict:
    word = word_bytes(cls.vlen)
    return {
        "name": cls.name, "fetch": cls.fetch, "stations": cls.stations, "vlen": cls.vlen, "lanes": cls.lanes,
        "dmem_kib": (depths.vmem * cls.lanes * 4 + (depths.xmem + depths.kvmem) * word) / 1024,
        "imem_kib": depths.imem * cls.fetch * WIDTH / 8192,
        "wmem_kib": depths.rom * rom_word_bytes(cls.vlen, weights) / 1024,
        "vmem_rows": depths.vmem, "xmem_words": depths.xmem, "kvmem_words": depths.kvmem,
        "imem_words": depths.imem, "rom_words": depths.rom,
    }


def _tile_entry(chip: CompiledChip, t: int) -> dict:
    x, y = _place(chip, t)
    memory, placement = chip.tiles[t].memory, chip.placement
    return {
        "x": x, "y": y, "class": memory.cls.name, "instructions": len(chip.tiles[t].program),
        "rom_words": memory.rom.used, "rom_depth": chip.rom_depths[t],
        "xmem_words": memory.xmem.used, "kv_words": memory.kvmem.used, "vmem_words": memory.vmem.used,
        "layers": list(placement.stages[placement.stage(t)].layers),
        "rows": {name: list(getattr(placement, name)[t]) for name in ("qkv", "hidden", "ffn", "vocabulary")},
        "heads": sorted({h for units in placement.units for u in units if u.tile == t
                         for h in range(u.first, u.first + u.count)}),
    }
