"""What makes one design better than another: the objective, its order and regret."""

import torch
from torch import Tensor

from explore.evaluate import Evaluation
from explore.scenario import Scenario

INFEASIBLE = -1e6
"""Score of the border of what is feasible, below that of any design that is."""


def objective(result: Evaluation, scenario: Scenario) -> Tensor:
    """J = w_perf ln(tokens/s) - w_power ln(W) - w_area ln(mm2) [B], whether feasible or not."""
    speed, power, area = scenario.weights
    return speed * result.tok_s.log() - power * result.power.log() - area * result.area.log()


def score(result: Evaluation, scenario: Scenario) -> Tensor:
    """J where feasible; else a number below every J, lower the more the budgets are broken [B]."""
    return torch.where(result.feasible, objective(result, scenario), INFEASIBLE - result.violation)


def regret(found: Tensor, best: Tensor) -> Tensor:
    """1 - exp(J - J_best): the share of the weighted product that is lost; 1 for an infeasible design."""
    return 1 - (found - best).exp()
