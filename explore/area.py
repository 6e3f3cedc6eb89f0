"""Silicon area by what takes it."""

from torch import Tensor

from explore.logic_area import Gates
from explore.scenario import Scenario
from explore.space import Knobs
from explore.tile_load import TileLoad, program_bits, rom_table_bits, scale_bytes

DIE_SHARE = 0.95
"""Of a die that its mesh takes; the rest is pad ring, clock source and seal. Assumption."""


def word_bits(vlen: Tensor) -> Tensor:
    """Bits of an MX word."""
    return 8 * (vlen + scale_bytes(vlen))


def sram_bits(knobs: Knobs, load: TileLoad) -> Tensor:
    """Bits of data memory of one tile [B, K]."""
    return load.vmem * 32 + (load.xmem + load.kvmem) * word_bits(knobs.vlen)


def rom_bits(knobs: Knobs, load: TileLoad, scenario: Scenario) -> Tensor:
    """Bits of all weight ROMs of a chip [B], tables included."""
    weights = (knobs.nodes * load.rom * load.rom_word).sum(1)
    vlen = (knobs.nodes * knobs.vlen).sum(1) / knobs.nodes.sum(1)
    workload = scenario.workload
    return weights + rom_table_bits(workload.config, scenario.context, vlen, workload.mxfp4)


def area_mm2(knobs: Knobs, load: TileLoad, logic: Gates, scenario: Scenario) -> dict[str, Tensor]:
    """mm2 by what takes it [B]; the sum is the die. `vision`: ROM of an image tower, which is counted, not emitted."""
    node, nodes = scenario.node, knobs.nodes
    gate, rom = 1 / node.gates_mm2, 1 / node.rom_bits_mm2(scenario.rom_anchor)
    parts = {
        "matrix": (nodes * logic.matrix).sum(1) * gate,
        "vector": (nodes * logic.vector).sum(1) * gate,
        "control": ((nodes * logic.control).sum(1) + logic.host) * gate,
        "router": (nodes.sum(1) * logic.router[:, 0]) * gate,
        "weights": rom_bits(knobs, load, scenario) * rom,
        "vision": 8 * scenario.workload.vision_weight_bytes * rom + 0 * nodes[:, 0],
        "programs": (nodes * program_bits(load, knobs)).sum(1) * rom,
        "data": (nodes * sram_bits(knobs, load)).sum(1) / node.sram_bits_mm2,
    }
    return parts | {"periphery": sum(parts.values()) * (1 / DIE_SHARE - 1)}
