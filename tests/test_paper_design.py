"""The paper's designs by both conventions, the floors that a claim may break, and what a token costs."""

from dataclasses import replace
from math import pi, sqrt

import pytest
import torch
from explore_designs import design, scenario

import explore.command
from explore.action import Codec
from explore.command import explore as run
from explore.command import paper_rows, parse_nodes
from explore.evaluate import evaluate_design
from explore.floors import Claim, broken
from explore.goal import score
from explore.node import node
from explore.paper_design import PAPER_ROWS, compare
from explore.search import Search
from explore.space import Space
from explore.workload import read_workload

torch.set_num_threads(1)
# nm: mesh, MHz, W, mm2 and tokens/s of three sequences, as the paper prints them
TABLE = {
    3: ("41x42", 1000, 51.4, 648, 29809), 5: ("39x39", 820, 57.2, 929, 21612), 7: ("33x34", 570, 46.2, 1220, 11115),
    10: ("26x27", 520, 25.1, 1572, 6388), 14: ("21x22", 400, 14.2, 1992, 3264), 22: ("16x16", 250, 7.1, 2882, 1155),
    28: ("11x12", 250, 3.8, 3545, 623)}
# of the same mesh, 128 FP16 multiply-accumulates a tile and cycle, at 7,773,356,032 for a token at position 1,024:
# 8,030,261,248 parameters less an embedding of 128,256 x 4,096 and 65 gains of 4,096, and 2 x 32 x 32 x 128 x 1,025
# with the cache
PEAK = {3: 28355, 5: 20537, 7: 10531, 10: 6011, 14: 3043, 22: 1054, 28: 543}


@pytest.fixture(scope="module")
def llama():
    return read_workload("llama-3.1-8b")


def test_rows_are_those_of_the_paper():
    assert {r.nm: (f"{r.width}x{r.height}", r.mhz, r.watts, r.mm2, r.tok_s) for r in PAPER_ROWS} == TABLE


def test_the_row_of_3_nm_by_both_conventions(llama):
    both = compare(PAPER_ROWS[0], llama)
    assert both.without_speculation == pytest.approx(19108, abs=1) and both.per_sequence == pytest.approx(6369, abs=1)
    # 51.4 W over 8.03e9 weights of 16 bits, read 29,809 / 3 times a second
    assert both.implied_fj_bit == pytest.approx(40.3, abs=0.05)
    assert both.broken == (
        "tokens/s must be at most 28,355, the array's peak, not 29,809",
        "data memory must hold 805 MB of cache, not 110 MB",  # 3 sequences x 2,048 positions x 128 KiB
        "area must be at least 1,638 mm2, that of the weight ROM, not 648")  # 1.285e11 bits at 78.42 Mb/mm2
    # 1.285e11 bare cells, a third of 0.0199 um2 each
    assert compare(PAPER_ROWS[0], llama, rom_anchor="cell").broken[-1].startswith("area must be at least 852 mm2")


def test_what_each_row_breaks(llama):
    rows = {row.nm: compare(row, llama).broken for row in PAPER_ROWS}
    for nm, peak in PEAK.items():
        assert f"tokens/s must be at most {peak:,}, the array's peak, not {TABLE[nm][4]:,}" in rows[nm]
    over = {nm for nm, found in rows.items() if any("at most 830 mm2, one reticle" in line for line in found)}
    assert over == {nm for nm, row in TABLE.items() if row[3] > 830} and len(over) == 6
    assert all(any("MB of cache, not" in line for line in found) for found in rows.values())


def test_our_side_is_the_same_mesh_at_the_same_clock(llama):
    for row in PAPER_ROWS:
        both = compare(row, llama)
        ours = both.ours
        assert (both.design.width, both.design.height, both.design.clock_mhz) == (row.width, row.height, row.mhz)
        assert float(ours.peak_tok_s) == pytest.approx(PEAK[row.nm], abs=1) and ours.tok_s < ours.peak_tok_s
        assert ours.power > ours.floor_power
        # MXINT8 of all weights, 33 bytes for 32, by the same density as above
        least = 7.5e9 * 8 * 33 / 32 / (node(row.nm).rom_macro_mb_mm2 * 1e6)
        assert float(ours.area_parts["weights"]) > least


def test_the_table_of_both_is_for_the_papers_model_alone(llama):
    rows = paper_rows(llama)
    assert [row["node"] for row in rows] == list(TABLE) and paper_rows(read_workload("llama-3.2-1b")) == []
    first, last = (" | ".join(map(str, row.values())) for row in (rows[0], rows[-1]))
    for cell in ("41x42", "29,809, 51.4, 648", " 6,369 ", "at most 28,355, the array's peak", "805 MB of cache"):
        assert cell in first, cell
    assert "623, 3.8, 3,545" in last and "133" in last and "one reticle, not 3,545" in last


# a model of 1e9 parameters, as many multiply-accumulates a token and 8 bits a weight, at 7 nm: 10 fJ/bit, 57.8 Mb/mm2
HONEST = Claim(tok_s=1000, watts=0.0801, mm2=138.5, mhz=1000, macs_per_cycle=1000, weight_bits=8, sram_bits=8e6,
               kv_bits=8e6)


@pytest.mark.parametrize(("change", "sentence"), [
    ({}, None), ({"streams": 2, "kv_bits": 4e6, "watts": 0.0401}, None), ({"mm2": 830}, None),
    ({"tok_s": 1001, "watts": 1}, "tokens/s must be at most 1,000, the array's peak, not 1,001"),
    ({"watts": 0.0799}, "power must be at least 0.1 W, that of reading at 10 fJ/bit, not 0.0799 W (all of it would "
                        "leave 10 fJ/bit)"),
    ({"watts": 0.04}, "would leave 5 fJ/bit)"),
    ({"streams": 2}, "data memory must hold 2 MB of cache, not 1 MB"),
    ({"mm2": 138.3}, "area must be at least 138 mm2, that of the weight ROM, not 138"),
    ({"mm2": 831}, "area must be at most 830 mm2, one reticle, not 831"),
], ids=str)
def test_a_claim_breaks_a_floor_only_beyond_it(change, sentence):
    found = broken(replace(HONEST, **change), 10**9, 10**9, node(7))
    assert found == [] if sentence is None else len(found) == 1 and found[0].endswith(sentence)


def test_cost_of_a_token_by_hand():
    result, mm2 = evaluate_design(design(), scenario()), float(evaluate_design(design(), scenario()).area)
    loss = mm2 / 100 * 0.09  # defects of 7 nm
    good = (pi * 150**2 / mm2 - pi * 300 / sqrt(2 * mm2)) * ((1 - 2.718281828**-loss) / loss) ** 2
    assert float(result.cost) == pytest.approx(9346 / good, rel=1e-6)
    seconds = 1e6 / float(result.tok_s)  # of a die that lasts three years, 94,672,800 s, at 10 cents a kWh
    wanted = seconds * 9346 / good / 94_672_800 + seconds * float(result.power) / 1000 / 3600 * 0.10
    assert float(result.cost_per_mtok) == pytest.approx(wanted, rel=1e-6)


def test_the_node_is_chosen_by_cost_and_not_by_score(monkeypatch):
    """One small design on every node: finer ones score better, but their wafers cost more than its memories shrink."""
    codec = Codec(Space(side=4))
    actions = codec.actions(codec.space.encode(replace(design(vlen=32, lanes=4), width=2, height=2, node_class=(),
                                                       clock_mhz=50.0))[None])
    seen = {}

    def one_design(problem, *_, **__):
        outcomes = problem.outcomes(actions)
        found = Search(problem, actions, outcomes, score(outcomes, problem.goal), 0.0)
        seen[problem.scenario.nm] = float(found.scores[0]), float(found.figures(0).cost_per_mtok)
        return found

    monkeypatch.setattr(explore.command, "search", one_design)
    monkeypatch.setattr(explore.command, "_designer", lambda *_: (None, codec, codec.space))
    summary = run("smollm2-135m", nm=7, goal="low-power", nodes="28,22,14,10,7,5,3", context=256)
    assert list(seen) == parse_nodes("28,22,14,10,7,5,3")
    cheapest, best = (pick(seen, key=lambda nm: seen[nm][i]) for pick, i in ((min, 1), (max, 0)))
    assert summary["node"] == cheapest != best, seen
    assert summary["cost_per_mtok"] == seen[cheapest][1] < seen[best][1]
