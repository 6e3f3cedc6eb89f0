"""report.html of a search: one file, no network. And the Pareto front as CSV and SVG, and every evaluation as JSONL."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from math import log10

import numpy as np

from explore.evaluate import Evaluation
from explore.floors import floors
from explore.formats import format_note
from explore.goal import INFEASIBLE, VIOLATION
from explore.node import RETICLE_MM2, ROM_ANCHORS
from explore.paper_design import SILICON
from explore.search import Search
from explore.tile_map import TileMap, deviation, tile_map
from hwgen.template_files import environment

MAPPED_TILES = 1764
"""Tiles of the largest mesh that is drawn and checked tile by tile; that takes seconds, and more for larger ones."""
_OUTCOME = ("tok_s", "power_w", "area_mm2", "latency_s")
_SERIES = ("#2f6fde", "#2a9d74", "#e8a33d", "#d4574e", "#8b5cf6", "#c2410c", "#0e7490", "#a3a3a3", "#7c6f2d")


def plain(value: float, digits: int = 4) -> str:
    """A figure as people read it: 86,196 or 0.2533."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{digits}g}"


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
            yield json.dumps({"knobs": labels, "encoding": "action of explore.action.Codec"}) + "\n"
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


def front_svg(search: Search) -> str:
    """Power over speed of all designs within limits and budgets: the front in colour, darker for a larger die.

    The chosen one is ringed.
    """
    points = search.judged[:, :3].numpy() / np.log(10)
    feasible = (search.judged[:, VIOLATION] <= 0).nonzero().squeeze(1).tolist()
    if not feasible:
        return ""
    x, y, area = points[feasible].T
    (x0, x1), (y0, y1), (a0, a1) = ((v.min() - 0.05, v.max() + 0.05) for v in (x, y, area))
    width, height, left = 760, 420, 64

    def place(p):
        return left + (p[0] - x0) / (x1 - x0) * (width - left - 40), (height - 40) * (1 - (p[1] - y0) / (y1 - y0)) + 5

    shown = feasible[:: max(1, len(feasible) // 1500)]
    marks = [f'<circle cx="{u:.1f}" cy="{v:.1f}" r="1.4" fill="#9aa5b5" opacity=".5"/>'
             for u, v in (place(points[i]) for i in shown)]
    for i in sorted(search.front):
        (u, v), shade = place(points[i]), (points[i][2] - a0) / (a1 - a0)
        marks.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="3.4" fill="hsl(215 70% {72 - 45 * shade:.0f}%)">'
                     f"<title>{10**points[i][0]:.4g} tok/s, {10**points[i][1]:.4g} W, {10**points[i][2]:.4g} mm2"
                     "</title></circle>")
    u, v = place(points[search.best])
    if search.feasible:
        marks.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="7" fill="none" stroke="#d4574e" stroke-width="2.5"/>')
    for low, high, across in ((x0, x1, True), (y0, y1, False)):
        for tick in range(int(np.ceil(low)), int(np.floor(high)) + 1):
            u, v = place((tick, y0) if across else (x0, tick))
            text = f"{10.0**tick:g}"
            marks.append(f'<text x="{u:.1f}" y="{height - 18}" text-anchor="middle">{text}</text>' if across else
                         f'<text x="{left - 8}" y="{v + 4:.1f}" text-anchor="end">{text}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            f'font-size="11" fill="#667085">{"".join(marks)}'
            f'<text x="{width - 10}" y="{height - 4}" text-anchor="end">tokens/s</text>'
            '<text x="4" y="12">W</text></svg>')


def report_html(search: Search, facts: dict, paper: list | None = None, scaling: list[dict] | None = None) -> str:
    """The page. Same input, same bytes."""
    scenario = search.problem.scenario
    chosen = search.figures(search.best)
    design = search.design(search.best)
    maps = tile_map(design, scenario) if design.tiles <= MAPPED_TILES else None
    figures = figures_of(chosen)
    bars = {title: _shares(figures[key], unit) for title, key, unit in (
        ("Power", "power_parts", "W"), ("Area", "area_parts", "mm2"), ("Cycles of a step", "cycle_parts", "cycles"))}
    return environment().get_template("explore_report.html.j2").render(
        plain=plain, scenario=scenario, design=design, figures=figures, bars=bars, facts=facts,
        front=front_svg(search), front_size=len(search.front), maps=_heat_maps(maps) if maps else [],
        mapped_tiles=MAPPED_TILES,
        limits=limits(search, figures), deviation=deviation(design, scenario, maps) if maps else {},
        progress=_progress(search), paper=paper or [], silicon=SILICON, scaling=scaling or [], feasible=search.feasible,
        formats=format_note(scenario.workload.mxfp4))


def limits(search: Search, figures: dict) -> list[tuple[str, str]]:
    """(what bounds the design, how near it is)."""
    scenario, found = search.problem.scenario, []
    for name, value, limit, unit in (("power", figures["power"], scenario.power_max, "W"),
                                     ("area", figures["area"], scenario.area_max, "mm2"),
                                     ("latency", figures["latency_s"], scenario.latency_max, "s")):
        if limit is not None:
            found.append((f"budget of {name}", f"{value:.4g} of {limit:.4g} {unit}, {value / limit:.1%}"))
    area, least = figures["area"], floors(scenario)
    found.append(("one reticle", f"{area:.4g} of {RETICLE_MM2:g} mm2, {area / RETICLE_MM2:.1%}"))
    found.append(("floor of area", f"{least.weight_mm2:.4g} mm2 of weight ROM and {least.kv_mm2:.4g} mm2 of cache of "
                  f"one sequence, {(least.weight_mm2 + least.kv_mm2) / area:.1%} of the die: no design is below"))
    tok_s, peak = figures["tok_s"], figures["peak_tok_s"]
    found.append(("multipliers", f"{plain(tok_s)} of {plain(peak)} tok/s that they allow, {tok_s / peak:.1%}"))
    found.append(("reading weights and cache", f"{figures['floor_power']:.4g} W of {figures['power']:.4g} W, "
                  f"{figures['floor_power'] / figures['power']:.1%}: at this speed no design is below"))
    found.append(("weight ROM", _rom_anchors(search, figures)))
    slowest = max(figures["cycle_parts"], key=figures["cycle_parts"].get)
    found.append(("time", f"{slowest.replace('_', ' ')} takes most of a step, "
                          f"{figures['cycle_parts'][slowest] / figures['cycles']:.1%}"))
    return found


def _rom_anchors(search, figures) -> str:
    """The die by the density of published ROM macros, which counts, and by that of the bare cell."""
    scenario = search.problem.scenario
    bare = replace(search.problem, scenario=replace(scenario, rom_anchor="cell"))
    dense = figures_of(bare.figures(search.actions[search.best:search.best + 1]))
    macro, cell = (scenario.node.rom_bits_mm2(anchor) / 1e6 for anchor in ROM_ANCHORS)
    weights, bare_weights = (f["area_parts"]["weights"] for f in (figures, dense))
    return (f"{weights:.4g} mm2 at the {macro:.4g} Mb/mm2 of a macro; at the {cell:.4g} Mb/mm2 of bare cells "
            f"{bare_weights:.4g} mm2, and the die {dense['area']:.4g} mm2")


def _shares(parts: dict, unit: str) -> list[dict]:
    total = sum(parts.values())
    return [{"name": name.replace("_", " "), "value": f"{plain(value, 3)} {unit}", "share": 100 * value / total,
             "colour": _SERIES[i % len(_SERIES)]} for i, (name, value) in enumerate(parts.items())]


def _heat_maps(maps: TileMap) -> list[dict]:
    links = np.zeros(maps.load.shape)
    for (x, y, _), flits in maps.links.items():
        links[y, x] += flits
    wanted = (("WMEM, KiB", maps.wmem_kib), ("FETCH", maps.fetch), ("VLEN", maps.vlen), ("LANES", maps.lanes),
              ("Matrix load, cycles a token", maps.load), ("Flits through the router a token", links))
    return [{"title": title, "svg": _heat(values), "low": plain(values.min()), "high": plain(values.max())}
            for title, values in wanted]


def _heat(values: np.ndarray) -> str:
    height, width = values.shape
    low, high = float(values.min()), float(values.max())
    cell = 240 / max(width, height)
    boxes = []
    for y in range(height):
        for x in range(width):
            share = (values[y, x] - low) / (high - low) if high > low else 0.5
            boxes.append(f'<rect x="{x * cell:.2f}" y="{y * cell:.2f}" width="{cell * 0.96:.2f}" '
                         f'height="{cell * 0.96:.2f}" fill="hsl(215 65% {88 - 53 * share:.0f}%)">'
                         f"<title>{x},{y}: {values[y, x]:.6g}</title></rect>")
    size = f"{width * cell:.1f}", f"{height * cell:.1f}"
    return (f'<svg viewBox="0 0 {size[0]} {size[1]}" style="width:{size[0]}px;height:{size[1]}px">{"".join(boxes)}'
            "</svg>")


def _progress(search: Search) -> str:
    """Best score over evaluations, on a logarithmic axis."""
    best = np.maximum.accumulate(search.scores.numpy())
    start = int((best > INFEASIBLE).argmax())
    if best[-1] <= INFEASIBLE or start == len(best) - 1:
        return ""
    steps = [i for i in range(start, len(best)) if i == start or best[i] > best[i - 1]] + [len(best) - 1]
    low, high = best[start], best[-1] + 1e-9
    scale = log10(len(best))
    path = []
    for i in steps:
        x, y = 40 + 700 * log10(i + 1) / scale, 150 - 140 * (best[i] - low) / (high - low + 1e-9)
        path.append(f"{'H' if path else 'M'}{x:.1f}{'V' if path else ' '}{y:.1f}")
    ticks = "".join(f'<text class="axis" x="{40 + 700 * k / scale:.0f}" y="168" text-anchor="middle">{10**k}</text>'
                    for k in range(int(scale) + 1))
    return (f'<svg viewBox="0 0 760 172"><path d="{"".join(path)}" fill="none" stroke="#2f6fde" stroke-width="2"/>'
            f'{ticks}<text class="axis" x="0" y="14">{high:.3f}</text><text class="axis" x="0" y="150">{low:.3f}</text>'
            "</svg>")
