"""Inline SVG figures of the report. Colours are CSS classes of the page, which follow its light or dark theme."""

from itertools import groupby

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1000, 200, 56, 24, 18
RESOLUTION = 4000
"""Horizontal steps of a timeline; gaps below one step are closed, which bounds the size of the page."""


def token_bars(cycles: list[int], bounds: list[float], labels: list[str]) -> Markup:
    """Bars of cycles per token with a line for the bound. The first bar covers the prompt and may be cut off."""
    rest = cycles[1:] or cycles
    top = 1.12 * max(*rest, *(bounds[1:] or bounds), 1)
    plot = HEIGHT - BOTTOM - TOP
    step = (WIDTH - LEFT) / max(len(cycles), 8)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Cycles per token">']
    for value in _ticks(top):
        y = TOP + plot * (1 - value / top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,}</text>')
    line = []
    for i, (value, bound, label) in enumerate(zip(cycles, bounds, labels, strict=True)):
        x, width = LEFT + i * step, max(step * 0.78, 0.6)
        height = plot * min(value / top, 1)
        cut = value > top
        parts.append(f'<rect class="bar{" cut" if cut else ""}" x="{x:.1f}" y="{TOP + plot - height:.1f}" '
                     f'width="{width:.1f}" height="{height:.1f}"><title>{escape(label)}: {value:,} cycles, '
                     f'bound {bound:,.0f}</title></rect>')
        if cut:
            parts.append(f'<text class="axis" x="{x:.1f}" y="{TOP - 5}">{value:,} ↑ prompt</text>')
        y = TOP + plot * (1 - min(bound / top, 1))
        line.append(f"M{x:.1f} {y:.1f}h{width:.1f}")
    every = max(1, -(-len(cycles) // 16))
    for i in range(0, len(cycles), every):
        parts.append(f'<text class="axis" x="{LEFT + i * step + step * 0.39:.1f}" y="{HEIGHT - 8}" '
                     f'text-anchor="middle">{i + 1}</text>')
    parts.append(f'<path class="bound" d="{"".join(line)}"/></svg>')
    return Markup("".join(parts))


def _ticks(top: float) -> list[int]:
    """Round values from 0, at most seven."""
    unit = next(step * 10**power for power in range(12) for step in (1, 2, 5) if top <= 6 * step * 10**power)
    return [unit * i for i in range(int(top / unit) + 1)]


def timeline_lane(intervals: list[tuple[float, float]], begin: float, end: float, unit: str) -> Markup:
    """One unit's busy intervals between `begin` and `end` cycles, as a strip that stretches to any width."""
    scale = RESOLUTION / max(end - begin, 1)
    path = "".join(f"M{a} 0H{b}V10H{a}z" for a, b in _merged(intervals, begin, scale))
    return Markup(f'<svg class="lane {escape(unit)}" viewBox="0 0 {RESOLUTION} 10" preserveAspectRatio="none">'
                  f'<path d="{path}"/></svg>')


def _merged(intervals, begin, scale) -> list[list[int]]:
    merged: list[list[int]] = []
    for start, stop in sorted(intervals):
        a = int((start - begin) * scale)
        b = max(a + 1, round((stop - begin) * scale))
        if merged and a <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], b)
        else:
            merged.append([a, b])
    return merged


def tile_lanes(timeline: list[dict], limit: int) -> dict:
    """Lanes of the first `limit` tiles: {begin, end, tiles: [{x, y, lanes: [{unit, busy, svg}]}], left_out}."""
    begin, end = min(i["start"] for i in timeline), max(i["stop"] for i in timeline)

    def place(interval):
        return interval["y"], interval["x"]

    tiles = []
    for (y, x), group in groupby(sorted(timeline, key=place), key=place):
        own = list(group)
        lanes = []
        for unit in ("matrix", "vector", "send"):
            spans = [(i["start"], i["stop"]) for i in own if i["unit"] == unit]
            lanes.append({"unit": unit, "busy": sum(b - a for a, b in spans) / max(end - begin, 1), "spans": spans})
        tiles.append({"x": x, "y": y, "lanes": lanes})
    for tile in tiles[:limit]:
        for lane in tile["lanes"]:
            lane["svg"] = timeline_lane(lane.pop("spans"), begin, end, lane["unit"])
    return {"begin": begin, "end": end, "tiles": tiles[:limit], "left_out": max(0, len(tiles) - limit)}


def curve_plot(series: list[tuple[str, int, list[tuple[float, float]]]], x_label: str, y_label: str) -> Markup:
    """Lines through (x, y) points, one for each (name, colour number, points); y is cut at six times the lowest."""
    points = [point for _, _, line in series for point in line]
    if not points:
        return Markup('<p class="soft">No packet was measured.</p>')
    height, bottom = 320, 40
    right = 1.04 * max(x for x, _ in points)
    top = min(1.08 * max(y for _, y in points), 6 * max(min(y for _, y in line) for _, _, line in series if line))
    plot = height - bottom - TOP

    def place(x, y):
        return f"{LEFT + (WIDTH - LEFT) * x / right:.1f}", f"{TOP + plot * (1 - y / top):.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">']
    for value in _ticks(top):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
                     f'<text class="axis" x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:,}</text>')
    for value in _ticks(1000 * right):
        x, _ = place(value / 1000, 0)
        parts.append(f'<text class="axis" x="{x}" y="{height - bottom + 16}" text-anchor="middle">{value / 1000:g}'
                     "</text>")
    parts.append(f'<text class="axis" x="{WIDTH}" y="{height - 6}" text-anchor="end">{escape(x_label)}</text>'
                 f'<text class="axis" x="{LEFT}" y="{TOP - 6}">{escape(y_label)}</text>')
    for name, colour, line in series:
        shown = [(x, min(y, top)) for x, y in line]
        path = "L".join(" ".join(place(x, y)) for x, y in shown)
        parts.append(f'<path class="curve s{colour}" d="M{path}"/>' if shown else "")
        for (x, y), (_, cut) in zip(line, shown, strict=True):
            at_x, at_y = place(x, cut)
            parts.append(f'<circle class="s{colour}{" cut" if cut < y else ""}" cx="{at_x}" cy="{at_y}" r="3.5">'
                         f"<title>{escape(name)}: load {x:.3f}, {y:,.1f} cycles</title></circle>")
    return Markup("".join([*parts, "</svg>"]))
