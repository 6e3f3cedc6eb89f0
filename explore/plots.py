"""The plots of a search as SVG: power over speed, and the best score over evaluations.

Colours are those of the report's page, light or dark; a file on its own has the light ones.
"""

from math import ceil, floor, log10

import numpy as np

from explore.amounts import amount, plain
from explore.goal import INFEASIBLE, VIOLATION
from explore.search import Search

SHOWN = 1500
"""Designs that are drawn besides the front, at most."""
_WIDTH, _LEFT, _TOP = 760, 78, 12
_STYLE = """
.plot text { font: 11px sans-serif; fill: var(--soft, #566072); } .plot .back { fill: var(--card, #fff); }
.plot .grid { stroke: var(--line, #dfe3ea); } .plot .frame { fill: none; stroke: var(--soft, #566072); }
.plot .seen { fill: var(--soft, #566072); opacity: .35; }
.plot .chosen { fill: none; stroke: var(--ink, #1b2330); stroke-width: 2; }
.plot .line { fill: none; stroke: var(--mac, #2f6fde); stroke-width: 2; }
"""


def log_ticks(low: float, high: float) -> list[float]:
    """Values between 10^low and 10^high to label, at least three: 1-2-5, or decades where those are many, or even."""
    def within(mantissas):
        values = [m * 10.0**e for e in range(floor(low), ceil(high) + 1) for m in mantissas]
        return [v for v in values if low <= log10(v) <= high]

    found = within((1, 2, 5))
    if len(found) > 13:
        return within((1,))
    return found if len(found) >= 3 else even_ticks(10**low, 10**high)


def even_ticks(low: float, high: float) -> list[float]:
    """Three to six round values from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** floor(log10(high - low))
    for step in (2 * power, power, power / 2, power / 5):
        numbers = range(ceil(low / step), floor(high / step) + 1)
        if len(numbers) >= 3:
            break
    return [n * step for n in numbers]


def front_svg(search: Search) -> str:
    """Power over speed of all designs within limits and budgets: the front coloured by die area, the chosen ringed."""
    points = search.judged[:, :3].double().numpy() / np.log(10)
    feasible = (search.judged[:, VIOLATION] <= 0).nonzero().squeeze(1).tolist()
    if not feasible:
        return ""
    low, high = points[feasible].min(0) - 0.05, points[feasible].max(0) + 0.05
    frame = _Frame((low[0], high[0]), (low[1], high[1]), height=450, bottom=96)
    frame.axes({log10(v): plain(v) for v in log_ticks(low[0], high[0])}, "speed (tokens/s of all streams), log scale",
               {log10(v): amount(v, "W") for v in log_ticks(low[1], high[1])}, "power (W), log scale")
    for i in feasible[:: max(1, len(feasible) // SHOWN)]:
        u, v = frame.at(*points[i][:2])
        frame.marks.append(f'<circle class="seen" cx="{u:.1f}" cy="{v:.1f}" r="1.4"/>')
    least, most = points[search.front, 2].min(), points[search.front, 2].max()
    for i in sorted(search.front):
        (u, v), (speed, power, area) = frame.at(*points[i][:2]), 10 ** points[i]
        shade = _shade((points[i][2] - least) / max(most - least, 1e-9))
        frame.marks.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="3.4" fill="{shade}"><title>{plain(speed)} tok/s, '
                           f'{amount(power, "W")}, {amount(area, "mm2")}</title></circle>')
    if search.feasible:
        u, v = frame.at(*points[search.best][:2])
        frame.marks.append(f'<circle class="chosen" cx="{u:.1f}" cy="{v:.1f}" r="7"/>')
    frame.shades("die area (mm2), log scale", [plain(10**a, 3) for a in (least, (least + most) / 2, most)])
    return frame.svg()


def progress_svg(search: Search) -> str:
    """Best score over evaluations; nothing where no design was feasible, or the last alone."""
    best = np.maximum.accumulate(search.scores.double().numpy())
    start = int((best > INFEASIBLE).argmax())
    if best[-1] <= INFEASIBLE or start == len(best) - 1:
        return ""
    steps = [i for i in range(start, len(best)) if i == start or best[i] > best[i - 1]] + [len(best) - 1]
    margin = max(0.05 * (best[-1] - best[start]), 1e-3)
    low, high, end = best[start] - margin, best[-1] + margin, log10(len(best))
    frame = _Frame((0, end), (low, high), height=210)
    frame.axes({log10(v): plain(v) for v in log_ticks(0, end)}, "evaluations, log scale",
               {v: f"{v:.6g}" for v in even_ticks(low, high)}, "best score")
    path = ""
    for i in steps:
        u, v = frame.at(log10(i + 1), best[i])
        path += f"H{u:.1f}V{v:.1f}" if path else f"M{u:.1f} {v:.1f}"
    frame.marks.append(f'<path class="line" d="{path}"/>')
    return frame.svg()


def _shade(share: float) -> str:
    """From blue for the least to orange for the most, of a lightness that stands out from light and dark pages."""
    return f"hsl({(215 + 170 * share) % 360:.0f} 75% 55%)"


class _Frame:
    """A plot under way: marks in a rectangle over `x` and `y`, (low, high) each; `bottom`: pixels below it."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int, bottom: int = 44):
        self.x, self.y, self.height, self.marks = x, y, height, []
        self.right, self.low = _WIDTH - 16, height - bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels."""
        (x0, x1), (y0, y1) = self.x, self.y
        return (_LEFT + (x - x0) / (x1 - x0) * (self.right - _LEFT),
                self.low - (y - y0) / (y1 - y0) * (self.low - _TOP))

    def axes(self, across: dict[float, str], across_title: str, up: dict[float, str], up_title: str):
        """Grid lines with labels, {where: label}, and the axes with their titles."""
        for where, label in across.items():
            u, _ = self.at(where, self.y[0])
            self.marks.append(f'<path class="grid" d="M{u:.1f} {self.low}V{_TOP}"/>')
            self._text(u, self.low + 15, "middle", label)
        for where, label in up.items():
            _, v = self.at(self.x[0], where)
            self.marks.append(f'<path class="grid" d="M{_LEFT} {v:.1f}H{self.right}"/>')
            self._text(_LEFT - 6, v + 4, "end", label)
        self.marks.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{self.low}H{self.right}"/>')
        self._text((_LEFT + self.right) / 2, self.low + 33, "middle", across_title)
        middle = (self.low + _TOP) / 2
        self._text(12, middle, "middle", up_title, f' transform="rotate(-90 12 {middle:.1f})"')

    def shades(self, title: str, labels: list[str]):
        """The scale of `_shade` below the plot, with labels at even distances."""
        top, left, width = self.low + 52, _LEFT + 190, 300
        self._text(left - 10, top + 10, "end", title)
        for i in range(60):
            self.marks.append(f'<rect x="{left + i * width / 60:g}" y="{top}" width="{width / 60 + 0.3:g}" height="12" '
                              f'fill="{_shade(i / 59)}"/>')
        for place, label in enumerate(labels):
            self._text(left + place * width / (len(labels) - 1), top + 26, "middle", label)

    def _text(self, u, v, anchor, text, more=""):
        self.marks.append(f'<text x="{u:.1f}" y="{v:.1f}" text-anchor="{anchor}"{more}>{text}</text>')

    def svg(self) -> str:
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_WIDTH} {self.height}">'
                f'<style>{_STYLE}</style><rect class="back" width="{_WIDTH}" height="{self.height}"/>'
                f'{"".join(self.marks)}</svg>')
