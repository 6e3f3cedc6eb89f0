"""The shipped agent at work: from a scenario to designs, with no evaluation, few or many."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from explore.action import Codec, Part
from explore.agent import Agent, read_saved
from explore.goal import Goals
from explore.napkin import Napkin
from explore.plan import BOLD, CAUTION, PARENTS, Forecast, plan
from explore.problem import OBSERVATIONS, Problem, scenario_features
from explore.refine import Found, refine
from explore.scenario import Scenario
from explore.space import Space
from explore.state import GOAL_FEATURES, state_rows
from explore.workload import read_workload
from hwgen.errors import HwgenError
from hwgen.formats import AGENT

SAMPLES = 256
"""Actions that the policy is asked for before planning."""
ISLANDS = 3
SHIPPED = Path(__file__).parent / "trained" / "agent.pt"
_FOREIGN = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError)
"""What a part that is missing, or none of an agent's, may raise."""


@dataclass(frozen=True)
class Designer:
    """An agent with the knobs it was trained for."""

    agent: Agent
    codec: Codec
    cases: Tensor

    @classmethod
    def load(cls, path: Path = SHIPPED, space: Space | None = None) -> "Designer":
        """The agent in a file that `explore.train` wrote. Raises HwgenError for any other."""
        saved = read_saved(path, AGENT, "Agent")
        try:
            layout = tuple(Part(label, kind, tuple(values)) for label, kind, values in saved["layout"])
            if not layout:
                raise ValueError("no knobs")
            codec = Codec(space or Space(), layout)
        except _FOREIGN:
            raise HwgenError(f"Agent {str(path)!r} must be trained for this space of designs, not another") from None
        names = tuple(scenario_features(Scenario(read_workload("stories260k"), 28, context=64)))
        width = len(names) + len(GOAL_FEATURES) + 1 + codec.shape.size + len(OBSERVATIONS)
        try:
            agent, cases = Agent.load_policy(path, width, codec.shape, Napkin(codec, names))
            whole = agent.mean.shape == agent.std.shape == (width,) and cases.shape[1:] == (codec.shape.size,)
        except _FOREIGN:
            whole = False
        if not whole:
            raise HwgenError(f"Agent {str(path)!r} must be whole, not damaged")
        return cls(agent, codec, cases)

    @cached_property
    def _nothing(self) -> Tensor:
        return torch.zeros(1, 1 + self.codec.shape.size + len(OBSERVATIONS))

    def problem(self, scenario: Scenario) -> Problem:
        return Problem(scenario, self.codec)

    def state(self, problem: Problem, goal: Goals) -> Tensor:
        """The state in which nothing was evaluated."""
        return state_rows(problem.features, goal, self._nothing)

    def propose(self, problem: Problem, goal: Goals, count: int, generator: torch.Generator, *,
                rounds: int = 30, caution: float = CAUTION) -> Tensor:
        """At most `count` canonical actions [N, A] that differ, the most promising first; no evaluation is spent.

        Planned in `rounds` from the actor's samples and from good designs of training scenarios. `caution`: how many
        nats worse a design counts that is certain to be infeasible.
        """
        samples = self.agent.candidates(self.state(problem, goal), SAMPLES, generator)
        worth = partial(Forecast(self.agent.surrogate, problem, goal).worth, caution=caution)
        return plan(problem, worth, torch.cat([samples, self.cases]), generator, rounds=rounds, islands=ISLANDS)[:count]

    def refine(self, problem: Problem, goal: Goals, evaluations: int, generator: torch.Generator) -> Found:
        """Proposals, and what `evaluations` make of them."""
        start = torch.cat([self.propose(problem, goal, ISLANDS * PARENTS, generator, caution=caution)
                           for caution in (CAUTION, BOLD)])
        return refine(problem, goal, start, evaluations, generator, surrogate=self.agent.surrogate)
