"""SAC of Stable-Baselines3 as a method of the benches."""

import torch
from torch import Tensor

from explore.environment import ChipEnvironment
from explore.problem import Problem


def by_stable_baselines(problem: Problem, evaluations: int, seed: int) -> tuple[Tensor, Tensor]:
    """(scores [N], outcomes [N, ...]) of SAC with its defaults on `hwgen/Chip-v0`, one episode.

    The reference designs that scale the episode's reward are not counted: they are the environment's, and no step.
    """
    from stable_baselines3 import SAC

    class Recorded(ChipEnvironment):
        rows: list = []

        def step(self, action):
            answer = super().step(action)
            self.rows.append((answer[4]["score"], self._before[0, 1 + self.codec.shape.size:]))
            return answer

    env = Recorded([problem.scenario], steps=evaluations, space=problem.space)
    env.rows = []
    SAC("MlpPolicy", env, seed=seed, learning_starts=min(100, evaluations // 2), device="cpu").learn(evaluations)
    return torch.tensor([s for s, _ in env.rows]), torch.stack([o for _, o in env.rows])
