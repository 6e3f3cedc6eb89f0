"""The published designs that this explorer answers to, by their own convention and by ours.

Source: Ganti & Xu, arXiv 2604.07526 (2026): Llama 3.1 8B, FP16 weights, batch 3, sequence 2,048, high performance.
Their convention is an analytical estimate: a compute-bound ceiling times 1.56 for speculative decoding. Ours asks what
the mesh's multipliers, its memories and a reticle allow, and what the nearest design of this generator would do.
"""

from dataclasses import dataclass

from explore.evaluate import Evaluation, evaluate_design
from explore.floors import Claim, broken
from explore.node import node
from explore.scenario import Scenario
from explore.workload import Workload
from hwgen.design import Design, TileClass

BATCH, SEQUENCE, SPECULATION = 3, 2048, 1.56
SRAM_MB = 110
"""Data memory of the 3 nm design; the paper gives no other, so tiles are taken to have the same share at all nodes."""
WEIGHT_BITS = 16
VLEN_BITS = 2048
"""The widest vector unit of the paper's range, two FP16 multiplies in 32 bits: an upper bound of what a tile does."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table."""

    nm: int
    width: int
    height: int
    mhz: float
    watts: float
    mm2: float
    tok_s: float


PAPER_ROWS = (
    PaperRow(3, 41, 42, 1000, 51.4, 648, 29809), PaperRow(5, 39, 39, 820, 57.2, 929, 21612),
    PaperRow(7, 33, 34, 570, 46.2, 1220, 11115), PaperRow(10, 26, 27, 520, 25.1, 1572, 6388),
    PaperRow(14, 21, 22, 400, 14.2, 1992, 3264), PaperRow(22, 16, 16, 250, 7.1, 2882, 1155),
    PaperRow(28, 11, 12, 250, 3.8, 3545, 623))

SILICON = "Taalas HC1, silicon, N6, 3- and 6-bit weights in mask ROM: 815 mm2, 16,960 tok/s per user, 200 to 250 W"
"""The chip that runs the same model (the maker's figures, 2026)."""


@dataclass(frozen=True)
class Comparison:
    """One row by both conventions.

    `without_speculation`: their tokens/s without the factor, all sequences; `per_sequence` of that. `implied_fj_bit`:
    energy a weight bit that their power leaves if it all went into reading weights. `broken`: floors that the row
    breaks. `ours`: the same mesh and clock, the workload's weight formats and one sequence, as this generator would
    build it.
    """

    row: PaperRow
    without_speculation: float
    per_sequence: float
    implied_fj_bit: float
    broken: tuple[str, ...]
    ours: Evaluation
    design: Design


def compare(row: PaperRow, workload: Workload, *, rom_anchor: str = "macro") -> Comparison:
    """A row of the paper for `workload` (Llama 3.1 8B) by both conventions."""
    tiles = row.width * row.height
    bare = row.tok_s / SPECULATION
    macs = workload.macs_per_token(SEQUENCE // 2)
    claim = Claim(
        tok_s=row.tok_s, watts=row.watts, mm2=row.mm2, mhz=row.mhz, macs_per_cycle=tiles * VLEN_BITS / WEIGHT_BITS,
        weight_bits=WEIGHT_BITS, sram_bits=SRAM_MB * 8e6 * tiles / (PAPER_ROWS[0].width * PAPER_ROWS[0].height),
        kv_bits=8 * workload.kv_bytes_fp16 * SEQUENCE, streams=BATCH)
    design = Design(row.width, row.height, flit_bits=256, buffer_flits=8, clock_mhz=row.mhz,
                    classes=(TileClass("t", fetch=2, stations=4, vlen=VLEN_BITS // WEIGHT_BITS, lanes=16),))
    scenario = Scenario(workload, row.nm, context=SEQUENCE, rom_anchor=rom_anchor)
    bits = workload.parameters * WEIGHT_BITS
    return Comparison(
        row=row, without_speculation=bare, per_sequence=bare / BATCH,
        implied_fj_bit=row.watts / (bits * row.tok_s / BATCH) * 1e15,
        broken=tuple(broken(claim, workload.parameters, macs, node(row.nm), rom_anchor)),
        ours=evaluate_design(design, scenario), design=design)
