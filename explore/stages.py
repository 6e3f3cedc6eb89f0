"""Pipeline stages in closed form: the band of mesh rows that stands for all, and how streams follow each other.

A stage works as a chip of its own rows with layers of its own, so all that is known of a chip holds for its band.
Bands differ by one row of the mesh at most and layers are whole, as `hwgen.compiler.place` splits both.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from explore.space import Knobs
from hwgen.compiler.place import split
from hwgen.design import CHIP_RULES

_SIDE = max(CHIP_RULES["height"].values)


@dataclass(frozen=True)
class Stages:
    """The stages of a batch, [B, 1] each.

    `band`: a chip as high as the highest stage. `part`: its share of the mesh. `layers`: the most that a stage has;
    `mean`: those of a tile on average. `dense`: layers that tiles of this band would have if they had as many rows as
    those that have most: a lower band has fewer tiles for its layers. `worked`: those of all stages together. `lower`:
    how many times as many rows the highest band has as the lowest, which has `few` layers at most.
    """

    band: Knobs
    part: Tensor
    layers: Tensor
    dense: Tensor
    worked: Tensor
    lower: Tensor
    few: Tensor
    mean: Tensor


def bands(count: Tensor, height: Tensor, layers: Tensor) -> Tensor:
    """[B, 7] for stages [B], mesh rows [B] and layers [B or 1]: rows of the highest band, most layers, `dense`,
    `worked`, `lower`, `few` and `mean`."""
    count, height, layers = (t.detach().round().long() for t in torch.broadcast_tensors(count, height, layers))
    found = torch.zeros(len(count), 7, dtype=torch.float64, device=count.device)
    for model in layers.unique().tolist():
        own = layers == model
        found[own] = _bands(model).to(count.device)[count[own].clamp(1, _SIDE), height[own].clamp(1, _SIDE)]
    return found


@cache
def _bands(layers: int) -> Tensor:
    """[stages, mesh rows, 7] of `bands`; 1 row and no layers if impossible."""
    table = torch.ones(_SIDE + 1, _SIDE + 1, 7, dtype=torch.float64)
    table[:, :, [1, 2, 3, 5, 6]] = 0
    for count in range(1, min(_SIDE, layers) + 1):
        for height in range(count, _SIDE + 1):
            rows = [b - a for a, b in split(height, [1] * count)]
            own = [b - a + 1 for a, b in split(layers - count, rows)]
            high = max(rows)
            dense = [n * high / r for n, r in zip(own, rows, strict=True)]
            few = max(n for n, r in zip(own, rows, strict=True) if r == min(rows))
            mean = sum(n * r for n, r in zip(own, rows, strict=True)) / height
            table[count, height] = torch.tensor([high, max(own), max(dense), sum(dense), high / min(rows), few, mean])
    return table


def stages_of(knobs: Knobs, layers: int) -> Stages:
    """How the stages of a batch share out a model's layers."""
    count, height = knobs.pipeline_stages.detach(), knobs.height.detach()
    possible = (count <= height) & (count <= layers)
    found = bands(torch.where(possible, count, torch.ones_like(count))[:, 0], height[:, 0], height.new_tensor([layers]))
    rows, most, dense, worked, lower, few, mean = found.split(1, 1)
    # multiplied first, so that whole numbers stay so
    band = replace(knobs, height=knobs.height * rows / height, nodes=knobs.nodes * rows / height)
    return Stages(band, rows / height, most, dense, worked, lower, few, mean)


def groups(knobs: Knobs) -> tuple[Tensor, Tensor]:
    """(streams that take turns in a stage, groups of them that follow each other) [B, 1], as the compiler has them."""
    stages, streams = knobs.pipeline_stages.detach(), knobs.streams
    together = torch.where(stages > 1, torch.where(streams >= 2 * stages, 2.0, 1.0).to(streams), streams)
    return together, streams / together
