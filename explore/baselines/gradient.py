"""Gradient ascent through the evaluator, from many starts at once."""

import torch

from explore.ask_tell import AskTell

_STARTS = 16


def gradient(ask: AskTell, seed: int) -> None:
    """Adam on continuous and ordinal knobs, rounding passed through; each step of each start is an evaluation.

    Starts, 16 or with many evaluations one for every 160, are the best of eight times as many random designs.
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
            _, slopes = ask.ascend(points.detach().numpy())
            points.grad = torch.from_numpy(-slopes)
            optimiser.step()
            with torch.no_grad():
                points.clamp_(0, 1)
        else:
            continue
        if 0 < ask.left < starts:
            rest = torch.rand(int(ask.left), ask.size, dtype=torch.float64, generator=generator)
            ask.evaluate(rest.numpy())
