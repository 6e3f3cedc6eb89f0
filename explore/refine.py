"""Refinement: from the agent's proposals to a better design within a number of evaluations.

Every round plans in the forecast, which each evaluation puts right nearby, for the largest expected gain over the best
design so far: designs that promise more, or of which less is known. Without a surrogate it evaluates one-knob changes
and children of the best.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explore.goal import Goals, score
from explore.plan import Forecast, first_of_each, neighbours, plan
from explore.practice import mutate
from explore.problem import Problem
from explore.surrogate import Surrogate

ELITE = 12
"""Best designs that a round begins with, besides what the round before planned."""
ROUNDS = 8
CHILDREN = 256


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

    def after(self, count: int) -> "Found":
        """Without the first `count`."""
        return Found(self.actions[count:], self.outcomes[count:], self.scores[count:])


def refine(problem: Problem, goal: Goals, start: Tensor | Found, evaluations: int, generator: torch.Generator, *,
           surrogate: Surrogate | None = None, batch: int = 4,
           on_round: Callable[[Found], None] | None = None) -> Found:
    """Spends exactly `evaluations`, `batch` at a time, and returns what they found.

    `start`: actions [N, A], the most promising first, of which the first is evaluated; or designs that were, which
    are not evaluated again.
    """
    known = start if isinstance(start, Found) else evaluated(problem, goal, problem.canonical(start[:1]))
    ahead = pool = start.actions if isinstance(start, Found) else problem.canonical(start)
    before = 0 if known is not start else len(known.scores)
    forecast = Forecast(surrogate, problem, goal) if surrogate else None
    news = known
    while (count := min(batch, evaluations + before - len(known.scores))) > 0:
        elite = known.actions[known.scores.argsort(descending=True)[:ELITE]]
        if forecast:
            forecast.learn(news.actions, news.outcomes, float(known.scores.max()))
            ahead = plan(problem, forecast.gain, torch.cat([elite, ahead[:2 * ELITE], pool]), generator,
                         rounds=ROUNDS, children=CHILDREN)
        else:
            ahead = _around(problem, elite, generator)
        fresh = _unseen(ahead, known.actions)
        if len(fresh) < count:
            fresh = torch.cat([fresh, _unseen(_around(problem, elite, generator), torch.cat([known.actions, fresh]))])
        chosen = _apart(forecast, fresh, count) if forecast and len(fresh) > count else fresh[:count]
        if len(chosen) < count:
            chosen = torch.cat([chosen, problem.random_actions(count - len(chosen), generator)])
        news = evaluated(problem, goal, chosen)
        known = Found(torch.cat([known.actions, chosen]), torch.cat([known.outcomes, news.outcomes]),
                      torch.cat([known.scores, news.scores]))
        if on_round:
            on_round(known.after(before))
    return known.after(before)


def evaluated(problem: Problem, goal: Goals, actions: Tensor) -> Found:
    """Actions with what the evaluator says of them."""
    outcomes = problem.outcomes(actions)
    return Found(actions, outcomes, score(outcomes, goal))


def _around(problem, elite, generator):
    """Children of the best, and one-knob changes of the best one, in no order."""
    shape = problem.codec.shape
    mates = elite[torch.randint(len(elite), (CHILDREN,), generator=generator)]
    parents = elite[torch.randint(len(elite), (CHILDREN,), generator=generator)]
    made = torch.cat([neighbours(shape, elite[0]), mutate(shape, parents, generator, mates)])
    return problem.canonical(made[torch.randperm(len(made), generator=generator)])


def _unseen(actions, known):
    """Actions that differ from each other and from all known ones."""
    every = torch.cat([known, actions])
    first = first_of_each(every)
    return every[first[first >= len(known)]]


def _apart(forecast, actions, count):
    """`count` actions of large gain, each discounted by how near it is to those taken before."""
    taken, gains = [], forecast.gain(actions)
    gains = gains - gains.min() + 1e-9
    near = forecast.near(actions, forecast.surrogate.place(actions, forecast.features))
    for _ in range(min(count, len(actions))):
        taken.append(int(gains.argmax()))
        gains = gains * (1 - near[:, taken[-1]])
        gains[taken] = -1
    return actions[taken]
