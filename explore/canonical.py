"""One row for every chip: designs that differ in name only become equal.

Classes are sorted by their number of tiles, equal ones joined, those without tiles made like the first, shares scaled
to a largest of 1, all 1 where no tile has any; no more pipeline stages than there can be. The agent's designs all pass
through here, so that it need not learn the same chip many times.
"""

import torch
from torch import Tensor

from explore.space import COLUMNS, SHARE_VALUES, TILE_KNOBS, Space
from hwgen.design import SHARES

_ONE = SHARE_VALUES.index(1.0)


def canonical(space: Space, designs: Tensor) -> Tensor:
    """The canonical rows [B, D] of `designs`; continuous knobs of the chip stay, all others lie mid-part."""
    designs = space.snap(designs.detach())
    labels = {knob.label: i for i, knob in enumerate(space.knobs)}
    fields = (*TILE_KNOBS, *SHARES)
    columns = torch.tensor([[labels[f"{name}.{k}"] for name in fields] for k in range(space.classes)])
    parts = torch.tensor([labels[f"part.{k}"] for k in range(space.classes)])
    knobs = space.values(designs)
    nodes, tiles = knobs.nodes.clone(), knobs.tiles
    classes = designs[:, columns]
    classes, nodes = _sort(_scale_shares(space, classes, nodes, labels), nodes)
    for k in range(1, space.classes):
        for j in range(k):
            same = (classes[:, j] == classes[:, k]).all(1) & (nodes[:, k] > 0) & (nodes[:, j] > 0)
            nodes[:, j] += nodes[:, k] * same
            nodes[:, k] *= ~same
    classes, nodes = _sort(classes, nodes)
    classes = torch.where((nodes > 0)[:, :, None], classes, classes[:, :1])
    out = designs.clone()
    out[:, columns] = classes
    out[:, parts] = nodes / tiles
    alone = nodes[:, 1:].sum(1) == 0
    arrangement, stages = labels["arrangement"], labels["pipeline_stages"]
    count = len(space.knobs[arrangement].values)
    if count > 1:
        several = torch.where(knobs.pipeline_stages[:, 0] > 1, (COLUMNS + 0.5) / count, out[:, arrangement])
        out[:, arrangement] = torch.where(alone, 0.5 / count, several)
    known = torch.tensor(space.knobs[stages].values)
    out[:, stages] = (torch.searchsorted(known, knobs.pipeline_stages[:, 0].long()) + 0.5) / len(known)
    return out


def _sort(classes, nodes):
    order = nodes.argsort(dim=1, descending=True, stable=True)
    return classes.gather(1, order[:, :, None].expand_as(classes)), nodes.gather(1, order)


def _scale_shares(space, classes, nodes, labels):
    """Shares of an operator class times the power of two that makes the largest 1, where the least stays above 0."""
    classes = classes.clone()
    for offset, name in enumerate(SHARES, start=len(TILE_KNOBS)):
        if len(space.knobs[labels[f"{name}.0"]].values) != len(SHARE_VALUES):
            continue
        index = (classes[:, :, offset] * len(SHARE_VALUES)).floor()
        used = (index > 0) & (nodes > 0)
        shift = _ONE - torch.where(used, index, -1.0).amax(1, keepdim=True)
        least = torch.where(used, index, 99.0).amin(1, keepdim=True) + shift
        moved = torch.where(used & (least >= 1), index + shift, index)
        moved = torch.where(used.any(1, keepdim=True), moved, float(_ONE))
        classes[:, :, offset] = (moved + 0.5) / len(SHARE_VALUES)
    return classes
