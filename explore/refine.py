"""Refinement: from the agent's proposals to a better design within a number of evaluations.

Every round makes many children of the best designs (mutation, crossover, draws from a Gaussian around the elite as in
the cross-entropy method, and steps along the evaluator's gradient), picks those that promise most, and evaluates them.
A child's promise is its parent's score and the gradient's or the surrogate's word on the difference: both err less
about a difference than about a value.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explore.goal import INFEASIBLE, Goals, score
from explore.practice import mutate, random_actions
from explore.problem import Problem, observe

ELITE = 8
CHILDREN = 512
"""Children considered for every round, most of which are not evaluated."""


@dataclass
class Found:
    """Evaluated actions [N, A], their outcomes and observations [N, 5 + ...] and scores [N], in order."""

    actions: Tensor
    outcomes: Tensor
    scores: Tensor

    @property
    def best(self) -> int:
        """Number of the best."""
        return int(self.scores.argmax())

    def until(self, count: int) -> "Found":
        return Found(self.actions[:count], self.outcomes[:count], self.scores[:count])


def refine(problem: Problem, goal: Goals, proposals: Tensor, evaluations: int, generator: torch.Generator, *,
           worth: Callable[[Tensor], Tensor] | None = None, batch: int = 8, use_gradient: bool = True,
           on_round: Callable[[Found], None] | None = None) -> Found:
    """Spends exactly `evaluations`, the first on `proposals` (at most a quarter, the best first).

    `worth`: actions -> expected score, by a surrogate. A gradient counts as one evaluation.
    """
    shape = problem.codec.shape
    first = problem.canonical(proposals[: max(1, evaluations // 4)])
    found = _evaluate(problem, goal, first[: evaluations])
    spent = len(found.scores)
    gradient_of = -1
    slope = None
    while spent < evaluations:
        order = found.scores.argsort(descending=True)[:ELITE]
        elite = found.actions[order]
        if use_gradient and gradient_of != found.best and evaluations - spent > 1:
            slope, gradient_of, spent = gradient(problem, goal, elite[:1]), found.best, spent + 1
        children, parents = _children(shape, elite, found.scores[order], slope, generator)
        children = problem.canonical(children)
        fresh = _unseen(children, found.actions)
        children, parents = children[fresh], parents[fresh]
        count = min(batch, evaluations - spent)
        if not len(children):
            children, parents = random_actions(shape, count, generator), torch.zeros(count, dtype=torch.long)
        chosen = _choose(children, elite, found.scores[order], parents, slope, worth, count, generator)
        more = _evaluate(problem, goal, children[chosen])
        spent += len(more.scores)
        found = Found(torch.cat([found.actions, more.actions]), torch.cat([found.outcomes, more.outcomes]),
                      torch.cat([found.scores, more.scores]))
        if on_round:
            on_round(found)
    return found


def gradient(problem: Problem, goal: Goals, action: Tensor) -> Tensor:
    """Slope [A] of the score of one action [1, A]; where it is infeasible, of minus its violation."""
    action = action.detach().clone().requires_grad_(True)
    result = problem.evaluate_designs(problem.codec.designs(action))
    value = score(observe(result)[:, :5], goal).sum()
    (slope,) = torch.autograd.grad(value, action, allow_unused=True)
    return torch.zeros_like(action[0]) if slope is None else slope[0].nan_to_num(0, 0, 0)


def _evaluate(problem, goal, actions):
    outcomes = problem.outcomes(actions)
    return Found(actions, outcomes, score(outcomes, goal))


def _children(shape, elite, values, slope, generator):
    """(children [C, A], the number of each one's parent in the elite)."""
    # Half of all children come from the best, the others from the elite alike.
    parents = torch.randint(len(elite), (CHILDREN,), generator=generator)
    parents[: CHILDREN // 2] = 0
    mates = elite[torch.randint(len(elite), (CHILDREN,), generator=generator)]
    children = mutate(shape, elite[parents], generator, mates)
    quarter = CHILDREN // 4
    good = elite[values > INFEASIBLE] if bool((values > INFEASIBLE).any()) else elite
    if len(good) > 2:
        # A draw around the elite, mixed with the best: the cross-entropy step.
        spread = good.std(0).clamp(min=0.02)
        drawn = good.mean(0) + spread * torch.randn(quarter, shape.size, generator=generator)
        taken = torch.rand(quarter, shape.size, generator=generator) < 0.5
        children[-quarter:], parents[-quarter:] = shape.snap(torch.where(taken, drawn, good[0])), 0
    if slope is not None:
        children[:quarter], parents[:quarter] = _uphill(shape, elite[0], slope, quarter, generator), 0
    return children, parents


def _uphill(shape, best, slope, count, generator):
    """Children of the best that move one to four knobs along the slope, more often the steep ones."""
    n = len(shape.steps)
    steps = torch.tensor(shape.steps)
    grid = torch.where(steps == 0, torch.tensor(0.05), 2 / (steps.abs() - 1).clamp(min=1))
    chance = (slope[:n].abs() * grid).clamp(min=1e-9)
    moved = torch.zeros(count, n)
    for _ in range(4):
        pick = torch.multinomial(chance, count, replacement=True, generator=generator)
        moved[torch.arange(count), pick] += (torch.rand(count, generator=generator) < 0.6).float()
    size = torch.where(steps == 0, torch.rand(count, n, generator=generator) * 3, torch.ones(1))
    # On a logarithmic grid one setting is worth more than its even share at the low end.
    size = torch.where(steps < 0, 1 + 3 * torch.rand(count, n, generator=generator), size)
    move = torch.sign(slope[:n]) * grid * size * moved
    return shape.snap(torch.cat([best[:n] + move, best[n:].expand(count, -1)], 1))


def _unseen(children, known):
    """Numbers of the children that differ from each other and from all known actions."""
    every = torch.cat([known, children]).mul(1024).round().to(torch.int32)
    _, inverse = torch.unique(every, dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(every), dtype=torch.long)
    first.scatter_reduce_(0, inverse, torch.arange(len(every)), "amin")
    place = torch.arange(len(known), len(every))
    return (first[inverse[place]] == place).nonzero().squeeze(1)


def _choose(children, elite, values, parents, slope, worth, count, generator):
    """Numbers of the children to evaluate: by surrogate, by gradient, and an eighth at random."""
    base = values[parents]
    ranks = []
    if worth is not None:
        ranks.append(base + worth(children) - worth(elite)[parents])
    if slope is not None:
        gain = ((children - elite[0]) * slope).sum(1).clamp(-1, 1)
        ranks.append(torch.where(parents == 0, base + gain, base - 1))
    chosen: list[int] = []
    orders = [rank.argsort(descending=True).tolist() for rank in ranks]
    orders.append(torch.randperm(len(children), generator=generator).tolist())
    # The surrogate knows products of knobs, the gradient the true slope: they take turns, the surrogate twice.
    turns = [0, 0, 1] if len(ranks) == 2 else list(range(len(ranks))) or [-1]
    seen = set()
    for turn in range(min(count, len(children))):
        order = orders[-1] if turn % 8 == 7 or not ranks else orders[turns[turn % len(turns)]]
        number = next(i for i in order if i not in seen)
        seen.add(number)
        chosen.append(number)
    return torch.tensor(chosen, dtype=torch.long)
