"""Process nodes: the figures of `nodes.json`, each with its unit and source, and what follows from them.

Transistor energies and areas of a chip are counted in units that do not depend on the node (gate equivalents, bits,
pJ at 45 nm); a `Node` turns them into mm2, W and USD.
"""

import json
from dataclasses import dataclass
from functools import cache
from math import pi, sqrt
from pathlib import Path

from hwgen.errors import HwgenError

RETICLE_MM2 = 830.0
"""Largest die: one exposure field of 26 x 33 mm less its borders."""
WAFER_MM = 300.0
ROM_ANCHORS = ("macro", "cell")
"""Density of weight ROM: a published macro, or the bare cell, which no array reaches."""


@dataclass(frozen=True)
class Figure:
    """What one number of the table means and where it is from; `interpolated`: nodes without a published value."""

    unit: str
    source: str
    values: dict[int, float]
    interpolated: frozenset[int]


@dataclass(frozen=True)
class Node:
    """A process node of `nm` nanometres. Units are those of the table."""

    nm: int
    logic_mtr_mm2: float
    logic_utilisation: float
    sram_cell_um2: float
    sram_efficiency: float
    rom_macro_mb_mm2: float
    rom_cell_share: float
    energy_scale: float
    rom_fj_bit: float
    leakage_pw_gate: float
    leakage_pw_sram_bit: float
    leakage_pw_rom_bit: float
    vdd: float
    wafer_usd: float
    defects_cm2: float
    delay_scale: float

    @property
    def gates_mm2(self) -> float:
        """NAND2 equivalents of four transistors in a mm2 of placed logic."""
        return self.logic_mtr_mm2 * 1e6 / 4 * self.logic_utilisation

    @property
    def sram_bits_mm2(self) -> float:
        """Bits in a mm2 of SRAM macros."""
        return 1e6 / self.sram_cell_um2 * self.sram_efficiency

    def rom_bits_mm2(self, anchor: str = "macro") -> float:
        """Bits in a mm2 of weight ROM, by the macro or by the bare cell without any periphery."""
        if anchor not in ROM_ANCHORS:
            raise HwgenError(f"ROM anchor must be {' or '.join(ROM_ANCHORS)}, not {anchor!r}")
        if anchor == "macro":
            return self.rom_macro_mb_mm2 * 1e6
        return 1e6 / (self.sram_cell_um2 * self.rom_cell_share)

    def good_dies(self, mm2):
        """Good dies of a wafer: area over area less the rim, times Murphy's yield. Takes numbers and tensors."""
        loss = mm2 / 100 * self.defects_cm2
        yielded = ((1 - 2.718281828459045 ** -loss) / loss) ** 2
        gross = pi * (WAFER_MM / 2) ** 2 / mm2 - pi * WAFER_MM / sqrt(2) / mm2**0.5
        return gross * yielded


@cache
def figures() -> dict[str, Figure]:
    """Name -> figure for every row of the table."""
    rows = json.loads(Path(__file__).with_name("nodes.json").read_text("utf-8"))["figures"]
    return {
        name: Figure(row["unit"], row["source"], {int(nm): value for nm, value in row["values"].items()},
                     frozenset(int(nm) for nm in row["interpolated"]))
        for name, row in rows.items()}


@cache
def node_sizes() -> tuple[int, ...]:
    """Nodes of the table in nm, the coarsest first."""
    return tuple(sorted(next(iter(figures().values())).values, reverse=True))


@cache
def node(nm: int) -> Node:
    """The node of `nm` nanometres. Raises HwgenError for one that the table lacks."""
    if nm not in node_sizes():
        raise HwgenError(f"Node must be {', '.join(map(str, node_sizes()[:-1]))} or {node_sizes()[-1]} nm, not {nm!r}")
    return Node(nm, **{name: figure.values[nm] for name, figure in figures().items()})
