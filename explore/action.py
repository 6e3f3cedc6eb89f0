"""Actions: the knobs of a design as the agent moves them, and the way to rows of a `Space` and back."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.canonical import canonical
from explore.networks import ActionShape
from explore.space import Space

_LOGARITHMIC = 16
"""Ordinals 1, 2, 3, ... with at least so many values move in the logarithm: a mesh of 3 and of 4 differ by a third."""


@dataclass(frozen=True)
class Part:
    """One knob of an action: its `label`, `kind` and `values`, in the order of its settings."""

    label: str
    kind: str
    values: tuple


class Codec:
    """Between actions [B, A] of an agent and designs [B, D] of a space.

    `layout`: the knobs of an action, by default those of the space that have more than one value. An agent that was
    trained before a knob existed leaves it at the space's first value; a setting that the space lacks is the nearest.
    """

    def __init__(self, space: Space, layout: tuple[Part, ...] | None = None):
        self.space = space
        knobs = {knob.label: knob for knob in space.knobs}
        self.layout = layout or tuple(Part(k.label, k.kind, tuple(k.values)) for k in space.knobs
                                      if k.kind == "continuous" or len(k.values) > 1)
        column = {knob.label: i for i, knob in enumerate(space.knobs)}
        self.ordinals = [p for p in self.layout if p.kind != "categorical"]
        self.categories = [p for p in self.layout if p.kind == "categorical"]
        self.shape = ActionShape(tuple(self._steps(p) for p in self.ordinals),
                                 tuple(len(p.values) for p in self.categories))
        self._columns = [column[p.label] for p in self.ordinals]
        self._category_columns = [column[p.label] for p in self.categories]
        self._counts = torch.tensor([float(len(p.values)) for p in self.ordinals])
        steps = torch.tensor(self.shape.steps)
        self._log, self._continuous = steps < 0, steps == 0
        self._places = _table([self._place(p, knobs[p.label]) for p in self.ordinals])
        self._parts = torch.tensor([float(len(knobs[p.label].values)) for p in self.ordinals]).double()
        self._settings_of = _table([self._nearest(p, knobs[p.label]) for p in self.ordinals])
        self._values = _table([self._numbers(p, knobs[p.label]) for p in self.ordinals])
        self._category_places = [torch.tensor(self._place(p, knobs[p.label])) for p in self.categories]
        self._index = {p.label: i for i, p in enumerate(self.ordinals)}

    @staticmethod
    def _steps(part):
        if part.kind == "continuous":
            return 0
        n = len(part.values)
        return -n if n >= _LOGARITHMIC and part.values == tuple(range(1, n + 1)) else n

    @staticmethod
    def _place(part, knob):
        """Columns of a space that stand for the settings; a knob that is fixed there stays so."""
        if part.kind == "continuous":
            return [0.0, 1.0]
        if part.kind == "categorical":
            known = [v if v in knob.values else knob.values[0] for v in part.values]
        else:
            known = [min(knob.values, key=lambda k: abs(k - v)) for v in part.values]
        return [(knob.values.index(v) + 0.5) / len(knob.values) for v in known]

    @staticmethod
    def _nearest(part, knob):
        """The setting nearest to each value of the space's knob."""
        return [float(min(range(len(part.values)), key=lambda i: abs(part.values[i] - v))) for v in knob.values]

    @staticmethod
    def _numbers(part, knob):
        """What the settings stand for in the space; a knob that is fixed there stays so."""
        if part.kind == "continuous" == knob.kind:
            known = part.values
        else:
            known = [min(knob.values, key=lambda k: abs(k - v)) for v in part.values]
        return [log(v) if knob.log else float(v) for v in known]

    def _settings(self, ordinals: Tensor) -> Tensor:
        """Place of each ordinal in its list of settings, from 0; between whole numbers for continuous ones."""
        x, n = (ordinals.clamp(-1, 1) + 1) / 2, self._counts.to(ordinals)
        at = torch.where(self._log, (x * n.log()).exp() - 1, x * (n - 1))
        return torch.where(self._continuous, at, at + (at.round() - at).detach())

    @staticmethod
    def _look_up(table: Tensor, at: Tensor) -> Tensor:
        """Entries of [n, settings] at settings [B, n], linear between and differentiable."""
        low = at.detach().floor().clamp(0, table.shape[1] - 2).long()
        rows = torch.arange(len(table))
        first, second = table[rows, low], table[rows, low + 1]
        return first + (at - low) * (second - first)

    def designs(self, actions: Tensor) -> Tensor:
        """Rows [B, D] of the space. Gradients pass from continuous and ordinal columns."""
        out = torch.zeros(len(actions), len(self.space), dtype=torch.float64)
        for i, knob in enumerate(self.space.knobs):
            out[:, i] = 0.5 / max(1, len(knob.values)) if knob.kind != "continuous" else 0.5
        at = self._settings(actions[:, : len(self.ordinals)].double())
        out[:, self._columns] = self._look_up(self._places.double(), at)
        groups = self.shape.groups(actions)
        for column, places, group in zip(self._category_columns, self._category_places, groups, strict=True):
            out[:, column] = places.double()[group.argmax(1)]
        return out

    def actions(self, designs: Tensor) -> Tensor:
        """The legal actions nearest to rows [B, D]."""
        columns, n = designs[:, self._columns].double(), self._counts.double()
        whole = (columns * self._parts).floor().clamp(min=0).minimum(self._parts - 1).long()
        known = self._settings_of[torch.arange(len(self._settings_of)), whole].double()
        at = torch.where(self._continuous, columns.clamp(0, 1), known)
        logs = (at + 1).log() / n.clamp(min=2).log()
        x = torch.where(self._continuous, at, torch.where(self._log, logs, at / (n - 1).clamp(min=1)))
        hot = [F.one_hot((designs[:, column, None] - places).abs().argmin(1), len(places))
               for column, places in zip(self._category_columns, self._category_places, strict=True)]
        return self.shape.snap(torch.cat([2 * x - 1, *hot], 1).float())

    def canonical(self, actions: Tensor) -> Tensor:
        """Actions [B, A] that stand for the same chips, equal for equal ones.

        Gradients pass straight through; where they do, equal to a rounding.
        """
        same = self.actions(canonical(self.space, self.designs(actions)))
        return actions + (same - actions).detach() if actions.requires_grad else same

    def numbers(self, actions: Tensor) -> dict[str, Tensor]:
        """Knob name -> what it stands for: [B] of the chip, [B, K] by tile class; differentiable.

        Knobs with a logarithmic scale come as logarithms. Knobs that the layout lacks are left out.
        """
        value = self._look_up(self._values, self._settings(actions[:, : len(self.ordinals)]))
        names: dict[str, list[int]] = {}
        for label, i in self._index.items():
            names.setdefault(label.split(".")[0], []).append(i)
        return {name: value[:, columns[0]] if "." not in self.ordinals[columns[0]].label else value[:, columns]
                for name, columns in names.items()}

    def streams(self, actions: Tensor) -> Tensor:
        """Streams of actions [B, A]: [B]."""
        first = next(knob.values[0] for knob in self.space.knobs if knob.name == "streams")
        return self.numbers(actions).get("streams", actions.new_full((len(actions),), float(first)))

    def labels(self) -> tuple[str, ...]:
        """The knob of every number of an action; a category's with its value."""
        hot = [f"{p.label}={value}" for p in self.categories for value in p.values]
        return (*(p.label for p in self.ordinals), *hot)


def _table(rows: list[list[float]]) -> Tensor:
    """Rows of unequal length as one tensor, the last entry repeated."""
    width = max(2, *(len(row) for row in rows))
    return torch.tensor([row + row[-1:] * (width - len(row)) for row in rows])
