"""What is known of a scenario: for each of many goals, the best design seen; and the Pareto front."""

import torch
from torch import Tensor

from explore.goal import AREA, INFEASIBLE, OUTCOMES, POWER, TOK_S, VIOLATION, Goals, score, score_all


class Archive:
    """The best action seen for each of `goals`; answers any other goal with the best of those.

    `actions` [G, A], `outcomes` [G, 5], `values` [G]: the score of each for its own goal.
    """

    def __init__(self, goals: Goals, action_size: int):
        self.goals = goals
        self.actions = torch.zeros(len(goals), action_size)
        self.outcomes = torch.zeros(len(goals), OUTCOMES)
        self.outcomes[:, VIOLATION] = 1e6
        self.values = score(self.outcomes, goals)

    def add(self, actions: Tensor, outcomes: Tensor) -> int:
        """Keep what is better than the kept; returns how many goals gained."""
        best, index = score_all(outcomes, self.goals).max(1)
        gain = best > self.values + 1e-6
        chosen = index[gain]
        self.actions[gain], self.outcomes[gain] = actions[chosen], outcomes[chosen, :OUTCOMES]
        self.values[gain] = best[gain]
        return int(gain.sum())

    def best(self, goals: Goals) -> tuple[Tensor, Tensor]:
        """(score [B], index [B]) of the best kept design for each of other goals."""
        return score_all(self.outcomes, goals).max(1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Outcomes [count, 5] of kept designs, drawn at random."""
        return self.outcomes[torch.randint(len(self.outcomes), (count,), generator=generator)]

    @property
    def feasible(self) -> bool:
        return bool((self.values > INFEASIBLE).any())

    def state_dict(self) -> dict:
        return {"weights": self.goals.weights, "budgets": self.goals.budgets, "actions": self.actions,
                "outcomes": self.outcomes, "values": self.values}

    def load_state_dict(self, state: dict) -> None:
        self.goals = Goals(state["weights"].clone(), state["budgets"].clone())
        self.actions, self.outcomes = state["actions"].clone(), state["outcomes"].clone()
        self.values = state["values"].clone()


def pareto_front(outcomes: Tensor) -> Tensor:
    """Indices of feasible outcomes [B, 5] that none beats in tok/s, power and area together, fastest first."""
    candidates = (outcomes[:, VIOLATION] <= 0).nonzero().squeeze(1)
    cost = outcomes[candidates][:, [TOK_S, POWER, AREA]] * outcomes.new_tensor([-1.0, 1.0, 1.0])
    order = sorted(range(len(candidates)), key=lambda i: cost[i].tolist())
    kept: list[int] = []
    front = cost[:0]
    for i in order:
        if not bool((front <= cost[i]).all(1).any()):
            kept.append(i)
            front = torch.cat([front, cost[i: i + 1]])
    return candidates[kept]


def hypervolume(outcomes: Tensor, reference: Tensor) -> float:
    """Volume in log space that feasible outcomes dominate, up to `reference` (ln tok/s, ln W, ln mm2)."""
    sign = outcomes.new_tensor([1.0, -1.0, -1.0])
    gains = ((outcomes[pareto_front(outcomes)][:, :3] - reference) * sign).clamp(min=0)
    gains = gains[(gains > 0).all(1)]
    volume, edges = 0.0, torch.cat([gains[:, 0].sort(descending=True).values, gains.new_zeros(1)])
    for i in range(len(gains)):
        volume += float(edges[i] - edges[i + 1]) * _area(gains[gains[:, 0] >= edges[i]][:, 1:])
    return volume


def _area(gains: Tensor) -> float:
    area, height = 0.0, 0.0
    for x, y in sorted(gains.tolist(), reverse=True):
        if y > height:
            area += x * (y - height)
            height = y
    return area
