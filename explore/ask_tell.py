"""The design problem for optimisers that ask and tell, and as the problem classes of pymoo and optuna.

Points are rows in [0, 1]^D, one number for every knob of the space with more than one value.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from explore.goal import AREA, INFEASIBLE, POWER, TOK_S, Goals, score
from explore.problem import Problem, observe

Weigh = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
"""(rows of a space [N, K], whether the slope is wanted) -> outcomes [N, 5], slopes of the score [N, K] or None."""


def weigher(problem: Problem, goal: Goals) -> Weigh:
    """Asks the evaluator."""
    def weigh(rows, slope=False):
        rows = rows.detach().requires_grad_(slope)
        outcomes = observe(problem.evaluate_designs(rows))[:, :5]
        if not slope:
            return outcomes, None
        ascent, = torch.autograd.grad(score(outcomes, goal).sum(), rows)
        return outcomes.detach(), ascent.nan_to_num(0, 0, 0)

    return weigh


class AskTell:
    """Counts and remembers what an optimiser tries for one goal.

    `points` [N, D] in [0, 1], `scores` [N] and `outcomes` [N, 5] in the order of their evaluation; `best` is the
    largest score so far. Points beyond `evaluations` are refused with StopIteration. `weigh`: who asks the evaluator.
    """

    def __init__(self, problem: Problem, goal: Goals | None = None, *, evaluations: int | None = None,
                 weigh: Weigh | None = None):
        self.problem, self.goal, self.limit = problem, goal or problem.goal, evaluations
        self.weigh = weigh or weigher(self.problem, self.goal)
        self.columns = [i for i, k in enumerate(problem.space.knobs) if k.kind == "continuous" or len(k.values) > 1]
        self.size, self.spent = len(self.columns), 0
        self._points, self._scores, self._outcomes = [], [], []

    @property
    def left(self) -> float:
        """Evaluations that remain."""
        return float("inf") if self.limit is None else self.limit - self.spent

    def designs(self, points) -> Tensor:
        """Rows of the space for points [N, D]; fixed knobs at their value."""
        points = torch.as_tensor(np.asarray(points, dtype=np.float64)).reshape(-1, self.size)
        rows = torch.full((len(points), len(self.problem.space)), 0.5, dtype=torch.float64)
        rows[:, self.columns] = points.clamp(0, 1)
        return rows

    def evaluate(self, points) -> np.ndarray:
        """Scores [N] of points [N, D], greater is better."""
        return self._spend(points, False)[0]

    def ascend(self, points) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N] of points [N, D] and their slopes [N, D], which come with the evaluation."""
        values, slopes = self._spend(points, True)
        return values, slopes[:, self.columns].numpy()

    def _spend(self, points, slope):
        rows = self.designs(points)
        if len(rows) > self.left:
            raise StopIteration(f"Evaluations must be at most {self.limit}")
        outcomes, slopes = self.weigh(rows, slope)
        values = score(outcomes, self.goal).numpy()
        self.spent += len(rows)
        self._points.append(rows[:, self.columns].numpy())
        self._scores.append(values)
        self._outcomes.append(outcomes)
        return values, slopes

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self._points)

    @property
    def scores(self) -> np.ndarray:
        return np.concatenate(self._scores)

    @property
    def outcomes(self) -> Tensor:
        return torch.cat(self._outcomes)

    @property
    def best(self) -> float:
        return float(max((s.max() for s in self._scores), default=-np.inf))

    def best_point(self) -> np.ndarray:
        """The point of the best score."""
        return self.points[self.scores.argmax()]


def pymoo_problem(ask: AskTell, *, objectives: bool = False):
    """A pymoo Problem: minus the score, or with `objectives` ln s/token, ln W and ln mm2 under one constraint."""
    from pymoo.core.problem import Problem as Pymoo

    class Chip(Pymoo):
        def __init__(self):
            super().__init__(n_var=ask.size, n_obj=3 if objectives else 1, n_ieq_constr=1, xl=0.0, xu=1.0)

        def _evaluate(self, x, out, *args, **kwargs):
            values = ask.evaluate(x)
            broken = np.maximum(INFEASIBLE - values, -1.0) * (values <= INFEASIBLE)
            last = ask.outcomes[-len(x):].numpy()
            out["F"] = np.stack([-last[:, TOK_S], last[:, POWER], last[:, AREA]], 1) if objectives else -values[:, None]
            out["G"] = broken[:, None]

    return Chip()


def optuna_objective(ask: AskTell):
    """A function of an optuna trial: ordinals as integers, categories as such, for a study that maximises."""
    knobs = [ask.problem.space.knobs[i] for i in ask.columns]

    def objective(trial):
        point = []
        for knob in knobs:
            n = len(knob.values)
            if knob.kind == "continuous":
                point.append(trial.suggest_float(knob.label, 0.0, 1.0))
            elif knob.kind == "categorical":
                point.append((trial.suggest_categorical(knob.label, list(range(n))) + 0.5) / n)
            else:
                point.append((trial.suggest_int(knob.label, 0, n - 1) + 0.5) / n)
        return float(ask.evaluate([point])[0])

    return objective
