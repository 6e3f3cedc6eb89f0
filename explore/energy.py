"""Power by what draws it: energies of a token in pJ at 45 nm, scaled to the node, and what flows at rest.

Sources: Horowitz, ISSCC 2014 (45 nm, 0.9 V): int8 multiply 0.2 pJ, int8 add 0.03, int32 add 0.1, a 64-bit read of
8 KB SRAM 10 pJ, of 32 KB 20 and of 1 MB 100, so the root of the size; a wire 0.094 pJ a bit and mm (Dally). Beyond 1 MB
the root is an extrapolation: wires across the array grow with it, however it is banked.
"""

from torch import Tensor

from explore.area import rom_bits, sram_bits, word_bits
from explore.cycles import Cycles
from explore.logic_area import Gates
from explore.network_load import WORD_BITS, Packets
from explore.scenario import Scenario
from explore.space import Knobs
from explore.tile_load import TileLoad, program_bits
from hwgen.isa import WIDTH

MAC_PJ = 0.2 + 0.03 + 0.1 / 32
"""A multiply, its share of the adder tree, and of the 32-bit sum of a block."""
GATE_FJ = 0.2e3 / 420
"""Energy of a GE in a cycle of work: an int8 multiplier of 420 GE (Yosys, IHP SG13G2) takes 0.2 pJ. Interpolated."""
SRAM_PJ_BYTE = 10 / 8
SRAM_BYTES = 8192
"""A byte from an array of 8 KB; the root of the size scales it."""
WIRE_PJ_BIT_MM = 0.094
WIRE_VDD = 0.9
"""Wires keep their capacitance a mm over the nodes: their energy falls with the square of the supply alone."""
CLOCK_FJ = 14.4
"""A flip-flop and its share of the clock tree, each cycle: nothing emitted gates a clock. The clock pin of ASAP7's
DFFHQNx1 is 0.475 fF; with the cell's own clock nodes and the tree four times that, at 0.7 V 0.98 fJ. Interpolated."""


def sram_pj(byte_count: Tensor, bits: Tensor) -> Tensor:
    """pJ at 45 nm to read or write `byte_count` bytes of an array of `bits` bits."""
    return byte_count * SRAM_PJ_BYTE * ((bits / 8).clamp(min=512) / SRAM_BYTES).sqrt()


def power_w(knobs: Knobs, load: TileLoad, form: Packets, logic: Gates, timing: Cycles, area: Tensor,
            scenario: Scenario) -> dict[str, Tensor]:
    """W by what draws it [B], at one step after the other."""
    node, nodes = scenario.node, knobs.nodes
    hertz = knobs.clock_mhz[:, 0] * 1e6
    rate = knobs.streams[:, 0] * hertz / timing.total
    bits = word_bits(knobs.vlen)
    pj = node.energy_scale * 1e-12 * rate
    fj_rom = node.rom_fj_bit * 1e-15 * rate
    row = 4 * knobs.lanes
    words = timing.rom_words + timing.kv_words
    pitch = (area / knobs.tiles[:, 0]).sqrt()
    wire = WIRE_PJ_BIT_MM * (node.vdd / WIRE_VDD) ** 2 * 1e-12 * rate
    on_wires = timing.link_flits * knobs.flit_bits[:, 0] * pitch * wire
    stored = (load.stages.band.nodes * sram_pj(knobs.flit_bits / 8, load.vmem * WORD_BITS)).sum(1)
    buffered = (logic.router / logic.ports)[:, 0] * GATE_FJ * 1e-3
    ge = (nodes * (logic.tile + logic.router)).sum(1) + logic.host
    leak = (ge * node.leakage_pw_gate + (nodes * sram_bits(knobs, load)).sum(1) * node.leakage_pw_sram_bit
            + (rom_bits(knobs, load, scenario) + 8 * scenario.workload.vision_weight_bytes
               + (nodes * program_bits(load, knobs)).sum(1)) * node.leakage_pw_rom_bit) * 1e-12
    return {
        "weights": (nodes * timing.rom_reads * load.rom_word).sum(1) * fj_rom,
        "programs": (nodes * load.instructions * WIDTH).sum(1) * fj_rom,
        "multipliers": (nodes * words * knobs.vlen).sum(1) * MAC_PJ * pj,
        "operands": (nodes * words * sram_pj(bits / 8, load.xmem * bits)).sum(1) * pj,
        "cache": (nodes * timing.kv_words * sram_pj(bits / 8, load.kvmem * bits)).sum(1) * pj,
        "vector": (nodes * timing.vector_busy * (logic.vector * GATE_FJ * 1e-3
                                                 + 2 * sram_pj(row, load.vmem * WORD_BITS))).sum(1) * pj,
        "network": ((nodes * timing.sent).sum(1) * stored + timing.link_flits * buffered) * pj + on_wires,
        "clock": (nodes * logic.flip_flops).sum(1) * CLOCK_FJ * 1e-15 * node.energy_scale * hertz,
        "leakage": leak,
    }
