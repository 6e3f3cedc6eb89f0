"""The agent's state: what is asked, of what, in which technology, and what came of the design before."""

import torch
from torch import Tensor

from explore.goal import Goals

GOAL_FEATURES = ("w_perf", "w_power", "w_area", "power_budget", "area_budget", "latency_budget", "ln_power_max",
                 "ln_area_max", "ln_latency_max")


def goal_rows(goals: Goals) -> Tensor:
    """[G, 9]: weights, which budgets there are, and their logarithms (0 where there is none)."""
    limited = goals.budgets.isfinite()
    logs = torch.where(limited, goals.budgets, torch.ones_like(goals.budgets)).log()
    return torch.cat([goals.weights, limited.float(), logs], 1)


def state_rows(features: Tensor, goals: Goals, before: Tensor) -> Tensor:
    """[G, S] from scenario features [G, F] or [F], goals, and `before` [G, 1 + A + O].

    `before` is 1, the design before and what was observed of it; or zeros, where none was evaluated.
    """
    return torch.cat([features.expand(len(goals), -1), goal_rows(goals), before], 1)
