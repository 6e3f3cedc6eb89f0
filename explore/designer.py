"""The shipped agent at work: from a scenario to designs, with no evaluation, few or many."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from explore.action import Codec, Part
from explore.agent import FORMAT, Agent, read_saved
from explore.goal import Goals
from explore.napkin import Napkin
from explore.problem import OBSERVATIONS, Problem, scenario_features
from explore.refine import Found, refine
from explore.scenario import Scenario
from explore.space import Space
from explore.state import GOAL_FEATURES, state_rows
from explore.workload import read_workload
from hwgen.errors import HwgenError

SHIPPED = Path(__file__).parent / "trained" / "agent.pt"


@dataclass(frozen=True)
class Designer:
    """An agent with the knobs it was trained for."""

    agent: Agent
    codec: Codec

    @classmethod
    def load(cls, path: Path = SHIPPED, space: Space | None = None) -> "Designer":
        """The agent in a file that `explore.train` wrote. Raises HwgenError for any other."""
        saved = read_saved(path, FORMAT)
        try:
            layout = tuple(Part(label, kind, tuple(values)) for label, kind, values in saved["layout"])
            codec = Codec(space or Space(), layout)
        except (KeyError, TypeError, ValueError) as error:
            raise HwgenError(f"Agent {str(path)!r} must be trained for this space of designs: {error}") from None
        names = tuple(scenario_features(Scenario(read_workload("stories260k"), 28, context=64)))
        features = len(names)
        width = features + len(GOAL_FEATURES) + 1 + codec.shape.size + len(OBSERVATIONS)
        return cls(Agent.load_policy(path, width, codec.shape, features, Napkin(codec, names)), codec)

    @cached_property
    def _nothing(self) -> Tensor:
        return torch.zeros(1, 1 + self.codec.shape.size + len(OBSERVATIONS))

    def problem(self, scenario: Scenario) -> Problem:
        return Problem(scenario, self.codec)

    def state(self, problem: Problem, goal: Goals) -> Tensor:
        """The state in which nothing was evaluated."""
        return state_rows(problem.features, goal, self._nothing)

    def propose(self, problem: Problem, goal: Goals, count: int, generator: torch.Generator) -> Tensor:
        """`count` canonical actions, the most promising first; no evaluation is spent."""
        return problem.canonical(self.agent.propose(self.state(problem, goal), goal, count, generator))

    def worth_of(self, problem: Problem, goal: Goals) -> Callable[[Tensor], Tensor]:
        """Actions -> expected scores, by the surrogate."""
        state = self.state(problem, goal)
        return lambda actions: self.agent.worth(state, goal, actions)

    def refine(self, problem: Problem, goal: Goals, evaluations: int, generator: torch.Generator, **options) -> Found:
        """Proposals and `evaluations` to better them."""
        proposals = self.propose(problem, goal, max(1, evaluations // 4), generator)
        return refine(problem, goal, proposals, evaluations, generator,
                      worth=self.worth_of(problem, goal), **options)
