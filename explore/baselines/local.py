"""Searches that change one design a little at a time."""

import numpy as np

from explore.ask_tell import AskTell

_START = 64
"""Random designs of which the best is the start."""
_CHAINS = 16
"""Annealing chains that run side by side."""


def _settings(ask):
    return np.array([len(ask.problem.space.knobs[i].values) if ask.problem.space.knobs[i].kind != "continuous" else 16
                     for i in ask.columns])


def greedy(ask: AskTell, seed: int) -> None:
    """Coordinate ascent: all settings of one knob after the other, until none helps; then from another start."""
    draw, settings = np.random.default_rng(seed), _settings(ask)
    while ask.left:
        points = draw.random((int(min(_START, ask.left)), ask.size))
        values = ask.evaluate(points)
        point, value, gained = points[values.argmax()], values.max(), True
        while gained and ask.left:
            gained = False
            for knob in draw.permutation(ask.size):
                if not ask.left:
                    break
                tries = np.repeat(point[None], settings[knob], 0)
                tries[:, knob] = (np.arange(settings[knob]) + 0.5) / settings[knob]
                tries = tries[: int(min(len(tries), ask.left))]
                found = ask.evaluate(tries)
                if found.max() > value + 1e-9:
                    point, value, gained = tries[found.argmax()], found.max(), True


def annealing(ask: AskTell, seed: int) -> None:
    """Simulated annealing: two knobs a step, temperature from 1 to 0.001 nats, 16 chains."""
    draw, settings = np.random.default_rng(seed), _settings(ask)
    total = ask.left
    chains = int(min(_CHAINS, total))
    points = draw.random((chains, ask.size))
    values = ask.evaluate(points)
    while ask.left:
        temperature = 10 ** (-3 * (1 - ask.left / total))
        moves = (draw.random(points.shape) < 2 / ask.size) * draw.choice([-1, 1], points.shape)
        reach = np.where(draw.random(points.shape) < 0.3, 3, 1)
        tries = np.clip(points + moves * reach / settings, 0, 1)[: int(min(chains, ask.left))]
        found = ask.evaluate(tries)
        accept = np.log(draw.random(len(found))) < (found - values[: len(found)]) / temperature
        points[: len(found)][accept] = tries[accept]
        values[: len(found)][accept] = found[accept]
