"""From a scenario to its best design and Pareto front: the agent's proposals, then their evolution and refinement."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from explore.amounts import amount, rounded_up
from explore.archive import Archive, pareto_front
from explore.climb import climb
from explore.designer import Designer
from explore.evaluate import Evaluation
from explore.goal import AREA, INFEASIBLE, LATENCY, OUTCOMES, POWER, VIOLATION, Goals, draw_goals, score, violation
from explore.limits import Reason, sentences
from explore.plan import BOLD
from explore.practice import mutate
from explore.problem import Problem
from explore.refine import Found, refine
from explore.scenario import Scenario
from hwgen.design import Design
from hwgen.errors import HwgenError

PROPOSALS = 64
POLISH = 0.25
"""Share of the evaluations that the end spends on the scenario's own goal alone."""
_FRONT_GOALS = 192
_OWN_GOALS = 64
_BATCH = 512
_WITNESSES = 4096
"""Random designs that tell what is possible at all."""
PROBES = 256
"""Evaluations of a search for what is possible."""
_BEGIN = 48
"""Designs evaluated before that it begins with."""


@dataclass(frozen=True)
class Search:
    """What a search found. `actions` [N, A], `outcomes` [N, 5 + ...] and `scores` [N] are in order of evaluation.

    `proposed`: the score of the agent's first proposal. `front`: numbers of the Pareto-optimal ones within all budgets.
    """

    problem: Problem
    actions: Tensor
    outcomes: Tensor
    scores: Tensor
    proposed: float

    @property
    def best(self) -> int:
        return int(self.scores.argmax())

    @property
    def feasible(self) -> bool:
        return float(self.scores.max()) > INFEASIBLE

    @cached_property
    def judged(self) -> Tensor:
        """Outcomes [N, 5] whose violation counts the scenario's budgets too."""
        judged = self.outcomes[:, :OUTCOMES].clone()
        judged[:, VIOLATION] = violation(judged, self.problem.goal)
        return judged

    @cached_property
    def front(self) -> list[int]:
        return pareto_front(self.judged).tolist()

    def design(self, number: int) -> Design:
        """The design that was evaluated as number `number`."""
        return self.problem.space.decode(self.problem.codec.designs(self.actions[number: number + 1])[0])

    def figures(self, number: int) -> Evaluation:
        """All figures of one, budgets included."""
        return self.problem.figures(self.actions[number: number + 1])


def search(problem: Problem, designer: Designer | None, evaluations: int, *, seed: int = 0,
           start: Tensor | None = None, on_progress: Callable[[int, float], None] | None = None) -> Search:
    """Spends `evaluations` on a scenario; the same arguments give the same result.

    `designer` None searches without an agent. `start`: actions to begin with, of an earlier search.
    """
    if evaluations < PROPOSALS:
        raise HwgenError(f"Evaluations must be at least {PROPOSALS}, not {evaluations!r}")
    generator = torch.Generator().manual_seed(seed)
    shape, own = problem.codec.shape, problem.goal
    log = _Log(problem, own, on_progress)
    first = [] if start is None else [start[:PROPOSALS]]
    if designer:
        first.append(designer.propose(problem, own, PROPOSALS - sum(map(len, first)), generator))
    else:
        first.append(problem.random_actions(PROPOSALS, generator))
    log.evaluate(torch.cat(first)[:evaluations])
    proposed = float(log.scores[0][0 if start is None else len(start[:PROPOSALS])])
    goals = _front_goals(own, generator)
    archive = Archive(goals, shape.size)
    archive.add(log.actions[0], log.outcomes[0])
    polish = int(POLISH * evaluations)
    if designer and evaluations - polish > 2 * _BATCH:
        bold = designer.propose(problem, own, PROPOSALS, generator, caution=BOLD)
        spread = [designer.propose(problem, goals[i: i + 1], 2, generator, rounds=0) for i in range(_OWN_GOALS, 128)]
        others = torch.cat([bold, *spread, problem.random_actions(_BATCH, generator)])
        archive.add(others, log.evaluate(others))
    while log.spent < evaluations - polish:
        count = min(_BATCH, evaluations - polish - log.spent)
        pick = torch.randint(len(goals), (count,), generator=generator)
        parents = archive.actions[pick]
        mates = archive.actions[torch.randint(len(goals), (count,), generator=generator)]
        children = problem.canonical(mutate(shape, parents, generator, mates))
        archive.add(children, log.evaluate(children))
    left = evaluations - log.spent
    if left > 0:
        found = log.found()
        order = found.scores.argsort(descending=True)[:PROPOSALS]
        start = Found(found.actions[order], found.outcomes[order], found.scores[order])
        refined = refine(problem, own, start, max(1, left // 2), generator,
                         surrogate=designer.agent.surrogate if designer else None, batch=max(8, left // 64),
                         on_round=log.report)
        log.keep(refined.actions, refined.outcomes, refined.scores)
        last = climb(problem, own, log.found(), evaluations - log.spent)
        log.keep(last.actions, last.outcomes, last.scores)
    found = log.found()
    return Search(problem, found.actions, found.outcomes, found.scores, proposed)


def _front_goals(own: Goals, generator: torch.Generator) -> Goals:
    """The own goal many times, then weights all over the simplex, half of them within the own budgets."""
    spread = draw_goals(_FRONT_GOALS, generator)
    limits = spread.budgets.clone()
    limits[::2] = own.budgets
    many = Goals(own.weights.expand(_OWN_GOALS, 3), own.budgets.expand(_OWN_GOALS, 3))
    return Goals.cat([many, Goals(spread.weights, limits)])


class _Log:
    def __init__(self, problem, goal, on_progress):
        self.problem, self.goal, self.on_progress = problem, goal, on_progress
        self.actions, self.outcomes, self.scores, self.spent = [], [], [], 0

    def evaluate(self, actions):
        outcomes = self.problem.outcomes(actions)
        self.keep(actions, outcomes, score(outcomes, self.goal))
        return outcomes

    def keep(self, actions, outcomes, scores):
        self.actions.append(actions)
        self.outcomes.append(outcomes)
        self.scores.append(scores)
        self.spent += len(scores)
        if self.on_progress and len(scores):
            self.on_progress(self.spent, max(float(s.max()) for s in self.scores))

    def found(self):
        return Found(torch.cat(self.actions), torch.cat(self.outcomes), torch.cat(self.scores))

    def report(self, found):
        if self.on_progress:
            best = max(float(found.scores.max()), max(float(s.max()) for s in self.scores))
            self.on_progress(self.spent + len(found.scores), best)


def search_on(result: Search, designer: Designer | None, seed: int = 0, *,
              on_progress: Callable[[int, float], None] | None = None) -> Search:
    """A search that found nothing feasible, with short ones after it: the least for each budget alone, then again all.

    What the budgets could be is known after it, and the nearest design; seldom one is within after all.
    """
    problem, scenario = result.problem, result.problem.scenario
    log = _Log(problem, problem.goal, None)
    log.keep(result.actions, result.outcomes, result.scores)
    if not _works(result).any():
        # a search for what cannot be may never have met a chip that works
        log.evaluate(problem.random_actions(_WITNESSES, torch.Generator().manual_seed(0)))
    alone = [replace(scenario, weights=weights, power_max=None, area_max=None, latency_max=None)
             for _, name, *_, weights in _BUDGETS if getattr(scenario, name) is not None]
    for goal in (*alone, scenario):
        seen, probe = log.found(), Problem(goal, problem.codec)
        if _works(seen).any():
            best = torch.where(_works(seen), score(seen.outcomes, probe.goal), -torch.inf).argsort(descending=True)
            found = search(probe, designer, PROBES, seed=seed, start=seen.actions[best[:_BEGIN]],
                           on_progress=on_progress)
            log.keep(found.actions, found.outcomes, score(found.outcomes, problem.goal))
    seen = log.found()
    return Search(problem, seen.actions, seen.outcomes, seen.scores, result.proposed)


def refusal(result: Search) -> str:
    """Why nothing is feasible, in one sentence: what binds in the nearest design, and what would be possible.

    Where 8-bit weights are too many for a chip, it names the format that halves them.
    """
    problem, works = result.problem, _works(result)
    scenario: Scenario = problem.scenario
    among = works if works.any() else ~works
    number = int(torch.where(among, result.scores, -torch.inf).argmax())
    nearest = result.figures(number)
    what = f"{scenario.workload.name} on {scenario.nm} nm"
    binding = "; ".join(sentences(int(nearest.reasons[0]), scenario))
    spent = (f"{amount(float(nearest.power[0]), 'W')}, {amount(float(nearest.area[0]), 'mm2')} and "
             f"{amount(float(nearest.latency_s[0]), 's')} a step")
    if not works.any():
        large = int(nearest.reasons[0]) & (Reason.ROM.bit | Reason.RETICLE.bit) and not scenario.workload.mxfp4
        return (f"{what} has no feasible design among {len(works)}: {binding}; the nearest takes {spent}"
                + ("; --weights mxfp4 halves the weight ROM" if large else ""))
    budgets = [(flag, getattr(scenario, name), unit, result.outcomes[works, column].min())
               for flag, name, unit, column, _ in _BUDGETS if getattr(scenario, name) is not None]
    given = " ".join(f"{flag} {limit:.12g}" for flag, limit, *_ in budgets)
    # rounded up, and by what single precision may have lost: the budget that is named is possible
    least = ", ".join(f"{flag} {rounded_up(1.00001 * float(value.exp())):.12g} {unit}"
                      for flag, _, unit, value in budgets)
    return (f"Budgets must be possible together for {what}, not {given}: {binding}; the nearest design takes {spent}; "
            f"the least found, each alone: {least}")


def _works(found: Search | Found) -> Tensor:
    """[N]: what physics allows, whatever the budgets."""
    return found.outcomes[:, VIOLATION] <= 0


_BUDGETS = (("--power-max", "power_max", "W", POWER, (0.0, 1.0, 0.0)),
            ("--area-max", "area_max", "mm2", AREA, (0.0, 0.0, 1.0)),
            ("--latency-max", "latency_max", "s", LATENCY, (1.0, 0.0, 0.0)))
"""Flag, name in a scenario, unit, column of an outcome, and the weights that ask for the least of it."""
