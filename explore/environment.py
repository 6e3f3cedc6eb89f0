"""`hwgen/Chip-v0`: designing a chip as a gymnasium environment. Importing this file registers it.

An episode is one scenario with one goal. Every action is a whole design; the reward says how much better it is than
the best of 256 random ones; the observation holds the scenario, the goal, and the last design with its figures.
"""

from collections.abc import Sequence

import gymnasium
import numpy as np
import torch

from explore.action import Codec
from explore.goal import INFEASIBLE, Goals, draw_goals, score
from explore.node import node_sizes
from explore.practice import random_actions
from explore.problem import OBSERVATIONS, Problem
from explore.scenario import Scenario
from explore.space import Space
from explore.state import GOAL_FEATURES, state_rows
from explore.workload import read_workload, shipped_workloads
from hwgen.errors import HwgenError

ID = "hwgen/Chip-v0"
_REFERENCE = 256
_FLOOR = -10.0
_LIMIT = 40.0
"""Bound of every observation."""


class ChipEnvironment(gymnasium.Env):
    """One design a step.

    Parameters
    ----------
    scenarios : those to draw from, each with its own goal; default every shipped workload on every node, with goals
        drawn at random.
    steps : designs in an episode, after which it is truncated; it never terminates.
    space : designs to choose from.

    Action: [-1, 1] a number; ordinal knobs from their lowest to their highest setting, one number for every value of a
    category, the largest wins. Observation: `explore.problem.scenario_features`, `explore.state.GOAL_FEATURES`, then
    1, the last action and `explore.problem.OBSERVATIONS` of it, or zeros before the first.

    Reward: score less reference, at least -10; infeasible designs get -10 and less, by the logarithm of their
    violation. `info` holds the figures, the score, the best score of the episode and whether the design is feasible.
    """

    metadata = {"render_modes": []}

    def __init__(self, scenarios: Sequence[Scenario] | None = None, *, steps: int = 8, space: Space | None = None):
        if steps < 1:
            raise HwgenError(f"Steps must be at least 1, not {steps!r}")
        self.codec, self.steps = Codec(space or Space()), steps
        self._own_goals = scenarios is not None
        self.scenarios = tuple(scenarios) if scenarios is not None else default_scenarios()
        width = 1 + self.codec.shape.size + len(OBSERVATIONS)
        states = len(Problem(self.scenarios[0], self.codec).features) + len(GOAL_FEATURES) + width
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.codec.shape.size,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-_LIMIT, _LIMIT, (states,), np.float32)
        self._nothing = torch.zeros(1, width)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Starts an episode; `options["scenario"]` names the scenario, whose goal is then its own."""
        super().reset(seed=seed)
        named = (options or {}).get("scenario")
        scenario = named or self.scenarios[int(self.np_random.integers(len(self.scenarios)))]
        self.problem = Problem(scenario, self.codec)
        generator = torch.Generator().manual_seed(int(self.np_random.integers(2**31)))
        first = self.problem.outcomes(random_actions(self.codec.shape, _REFERENCE, generator))
        pick = first[torch.randint(len(first), (1,), generator=generator)]
        own = named is not None or self._own_goals
        self.goal: Goals = self.problem.goal if own else draw_goals(1, generator, pick)
        self.reference = float(score(first, self.goal).max())
        self._before, self._step, self._best = self._nothing, 0, -float("inf")
        return self._observation(), {"reference": self.reference}

    def step(self, action):
        """Evaluates one design."""
        legal = self.codec.shape.snap(torch.as_tensor(np.asarray(action, dtype=np.float32))[None])
        outcome = self.problem.outcomes(legal)
        value = float(score(outcome, self.goal))
        self._best, self._step = max(self._best, value), self._step + 1
        self._before = torch.cat([torch.ones(1, 1), legal, outcome], 1)
        figures = dict(zip(OBSERVATIONS, outcome[0].tolist(), strict=True))
        return self._observation(), self.reward(value), False, self._step >= self.steps, figures | {
            "score": value, "best": self._best, "feasible": value > INFEASIBLE}

    def reward(self, value: float) -> float:
        """The reward of a score in this episode."""
        if value <= INFEASIBLE:
            return _FLOOR - float(np.log1p(INFEASIBLE - value))
        return max(_FLOOR, value - max(self.reference, INFEASIBLE / 4))

    def design(self, action):
        """The `hwgen.design.Design` of an action."""
        return self.codec.space.decode(self.codec.designs(torch.as_tensor(np.asarray(action))[None].float())[0])

    def _observation(self):
        state = state_rows(self.problem.features, self.goal, self._before)
        return state[0].clamp(-_LIMIT, _LIMIT).numpy().astype(np.float32)


def default_scenarios() -> tuple[Scenario, ...]:
    """Every shipped workload on every node, with room for 512 positions."""
    return tuple(Scenario(read_workload(name), nm, context=512)
                 for name in shipped_workloads() for nm in node_sizes())


if ID not in gymnasium.registry:
    gymnasium.register(id=ID, entry_point="explore.environment:ChipEnvironment")
