"""Gradient ascent through the evaluator, from many starts at once."""

import torch

from explore.ask_tell import AskTell
from explore.goal import score
from explore.problem import observe

_STARTS = 16


def gradient(ask: AskTell, seed: int) -> None:
    """Adam on continuous and ordinal knobs, rounding passed through; each step of each start is an evaluation.

    Starts, 16 or with many evaluations one for every 160, are the best of eight times as many random designs. A step's
    slope comes with its evaluation.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = _STARTS if ask.limit is None else max(_STARTS, ask.limit // 160)
    while ask.left:
        first = torch.rand(int(min(8 * starts, ask.left)), ask.size, dtype=torch.float64, generator=generator)
        values = torch.from_numpy(ask.evaluate(first.numpy()))
        points = first[values.topk(min(starts, len(first))).indices].clone().requires_grad_(True)
        optimiser = torch.optim.Adam([points], lr=0.02)
        for _ in range(100):
            if ask.left < len(points):
                break
            ask.evaluate(points.detach().numpy())
            optimiser.zero_grad()
            rows = torch.full((len(points), len(ask.problem.space)), 0.5, dtype=torch.float64)
            rows = rows.index_copy(1, torch.tensor(ask.columns), points)
            (-score(observe(ask.problem.evaluate_designs(rows)), ask.goal).sum()).backward()
            points.grad.nan_to_num_(0, 0, 0)
            optimiser.step()
            with torch.no_grad():
                points.clamp_(0, 1)
        else:
            continue
        if 0 < ask.left < starts:
            rest = torch.rand(int(ask.left), ask.size, dtype=torch.float64, generator=generator)
            ask.evaluate(rest.numpy())
