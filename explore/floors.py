"""Physics that no design of a workload on a node gets below, and what a claimed figure breaks of it."""

from dataclasses import dataclass

from explore.node import RETICLE_MM2, Node
from explore.scenario import Scenario


@dataclass(frozen=True)
class Floors:
    """Least area of a scenario, whatever the mesh; `Evaluation` has the floors of power and speed.

    `weight_mm2` of ROM, image tower included, by the scenario's anchor; `kv_mm2` of SRAM for the bare elements of one
    sequence's cache at the full context.
    """

    weight_mm2: float
    kv_mm2: float


def floors(scenario: Scenario) -> Floors:
    """The floors of a scenario with weights in the workload's formats and an 8-bit cache."""
    workload, node = scenario.workload, scenario.node
    bits = 8 * (workload.weight_bytes + workload.vision_weight_bytes)
    cache = 8 * workload.kv_bytes_fp16 // 2 * scenario.context
    return Floors(weight_mm2=bits / node.rom_bits_mm2(scenario.rom_anchor), kv_mm2=cache / node.sram_bits_mm2)


@dataclass(frozen=True)
class Claim:
    """Figures that somebody states of a chip: tokens/s of all `streams` together, W, mm2, and what it is built of.

    `macs_per_cycle`: of the whole array; `weight_bits`: of one weight; `sram_bits`: data memory of the chip;
    `kv_bits`: cache of one sequence.
    """

    tok_s: float
    watts: float
    mm2: float
    mhz: float
    macs_per_cycle: float
    weight_bits: float
    sram_bits: float
    kv_bits: float
    streams: int = 1


def broken(claim: Claim, parameters: int, macs: int, node: Node, rom_anchor: str = "macro") -> list[str]:
    """Sentences, one a floor that the claim breaks. A weight is read once for all streams at the same token."""
    found = []
    peak = claim.macs_per_cycle * claim.mhz * 1e6 / macs
    if claim.tok_s > peak:
        found.append(f"tokens/s must be at most {peak:,.0f}, the array's peak, not {claim.tok_s:,.0f}")
    read = parameters * claim.weight_bits * node.rom_fj_bit * 1e-15 * claim.tok_s / claim.streams
    if claim.watts < read:
        implied = claim.watts / (parameters * claim.weight_bits * claim.tok_s / claim.streams) * 1e15
        found.append(f"power must be at least {read:,.1f} W, that of reading at {node.rom_fj_bit:g} fJ/bit, not "
                     f"{claim.watts:g} W (all of it would leave {implied:.2g} fJ/bit)")
    if claim.streams * claim.kv_bits > claim.sram_bits:
        found.append(f"data memory must hold {claim.streams * claim.kv_bits / 8e6:,.0f} MB of cache, "
                     f"not {claim.sram_bits / 8e6:,.0f} MB")
    least = parameters * claim.weight_bits / node.rom_bits_mm2(rom_anchor)
    if claim.mm2 < least:
        found.append(f"area must be at least {least:,.0f} mm2, that of the weight ROM, not {claim.mm2:,.0f}")
    if claim.mm2 > RETICLE_MM2:
        found.append(f"area must be at most {RETICLE_MM2:,.0f} mm2, one reticle, not {claim.mm2:,.0f}")
    return found
