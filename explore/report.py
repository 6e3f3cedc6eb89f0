"""report.html of a search: one file, no network. And the Pareto front as CSV, and every evaluation as JSONL."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from explore.amounts import amount, column, plain
from explore.evaluate import Evaluation
from explore.floors import floors
from explore.formats import format_note
from explore.goal import VIOLATION
from explore.node import RETICLE_MM2, ROM_ANCHORS
from explore.paper_design import SILICON
from explore.plots import front_svg, progress_svg
from explore.search import Search
from explore.tile_map import TileMap, deviation, tile_map
from hwgen.design import Design
from hwgen.formats import RUN
from hwgen.template_files import environment

MAPPED_TILES = 1764
"""Tiles of the largest mesh that is drawn and checked tile by tile; that takes seconds, and more for larger ones."""
_OUTCOME = ("tok_s", "power_w", "area_mm2", "latency_s")
_SERIES = ("#2f6fde", "#2a9d74", "#e8a33d", "#d4574e", "#8b5cf6", "#c2410c", "#0e7490", "#a3a3a3", "#7c6f2d")


def figures_of(result: Evaluation, index: int = 0) -> dict:
    """Plain numbers of one design."""
    names = ("tok_s", "tok_s_stream", "latency_s", "ttft_s", "cycles", "power", "area", "energy_per_token", "cost",
             "cost_per_mtok", "floor_power", "peak_tok_s")
    return {name: float(getattr(result, name)[index]) for name in names} | {
        "feasible": bool(result.feasible[index]), "reasons": result.reasons_of(index),
        **{parts: {k: float(v[index]) for k, v in getattr(result, parts).items()}
           for parts in ("power_parts", "area_parts", "cycle_parts")}}


def evaluations_jsonl(searches: Iterable[Search]):
    """A line for every evaluation, node by node in order: its knobs, outcome, violation (budgets too) and score."""
    for place, search in enumerate(searches):
        if not place:
            labels = search.problem.codec.labels()
            yield json.dumps({"format": RUN.mark, "knobs": labels, "encoding": "action of explore.action.Codec"}) + "\n"
        rows = zip(search.actions.tolist(), search.judged.tolist(), search.scores.tolist(), strict=True)
        for number, (action, outcome, value) in enumerate(rows):
            linear = {name: float(f"{np.exp(x):.6g}") for name, x in zip(_OUTCOME, outcome, strict=False)}
            yield json.dumps({"node": search.problem.scenario.nm, "n": number, **linear,
                              "violation": float(f"{outcome[VIOLATION]:.6g}"), "score": round(value, 6),
                              "action": [round(x, 5) for x in action]}) + "\n"


def front_csv(search: Search) -> str:
    """The Pareto front of what is within all budgets, fastest first: outcome, then the design's knobs."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([*_OUTCOME, "streams", "pipeline_stages", "width", "height", "clock_mhz", "flit_bits", "classes"])
    for number in search.front:
        design = search.design(number)
        classes = " + ".join(f"{design.node_class.count(i)}x vlen {c.vlen} lanes {c.lanes} fetch {c.fetch}"
                             for i, c in enumerate(design.classes))
        outcome = [f"{np.exp(x):.6g}" for x in search.outcomes[number, :4].tolist()]
        rows.writerow([*outcome, design.streams, design.pipeline_stages, design.width, design.height,
                       f"{design.clock_mhz:g}", design.flit_bits, classes])
    return out.getvalue()


def nodes_table(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """(names of the columns, a list of cells for each row) of the nodes' figures, in units that suit each column."""
    def numbers(name, unit="", digits=4):
        return column([row[name] for row in rows], unit, digits)

    watts, joules = numbers("power", "W"), numbers("energy_per_token", "J", 3)
    dollars = numbers("cost_per_mtok", "USD", 3)
    columns = {
        "node": [str(row["node"]) for row in rows], "mesh": [f"{row['width']}x{row['height']}" for row in rows],
        "streams,\nstages": [f"{row['streams']}, {row['pipeline_stages']}" for row in rows],
        "MHz": numbers("clock_mhz")[1], "tok/s": numbers("tok_s")[1], "of one": numbers("tok_s_stream")[1],
        watts[0]: watts[1], "mm2": numbers("area")[1], f"{joules[0]}/\ntoken": joules[1],
        f"{dollars[0]}/\nMtok": dollars[1],
        "score": ["-" if row["score"] is None else f"{row['score']:.4f}" for row in rows],
        "fits": ["yes" if row["feasible"] else "no" for row in rows]}
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]


def report_html(search: Search, facts: dict, paper: list | None = None, scaling: list[dict] | None = None, *,
                choice: str = "", command: str = "") -> str:
    """The page. Same input, same bytes. `choice`: why this node of `scaling`; `command`: the line that makes it."""
    scenario = search.problem.scenario
    chosen = search.figures(search.best)
    design = search.design(search.best)
    maps = tile_map(design, scenario) if design.tiles <= MAPPED_TILES else None
    figures = figures_of(chosen)
    bars = {title: _shares(figures[key], unit) for title, key, unit in (
        ("Power", "power_parts", "W"), ("Area", "area_parts", "mm2"), ("Cycles of a step", "cycle_parts", "cycles"))}
    return environment().get_template("explore_report.html.j2").render(
        plain=plain, amount=amount, scenario=scenario, design=design, figures=figures, bars=bars, facts=facts,
        front=front_svg(search), front_size=len(search.front), maps=_heat_maps(maps) if maps else [],
        mapped_tiles=MAPPED_TILES, limits=limits(search, figures), deviation=_deviation(search, design, maps),
        progress=progress_svg(search), paper=paper or [], silicon=SILICON, choice=choice, command=command,
        scaling=nodes_table(scaling) if scaling else None, feasible=search.feasible,
        formats=format_note(scenario.workload.mxfp4))


def limits(search: Search, figures: dict) -> list[tuple[str, str]]:
    """(what bounds the design, how near it is)."""
    scenario, found = search.problem.scenario, []
    for name, value, limit, unit in (("power", figures["power"], scenario.power_max, "W"),
                                     ("area", figures["area"], scenario.area_max, "mm2"),
                                     ("latency", figures["latency_s"], scenario.latency_max, "s")):
        if limit is not None:
            found.append((f"budget of {name}", f"{amount(value, unit)} of {amount(limit, unit)}, {value / limit:.1%}"))
    area, least = figures["area"], floors(scenario)
    found.append(("one reticle", f"{amount(area, 'mm2')} of {RETICLE_MM2:g} mm2, {area / RETICLE_MM2:.1%}"))
    held = "weights and vision tower" if scenario.workload.vision else "weight ROM"
    found.append(("floor of area", f"{amount(least.weight_mm2, 'mm2')} of {held} and {amount(least.kv_mm2, 'mm2')} of "
                  f"cache of one sequence, {(least.weight_mm2 + least.kv_mm2) / area:.1%} of the die: no design is "
                  "below"))
    tok_s, peak = figures["tok_s"], figures["peak_tok_s"]
    found.append(("multipliers", f"{plain(tok_s)} of {plain(peak)} tok/s that they allow, {tok_s / peak:.1%}"))
    power, reading = figures["power"], figures["floor_power"]
    found.append(("reading weights and cache", f"{amount(reading, 'W')} of {amount(power, 'W')}, "
                  f"{reading / power:.1%}: at this speed no design is below"))
    found.append(("weight ROM", _rom_anchors(search, figures)))
    slowest = max(figures["cycle_parts"], key=figures["cycle_parts"].get)
    found.append(("time", f"the largest part of a step is {slowest.replace('_', ' ')}, "
                          f"{figures['cycle_parts'][slowest] / figures['cycles']:.1%}"))
    return found


def _rom_anchors(search, figures) -> str:
    """The die by the density of published ROM macros, which counts, and by that of the bare cell."""
    scenario = search.problem.scenario
    bare = replace(search.problem, scenario=replace(scenario, rom_anchor="cell"))
    dense = figures_of(bare.figures(search.actions[search.best:search.best + 1]))
    macro, cell = (scenario.node.rom_bits_mm2(anchor) / 1e6 for anchor in ROM_ANCHORS)
    weights, bare_weights = (f["area_parts"]["weights"] for f in (figures, dense))
    return (f"{amount(weights, 'mm2')} at the {macro:.4g} Mb/mm2 of a macro; at the {cell:.4g} Mb/mm2 of bare cells "
            f"{amount(bare_weights, 'mm2')}, and the die {amount(dense['area'], 'mm2')}")


_COMPARED = {"row": "busiest link along a row", "column": "busiest link along a column",
             "local": "busiest link into a tile", "matrix": "cycles of all matrix units"}


def _deviation(search: Search, design: Design, maps: TileMap | None) -> dict[str, float]:
    """What `deviation` says, in words; of links that the mesh has."""
    if maps is None:
        return {}
    off, missing = deviation(design, search.problem.scenario, maps), {"row": design.width, "column": design.height}
    return {words: off[name] for name, words in _COMPARED.items() if missing.get(name) != 1}


def _shares(parts: dict, unit: str) -> list[dict]:
    total = sum(parts.values())
    return [{"name": name.replace("_", " "), "value": amount(value, unit, 3), "share": 100 * value / total,
             "colour": _SERIES[i % len(_SERIES)]} for i, (name, value) in enumerate(parts.items()) if value]


def _heat_maps(maps: TileMap) -> list[dict]:
    links = np.zeros(maps.load.shape)
    for (x, y, _), flits in maps.links.items():
        links[y, x] += flits
    wanted = (("WMEM, KiB", maps.wmem_kib), ("FETCH", maps.fetch), ("VLEN", maps.vlen), ("LANES", maps.lanes),
              ("Matrix load, cycles a token", maps.load), ("Flits through the router a token", links))
    return [{"title": title, "svg": _heat(values) if values.min() < values.max() else "",
             "low": plain(float(values.min())), "high": plain(float(values.max()))} for title, values in wanted]


def _heat(values: np.ndarray) -> str:
    """Values [height, width] that differ, as squares, the larger the darker."""
    height, width = values.shape
    low, high = float(values.min()), float(values.max())
    cell = 240 / max(width, height)
    boxes = []
    for y in range(height):
        for x in range(width):
            share = (values[y, x] - low) / (high - low)
            boxes.append(f'<rect x="{x * cell:.2f}" y="{y * cell:.2f}" width="{cell * 0.96:.2f}" '
                         f'height="{cell * 0.96:.2f}" fill="hsl(215 65% {88 - 53 * share:.0f}%)">'
                         f"<title>{x},{y}: {values[y, x]:.6g}</title></rect>")
    size = f"{width * cell:.1f}", f"{height * cell:.1f}"
    return (f'<svg viewBox="0 0 {size[0]} {size[1]}" style="width:{size[0]}px;height:{size[1]}px">{"".join(boxes)}'
            "</svg>")
