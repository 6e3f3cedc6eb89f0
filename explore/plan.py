"""Planning: search in what the surrogate expects, which costs no evaluation.

A `Forecast` is the surrogate's word for one goal, put right near the designs that were evaluated. `plan` improves
designs by it: mutation, crossover, and all settings of each knob of the most promising.
"""

from collections.abc import Callable
from itertools import combinations
from math import log, pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.goal import INFEASIBLE, VIOLATION, Goals
from explore.networks import ActionShape
from explore.node import RETICLE_MM2
from explore.practice import RATES, mutate
from explore.problem import Problem
from explore.surrogate import FIGURES, Surrogate

CARE = 1.5
"""Standard deviation that a surrogate's mean error is taken for; the distribution of errors has long tails."""
REACH = 0.4
"""Distance of derived figures, in standard deviations, over which what an evaluation taught fades to 1 / e."""
PARENTS = 24
SURE = 3
"""Power of the chance that limits are kept: the model's small chances are too large, and its hopes there too high."""
CAUTION = 3.0
"""Nats that an infeasible design is taken to be worse, where it would be the answer."""
BOLD = 0.1
"""The same where it would be tried, not answered: what the model doubts may be sound after all."""


class Forecast:
    """Expected scores of a problem's designs under one goal. `best`: score of the best that was evaluated, if any."""

    def __init__(self, surrogate: Surrogate, problem: Problem, goal: Goals):
        self.surrogate, self.goal, self.features = surrogate, goal, problem.features[None]
        self.problem = problem
        self.known, self.errors = None, torch.zeros(0, FIGURES + 1)
        self.best = INFEASIBLE

    @torch.no_grad()
    def learn(self, actions: Tensor, outcomes: Tensor, best: float) -> None:
        """Takes in what evaluations [N, 5 + ...] of actions [N, A] found."""
        figures, sound = self.surrogate.predict(actions, self.features)
        errors = outcomes[:, :FIGURES] - figures.mean(0)
        errors = torch.cat([errors, (outcomes[:, VIOLATION] <= 0).float()[:, None] - sound[:, None]], 1)
        places = self.surrogate.place(actions, self.features)
        self.known = places if self.known is None else torch.cat([self.known, places])
        self.errors = torch.cat([self.errors, errors])
        self.best = best

    @torch.no_grad()
    def near(self, actions: Tensor, places: Tensor) -> Tensor:
        """[B, N] from 0 to 1: how much places [N, ...] tell of actions."""
        return (-torch.cdist(self.surrogate.place(actions, self.features), places) / REACH).exp()

    def worth(self, actions: Tensor, caution: float = CAUTION) -> Tensor:
        """Expected score [B] of designs: the objective, less `caution` nats where a limit is surely broken."""
        objective, _, kept = self._expect(actions)
        return objective - caution * (1 - kept)

    def gain(self, actions: Tensor) -> Tensor:
        """Expected gain [B] over the best so far, of an evaluation; far below it, a hint of the way up."""
        if self.best <= INFEASIBLE:
            return self.worth(actions)
        objective, error, kept = self._expect(actions)
        ahead = objective - self.best
        sigmas = ahead / error
        density = (-0.5 * sigmas**2).exp() / sqrt(2 * pi)
        expected = error * (density + sigmas * torch.special.ndtr(sigmas))
        return kept**SURE * expected + 1e-4 * (ahead - CAUTION * (1 - kept))

    @torch.no_grad()
    def _expect(self, actions):
        """(objective, its standard error, chance that all limits are kept) [B]."""
        figures, sound = self.surrogate.predict(actions, self.features)
        error = CARE * (self.surrogate.spread + figures.std(0, unbiased=False)) + 1e-4
        figures, streams = figures.mean(0), self.problem.codec.streams(actions).log()
        if self.known is not None:
            near = self.near(actions, self.known)
            most = near.amax(1, keepdim=True)
            weight = near**3
            shift = most * (weight @ self.errors) / weight.sum(1, keepdim=True).clamp(min=1e-9)
            figures, sound = figures + shift[:, :FIGURES], (sound + shift[:, FIGURES]).clamp(0, 1)
            error = error * (1 - 0.8 * most)
        speed, power, area = figures.unbind(1)
        budgets = self.goal.budgets[0].log()
        room = torch.stack([budgets[0] - power, budgets[1].clamp(max=log(RETICLE_MM2)) - area,
                            budgets[2] + speed - streams], 1)
        kept = torch.special.ndtr(room / error[:, [1, 2, 0]]).prod(1) * sound
        weights = self.goal.weights[0]
        return (figures @ (weights * weights.new_tensor([1.0, -1.0, -1.0])), (weights * error).norm(dim=1), kept)


def plan(problem: Problem, value: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, *,
         rounds: int, islands: int = 1, children: int = 160) -> Tensor:
    """Canonical actions [N, A] of the largest `value` [B], the best first.

    `start` [.., A]: where to begin. Each of `islands` keeps `PARENTS` of its own and has `children` a round.
    """
    shape = problem.codec.shape
    first = problem.within_clock(start)
    groups = [_best(first[i::islands], value(first[i::islands])) for i in range(islands)]
    swept = [float("-inf")] * islands
    for turn in range(rounds):
        born = []
        for i, (parents, worth) in enumerate(groups):
            mates = torch.cat([g[0] for g in groups]) if turn % 6 == 5 else parents
            pick = (torch.rand(children, generator=generator) ** 2 * len(parents)).long()
            mate = torch.randint(len(mates), (children,), generator=generator)
            kids = [mutate(shape, parents[pick], generator, mates[mate], rate=RATES[turn % len(RATES)])]
            if float(worth[0]) > swept[i] + 1e-4:
                swept[i] = float(worth[0])
                kids.append(neighbours(shape, parents[0]))
            born.append(torch.cat(kids))
        children_of = problem.within_clock(torch.cat(born))
        worth_of = value(children_of)
        sizes = [len(kids) for kids in born]
        groups = [_best(torch.cat([g[0], kids]), torch.cat([g[1], worth])) for g, kids, worth in
                  zip(groups, children_of.split(sizes), worth_of.split(sizes), strict=True)]
    actions, worth = (torch.cat([g[i] for g in groups]) for i in range(2))
    return _best(actions, worth, keep=len(actions))[0]


def _best(actions, worth, keep=PARENTS):
    """(actions, worths) of the best `keep` that differ."""
    order = first_of_each(actions)
    order = order[worth[order].argsort(descending=True)[:keep]]
    return actions[order], worth[order]


def first_of_each(actions: Tensor) -> Tensor:
    """Numbers of the actions [N, A] that equal none before them."""
    _, inverse = torch.unique(actions.mul(1024).round().to(torch.int32), dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(actions), dtype=torch.long)
    first.scatter_reduce_(0, inverse, torch.arange(len(actions)), "amin")
    return first.sort().values


def neighbours(shape: ActionShape, action: Tensor) -> Tensor:
    """Legal actions [N, A] that differ from one [A] in one knob: every setting of it, or the nearest of many.

    Besides, the nearest of every two that move by their logarithm: sides of a mesh make up for each other.
    """
    settings = [_settings(steps, action[i]) for i, steps in enumerate(shape.steps)]
    made = []
    for i, values in enumerate(settings):
        rows = action.repeat(len(values), 1)
        rows[:, i] = values
        made.append(rows)
    sides = [i for i, steps in enumerate(shape.steps) if steps < 0]
    for i, j in combinations(sides, 2):
        pairs = torch.cartesian_prod(settings[i], settings[j])
        rows = action.repeat(len(pairs), 1)
        rows[:, [i, j]] = pairs
        made.append(rows)
    at = len(shape.steps)
    for count in shape.choices:
        rows = action.repeat(count, 1)
        rows[:, at:at + count] = F.one_hot(torch.arange(count), count).to(action)
        made.append(rows)
        at += count
    return shape.snap(torch.cat(made))


def _settings(steps, at):
    if steps > 0:
        return torch.linspace(-1, 1, max(2, steps))
    if steps == 0:
        return at + torch.tensor([-0.2, -0.05, -0.02, -0.005, 0.005, 0.02, 0.05, 0.2])
    top = torch.tensor(float(-steps)).log()
    near = ((at + 1) / 2 * top).exp().round() + torch.tensor([-4.0, -3, -2, -1, 1, 2, 3, 4])
    return 2 * near.clamp(1, -steps).log() / top - 1
