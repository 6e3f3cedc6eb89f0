"""The last steps of a search: every single-knob change of the best design is tried, until none is better."""

import torch
from torch import Tensor

from explore.goal import Goals, score
from explore.networks import ActionShape
from explore.problem import Problem
from explore.refine import Found

MOVES = (-2, -1, 1, 2)
"""Settings that an ordinal knob moves by."""
CONTINUOUS_STEP = 0.1
"""First move of a continuous knob, in its range of -1 to 1; halved whenever no neighbour is better."""
FINEST = 0.001


def neighbours(shape: ActionShape, action: Tensor, step: float) -> Tensor:
    """All actions [N, A] that differ from `action` [A] in one knob: a setting or two, `step`, or another category."""
    found = []
    for i, steps in enumerate(shape.steps):
        for move in MOVES:
            other = action.clone()
            if steps > 0:
                other[i] += move * 2 / max(1, steps - 1)
            elif steps < 0:
                n = torch.tensor(float(-steps))
                value = ((action[i] + 1) / 2 * n.log()).exp().round() + move
                other[i] = 2 * value.clamp(1, -steps).log() / n.log() - 1
            else:
                other[i] += move * step
            found.append(other)
    start = len(shape.steps)
    for count in shape.choices:
        for choice in range(count):
            other = action.clone()
            other[start: start + count] = 0
            other[start + choice] = 1
            found.append(other)
        start += count
    return shape.snap(torch.stack(found))


def climb(problem: Problem, goal: Goals, found: Found, evaluations: int) -> Found:
    """At most so many evaluations from the best of `found` on; those alone, in order."""
    best, value, step, spent = found.actions[found.best], float(found.scores.max()), CONTINUOUS_STEP, 0
    known = {tuple(a) for a in found.actions.tolist()}
    actions, outcomes = [], []
    while spent < evaluations and step > FINEST:
        around = problem.canonical(neighbours(problem.codec.shape, best, step))
        fresh = [a for a in dict.fromkeys(map(tuple, around.tolist())) if a not in known][: evaluations - spent]
        known.update(fresh)
        spent += len(fresh)
        top = -float("inf")
        if fresh:
            actions.append(torch.tensor(fresh))
            outcomes.append(problem.outcomes(actions[-1]))
            values = score(outcomes[-1], goal)
            top = float(values.max())
        if top > value:
            best, value = actions[-1][values.argmax()], top
        else:
            step /= 2
    if not actions:
        return found.until(0)
    outcome = torch.cat(outcomes)
    return Found(torch.cat(actions), outcome, score(outcome, goal))
