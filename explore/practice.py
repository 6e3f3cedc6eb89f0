"""One scenario to learn on: its features, its evaluator, the archive of what was found in it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.archive import Archive
from explore.goal import VIOLATION, Goals, draw_goals
from explore.napkin import Napkin
from explore.networks import ActionShape
from explore.state import state_rows

_NICHES = 256
"""Goals for which an archive keeps its best; goals drawn in training are served by the nearest of these."""
FIRST = 2048
"""Random designs that an archive begins with."""
RATES = (0.03, 0.06, 0.12)
"""Shares of an action's knobs that a child changes, in turn."""


class Practice:
    """A scenario without a goal. `evaluate`: actions [B, A] -> outcomes and observations [B, 5 + ...].

    `seen` counts the evaluations, `recent` holds the last of them.

    Its actions are canonical, one for every chip; `learn` is given no others.
    """

    def __init__(self, name: str, features: Tensor, shape: ActionShape, observations: int,
                 evaluate: Callable[[Tensor], Tensor], *, hints: Napkin, seed: int = 0):
        self.hints, self.canonical = hints, hints.codec.canonical
        self.name, self.features, self.shape, self.evaluate = name, features, shape, evaluate
        generator = torch.Generator().manual_seed(seed)
        actions = self.random_actions(FIRST, generator)
        first = self.evaluate(actions)
        self.archive = Archive(draw_goals(_NICHES, generator, _witnesses(first, generator), budgets=0.4), shape.size)
        self.recent = torch.zeros(1, 1 + shape.size + observations)
        self.seen = 0
        self.learn(actions, first)

    def random_actions(self, count: int, generator: torch.Generator) -> Tensor:
        return self.canonical(random_actions(self.shape, count, generator))

    def draw_states(self, goals: Goals, again: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(states, their part about an earlier design): that part is zero but for a share `again`."""
        pick = torch.randint(len(self.recent), (len(goals),), generator=generator)
        keep = torch.rand(len(goals), 1, generator=generator) < again
        before = self.recent[pick] * keep
        return state_rows(self.features, goals, before), before

    def states(self, goals: Goals) -> Tensor:
        """States in which nothing was evaluated yet."""
        return state_rows(self.features, goals, torch.zeros(len(goals), self.recent.shape[1]))

    def breed(self, count: int, generator: torch.Generator) -> Tensor:
        """Children of archived designs, some crossed with other archived ones."""
        pick, mate = (torch.randint(len(self.archive.actions), (count,), generator=generator) for _ in range(2))
        rate = RATES[int(torch.randint(len(RATES), (), generator=generator))]
        return self.canonical(mutate(self.shape, self.archive.actions[pick], generator, self.archive.actions[mate],
                                     rate=rate))

    def learn(self, actions: Tensor, outcomes: Tensor) -> None:
        self.archive.add(actions, outcomes)
        self.seen += len(actions)
        self.recent = torch.cat([torch.ones(len(actions), 1), actions, outcomes], 1)[:1024]

    def state_dict(self) -> dict:
        return self.archive.state_dict() | {"recent": self.recent, "seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.archive.load_state_dict(state)
        self.recent, self.seen = state["recent"].clone(), state["seen"]


def _witnesses(outcomes: Tensor, generator: torch.Generator) -> Tensor:
    """One outcome for every niche, feasible ones where there are any."""
    feasible = (outcomes[:, VIOLATION] <= 0).nonzero().squeeze(1)
    pool = feasible if len(feasible) else torch.arange(len(outcomes))
    return outcomes[pool[torch.randint(len(pool), (_NICHES,), generator=generator)]]


def random_actions(shape: ActionShape, count: int, generator: torch.Generator) -> Tensor:
    """Uniform over the settings of every knob."""
    ordinals = 2 * torch.rand(count, len(shape.steps), generator=generator) - 1
    # Rounding alone would halve the chance of the first and the last setting.
    steps = torch.tensor(shape.steps)
    ordinals = torch.where(steps > 0, ordinals * steps / (steps - 1).clamp(min=1), ordinals)
    return shape.snap(torch.cat([ordinals, torch.rand(count, sum(shape.choices), generator=generator)], 1))


def mutate(shape: ActionShape, parents: Tensor, generator: torch.Generator, others: Tensor | None = None,
           rate: float | None = None) -> Tensor:
    """Legal children: about two knobs changed (or a share `rate`), most by one step; a third crossed with `others`."""
    count, n = len(parents), len(shape.steps)
    rate = 2 / (n + len(shape.choices)) if rate is None else rate

    def uniform(*size):
        return torch.rand(*size, generator=generator)

    children = parents
    if others is not None:
        taken = (uniform(count, 1) < 0.33) & (uniform(count, shape.size) < 0.3)
        children = torch.where(taken, others, parents)
    steps = torch.tensor(shape.steps)
    grid = torch.where(steps > 1, 2 / (steps - 1).clamp(min=1), torch.tensor(0.1))
    size = 1 + (uniform(count, n) < 0.3).float() + (uniform(count, n) < 0.15) * 3
    size = torch.where(steps > 0, size, size * uniform(count, n))
    move = grid * size * torch.where(uniform(count, n) < 0.5, -1.0, 1.0)
    ordinals = children[:, :n] + move * (uniform(count, n) < rate)
    hot = []
    for group in shape.groups(children):
        fresh = F.one_hot(torch.randint(group.shape[1], (count,), generator=generator), group.shape[1]).float()
        hot.append(torch.where(uniform(count, 1) < rate, fresh, group))
    return shape.snap(torch.cat([ordinals, *hot], 1))
