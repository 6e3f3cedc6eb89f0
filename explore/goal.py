"""Goals: objective weights and budgets, many at once, and how well an outcome serves each.

The outcome of a design does not depend on the goal, so one evaluation answers every goal of its scenario.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.scenario import GOALS

TOK_S, POWER, AREA, LATENCY, VIOLATION = range(5)
"""Columns of an outcome: ln tok/s of all streams, ln W, ln mm2, ln s of a step, summed relative violation of what
physics forbids."""
OUTCOMES = 5
INFEASIBLE = -100.0
"""Scores below this are those of infeasible designs, ordered by violation; no J of a real chip comes near it."""
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Goals:
    """`weights` [G, 3] (performance, power, area; a row sums to 1) and `budgets` [G, 3] (W, mm2, s; inf: none)."""

    weights: Tensor
    budgets: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index) -> "Goals":
        return Goals(self.weights[index], self.budgets[index])

    @classmethod
    def of(cls, weights, budgets=(None, None, None), count: int = 1) -> "Goals":
        """`count` copies of one goal; a budget of None is none."""
        limits = [float("inf") if b is None else float(b) for b in budgets]
        return cls(torch.tensor([weights], dtype=torch.float32).expand(count, 3),
                   torch.tensor([limits], dtype=torch.float32).expand(count, 3))

    @classmethod
    def cat(cls, parts) -> "Goals":
        return cls(torch.cat([p.weights for p in parts]), torch.cat([p.budgets for p in parts]))


def score(outcomes: Tensor, goals: Goals) -> Tensor:
    """J of `outcomes` [..., 5] under goals of a shape that broadcasts; `INFEASIBLE` - violation where not feasible."""
    logs = outcomes[..., :3]
    j = (goals.weights * logs * logs.new_tensor([1.0, -1.0, -1.0])).sum(-1)
    over = violation(outcomes, goals)
    return torch.where(over > 0, INFEASIBLE - over, j)


def violation(outcomes: Tensor, goals: Goals) -> Tensor:
    """Summed relative excess of `outcomes` [..., 5] over what physics allows and the goals' budgets."""
    spent = outcomes[..., POWER:LATENCY + 1] - goals.budgets.log()
    return outcomes[..., VIOLATION] + spent.clamp(max=20).expm1().clamp(min=0).sum(-1)


def score_all(outcomes: Tensor, goals: Goals) -> Tensor:
    """[G, B]: every outcome [B, 5] under every goal."""
    return score(outcomes[None], Goals(goals.weights[:, None], goals.budgets[:, None]))


def regret(found: Tensor, best: Tensor) -> Tensor:
    """1 - exp(J - J_best): the share of the weighted product that is lost; 1 for an infeasible design."""
    return 1 - (found - best).exp()


def draw_goals(count: int, generator: torch.Generator, witness: Tensor | None = None, budgets: float = 0.5) -> Goals:
    """Random goals: a quarter each of the two presets, else weights spread over the simplex.

    A share `budgets` of them has budgets: each limit, kept with probability 2/3, is what `witness` [count, 5] spends
    and 0 to 100 % more, so that none is impossible. Without a witness, or where it is infeasible, there are none.
    """
    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    spread = -uniform(count, 3).clamp(min=1e-6).log()
    weights = _LEAST_WEIGHT + (1 - 3 * _LEAST_WEIGHT) * spread / spread.sum(1, keepdim=True)
    kind = uniform(count, 1)
    for edge, name in ((0.5, "low-power"), (0.25, "high-performance")):
        weights = torch.where(kind < edge, torch.tensor(GOALS[name]), weights)
    limits = torch.full((count, 3), float("inf"))
    if witness is not None:
        kept = (uniform(count, 1) < budgets) & (uniform(count, 3) < 2 / 3) & (witness[:, VIOLATION, None] <= 0)
        limits = torch.where(kept, witness[:, POWER:LATENCY + 1].exp() * (1 + uniform(count, 3)), limits)
    return Goals(weights, limits)
