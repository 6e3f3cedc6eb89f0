"""Actions: the knobs of a design as the agent moves them, and the way to rows of a `Space` and back."""

import torch
from torch import Tensor

from explore.networks import ActionShape
from explore.space import Space

_LOGARITHMIC = 16
"""Ordinals 1, 2, 3, ... with at least so many values move in the logarithm: a mesh of 3 and of 4 differ by a third."""


class Codec:
    """Between actions [B, A] of an agent and designs [B, D] of a space. Knobs with one value are no part of an action."""

    def __init__(self, space: Space):
        self.space = space
        self.free = [i for i, knob in enumerate(space.knobs) if knob.kind == "continuous" or len(knob.values) > 1]
        self.ordinals = [i for i in self.free if space.knobs[i].kind != "categorical"]
        self.categories = [i for i in self.free if space.knobs[i].kind == "categorical"]
        self.shape = ActionShape(tuple(self._steps(space.knobs[i]) for i in self.ordinals),
                                 tuple(len(space.knobs[i].values) for i in self.categories))
        self._counts = torch.tensor([len(space.knobs[i].values) for i in self.ordinals], dtype=torch.float64)
        steps = torch.tensor(self.shape.steps)
        self._even, self._log = steps > 0, steps < 0

    @staticmethod
    def _steps(knob):
        if knob.kind == "continuous":
            return 0
        n = len(knob.values)
        return -n if n >= _LOGARITHMIC and tuple(knob.values) == tuple(range(1, n + 1)) else n

    def designs(self, actions: Tensor) -> Tensor:
        """Rows [B, D] of the space. Gradients pass from continuous and ordinal columns."""
        x = (actions[:, : len(self.ordinals)].double() + 1) / 2
        # An even grid runs over the middles of the knob's parts, a logarithmic one over the whole numbers.
        n = self._counts
        even = (x * (n - 1) + 0.5) / n
        log = ((x * n.log()).exp() - 0.5) / n
        columns = torch.where(self._even, even, torch.where(self._log, log, x))
        out = columns.new_full((len(actions), len(self.space)), 0.5)
        out[:, self.ordinals] = columns
        for column, group in zip(self.categories, self.shape.groups(actions), strict=True):
            out[:, column] = (group.argmax(1) + 0.5) / group.shape[1]
        return out

    def actions(self, designs: Tensor) -> Tensor:
        """The actions of rows [B, D], at legal settings."""
        columns, n = designs[:, self.ordinals].double().clamp(0, 1), self._counts
        whole = (columns * n).floor().clamp(min=0).minimum(n - 1)
        even = whole / (n - 1).clamp(min=1)
        log = (whole + 1).log() / n.clamp(min=2).log()
        x = torch.where(self._even, even, torch.where(self._log, log, columns))
        hot = []
        for column, count in zip(self.categories, self.shape.choices, strict=True):
            choice = (designs[:, column] * count).long().clamp(0, count - 1)
            hot.append(torch.nn.functional.one_hot(choice, count))
        return self.shape.snap(torch.cat([2 * x - 1, *hot], 1).float())

    def labels(self) -> tuple[str, ...]:
        """The knob of every number of an action; a category's with its value."""
        knobs = self.space.knobs
        hot = [f"{knobs[i].label}={value}" for i in self.categories for value in knobs[i].values]
        return (*(knobs[i].label for i in self.ordinals), *hot)
