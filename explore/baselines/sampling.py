"""Designs drawn without looking at what came of others."""

import numpy as np
from torch.quasirandom import SobolEngine

from explore.ask_tell import AskTell

_BATCH = 1024


def random(ask: AskTell, seed: int) -> None:
    """Uniform in every knob."""
    draw = np.random.default_rng(seed)
    while ask.left:
        ask.evaluate(draw.random((int(min(_BATCH, ask.left)), ask.size)))


def sobol(ask: AskTell, seed: int) -> None:
    """A scrambled Sobol sequence."""
    engine = SobolEngine(ask.size, scramble=True, seed=seed)
    while ask.left:
        ask.evaluate(engine.draw(int(min(_BATCH, ask.left))).numpy())
