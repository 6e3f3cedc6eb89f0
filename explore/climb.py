"""The end of a search: every one-knob change of the best design is tried, until none is better."""

import torch

from explore.goal import Goals
from explore.plan import neighbours
from explore.problem import Problem
from explore.refine import Found, evaluated


def climb(problem: Problem, goal: Goals, found: Found, evaluations: int) -> Found:
    """At most so many evaluations from the best of `found` on; those alone, in order."""
    best, value, left = found.actions[found.best], float(found.scores.max()), evaluations
    known, rounds = set(map(tuple, found.actions.tolist())), [found.after(len(found.scores))]
    while left > 0:
        around = map(tuple, problem.canonical(neighbours(problem.codec.shape, best)).tolist())
        fresh = [action for action in dict.fromkeys(around) if action not in known][:left]
        if not fresh:
            break
        known.update(fresh)
        left -= len(fresh)
        rounds.append(evaluated(problem, goal, torch.tensor(fresh)))
        top = rounds[-1].best
        if float(rounds[-1].scores[top]) <= value:
            break
        best, value = rounds[-1].actions[top], float(rounds[-1].scores[top])
    return Found(*(torch.cat([getattr(r, part) for r in rounds]) for part in ("actions", "outcomes", "scores")))
