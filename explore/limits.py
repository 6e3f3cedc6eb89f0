"""What no design may break: address widths, one reticle, the node's clock, and the budgets of a scenario."""

from enum import Enum
from functools import cache

import torch
from torch import Tensor

from explore.network_load import Packets
from explore.node import RETICLE_MM2
from explore.scenario import Scenario
from explore.space import Knobs
from explore.straight import words
from explore.tile_load import TileLoad, rom_table_bits, row_words
from hwgen.compiler.compile import ADDRESS_LIMITS, IMEM_WORDS
from hwgen.compiler.memory import ROW
from hwgen.compiler.tile_memory import BLOCK, up
from hwgen.design import CHIP_RULES
from hwgen.isa import CACHE_STRIDE, LONGEST, ROW_WORDS, TOKENS
from hwgen.noc.network import Network

PATH_PS_7NM = 1274.4
"""Longest path of the emitted tile core in ASAP7 (Yosys and ABC's `stime`, no wires); it hardly depends on knobs:
8.2 to 8.6 ns in osu018 from the smallest tile to one of FETCH 4, 8 stations and 256-bit flits."""
CLOCK_MARGIN = 1.3
"""Wires, skew and set-up on top of it. Assumption."""


class Reason(Enum):
    """Why a design is refused; the value is a sentence."""

    NO_TILE = "every operator class must have a tile whose share is above 0"
    NETWORK = "the network must know this routing with these virtual channels and multicast"
    STAGES = "pipeline_stages must be at most the rows of the mesh and the layers of the model"
    HEADER = "buffer_flits must hold the header and one flit of payload of a multicast packet, flit_bits its route"
    ROM = "the weight ROM of a tile must be within what instructions can address"
    KV = ("the KV cache of a tile must be within what instructions can address, context / vlen within 4,095: "
          "use more tiles or a shorter context")
    VMEM = ("the vector memory of a tile must be within what instructions can address, no vector and no context above "
            "65,535, no vocabulary above 1,048,575")
    XMEM = ("the operand memory of a tile must be within what instructions can address, "
            "no row of a matrix above 4,095 words")
    IMEM = "the program of a tile must be within the largest program ROM"
    CLOCK = "clock_mhz must be within what the node's gates allow"
    RETICLE = "the die must fit one reticle"
    POWER = "power must be within the budget"
    AREA = "area must be within the budget"
    LATENCY = "latency must be within the budget"

    @property
    def sentence(self) -> str:
        return self.value

    @property
    def bit(self) -> int:
        """Its bit in `Evaluation.reasons`."""
        return 1 << list(Reason).index(self)


def clock_limit_mhz(scenario: Scenario) -> float:
    """The fastest clock of the node in MHz, or what the scenario allows if less."""
    limit = 1e6 / (PATH_PS_7NM * scenario.node.delay_scale * CLOCK_MARGIN)
    return min(limit, scenario.clock_max or limit)


def sentences(reasons: int, scenario: Scenario) -> list[str]:
    """Why a design with these bits of `Reason` is refused; of two limits of the clock, the one that binds."""
    asked = scenario.clock_max is not None and clock_limit_mhz(scenario) == scenario.clock_max
    return [f"clock_mhz must be at most {scenario.clock_max:g}, which the system allows (--clock-max)"
            if asked and reason is Reason.CLOCK else reason.sentence for reason in Reason if reasons & reason.bit]


@cache
def _networks(routings: tuple, channels: tuple) -> tuple:
    """1.0 where a network exists, by routing, virtual channels and multicast; `hwgen.noc` decides."""
    def exists(routing, channel, multicast):
        try:
            Network(2, 2, routing, channel, multicast, 16, 64)
        except ValueError:
            return 0.0
        return 1.0

    return tuple(tuple(tuple(exists(r, v, m) for m in (False, True)) for v in channels) for r in routings)


def _network_exists(knobs: Knobs) -> Tensor:
    routings, channels = (tuple(CHIP_RULES[name].values) for name in ("routing", "virtual_channels"))
    table = torch.tensor(_networks(routings, channels), device=knobs.width.device)
    values = torch.tensor(channels, dtype=torch.float64, device=knobs.width.device)
    at = (knobs.virtual_channels.detach() - values).abs().argmin(1)
    return table[knobs.routing.long()[:, 0], at, (knobs.multicast > 0.5).long()[:, 0]]


def _longest(scenario: Scenario) -> int:
    """Words of the longest vector that every tile has, or positions if more."""
    c = scenario.workload.config
    return max(scenario.context, BLOCK + max(c.hidden, c.heads * c.head_dim, c.ffn))


def _tables(knobs: Knobs, load: TileLoad, scenario: Scenario) -> tuple[Tensor, Tensor]:
    """Words of vector memory and of ROM [B, K] that tables and their rows take on the tile that has all of them.

    Those of rotation and final gain lie on one tile where there are one or two, and on tiles of any class; every tile
    has the constants of biases.
    """
    c = scenario.workload.config
    biased = c.attention_bias or c.output_bias or c.mlp_bias
    vmem = knobs.streams * (up(c.head_dim, ROW) + up(c.hidden * c.tied, ROW) + ROW * biased)
    rom = rom_table_bits(c, scenario.context, knobs.vlen, scenario.workload.mxfp4) / load.rom_word
    present = knobs.nodes > 0
    return vmem * present, (rom + biased * 2 * words(2 + BLOCK, knobs.vlen)) * present


def _row(load: TileLoad, scenario: Scenario, vlen: Tensor) -> Tensor:
    """Words of the longest matrix row on a tile [B, K]."""
    c = scenario.workload.config
    rows = ((load.qkv, c.hidden, c.attention_bias), (load.hidden, c.heads * c.head_dim, c.output_bias),
            (load.ffn, c.hidden, c.mlp_bias), (load.hidden, c.ffn, c.mlp_bias), (load.vocabulary, c.hidden, False))
    return torch.stack([(own.mean > 0) * row_words(length, vlen, bias) for own, length, bias in rows]).amax(0)


def _stride(load: TileLoad, scenario: Scenario, vlen: Tensor) -> Tensor:
    """Words of a key of one head or of a value element of all positions, whichever are more, on a tile [B, K]."""
    return (load.caches > 0) * words(max(scenario.context, scenario.workload.config.head_dim), vlen)


def violations(knobs: Knobs, load: TileLoad, form: Packets, scenario: Scenario, area: Tensor, power: Tensor,
               latency: Tensor) -> tuple[Tensor, Tensor]:
    """(summed relative excess, bits of `Reason`) [B]."""
    def over(value, limit):
        return (value / limit - 1).clamp(min=0)

    vmem, rom = (own + tables for own, tables in zip(
        (load.vmem, load.rom_most), _tables(knobs, load, scenario), strict=True))
    longest = load.vocabulary.most.amax(1).clamp(min=_longest(scenario))
    excess = {
        Reason.NO_TILE: 1 - load.placed.double(),
        Reason.NETWORK: 1 - _network_exists(knobs).double(),
        Reason.STAGES: over(knobs.pipeline_stages[:, 0], knobs.height[:, 0].clamp(max=scenario.workload.layers)),
        Reason.HEADER: (1 - form.several[:, 0]).clamp(min=0) + over(form.routing, knobs.flit_bits)[:, 0],
        # two words of 4-bit codes have two addresses
        Reason.ROM: over(rom.amax(1), ADDRESS_LIMITS["rom"] // (2 if scenario.workload.mxfp4 else 1)),
        Reason.KV: over(load.kvmem.amax(1), ADDRESS_LIMITS["kvmem"])
        + over(_stride(load, scenario, knobs.vlen).amax(1), CACHE_STRIDE),
        Reason.VMEM: over(vmem.amax(1), ADDRESS_LIMITS["vmem"]) + over(longest, LONGEST)
        + max(0, scenario.workload.vocab / TOKENS - 1),
        Reason.XMEM: over(load.xmem.amax(1), ADDRESS_LIMITS["xmem"])
        + over(_row(load, scenario, knobs.vlen).amax(1), ROW_WORDS),
        Reason.IMEM: over(load.imem.amax(1), IMEM_WORDS),
        Reason.CLOCK: over(knobs.clock_mhz[:, 0], clock_limit_mhz(scenario)),
        Reason.RETICLE: over(area, RETICLE_MM2),
    }
    for reason, value, limit in ((Reason.POWER, power, scenario.power_max), (Reason.AREA, area, scenario.area_max),
                                 (Reason.LATENCY, latency, scenario.latency_max)):
        excess[reason] = over(value, limit) if limit is not None else torch.zeros_like(value)
    bits = sum((value > 0).long() * reason.bit for reason, value in excess.items())
    return sum(excess.values()), bits
