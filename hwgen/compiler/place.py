"""Placement: which tile holds which matrix rows and which attention heads.

Layers are cut into the pipeline stages, consecutive bands of mesh rows, and the rows of each matrix of a layer over the
tiles of its stage; embedding and head over all tiles. Rows are split anywhere, in proportion to VLEN times the tile
class's share for the operator class. The split of the hidden rows serves both `o` and `down`, so a tile keeps its slice
of the residual stream for itself.
"""

from dataclasses import dataclass

from hwgen.design import SHARES, Design
from hwgen.errors import HwgenError
from hwgen.model_config import ModelConfig

Span = tuple[int, int]
"""First row and the row after the last."""


@dataclass(frozen=True)
class AttentionUnit:
    """Query heads `first .. first + count - 1` of KV head `kv`, computed on `tile`, which keeps that head's cache."""

    tile: int
    kv: int
    first: int
    count: int
    slot: int
    """Number of the unit among those of its tile in its layer."""


@dataclass(frozen=True)
class Stage:
    """Layers `layers[0] .. layers[1] - 1` on tiles `tiles[0] .. tiles[1] - 1`, whole rows of the mesh."""

    tiles: Span
    layers: Span


@dataclass(frozen=True)
class Placement:
    """Row spans by tile for every matrix kind, those of layers within its stage; attention units of every layer."""

    qkv: tuple[Span, ...]
    hidden: tuple[Span, ...]
    ffn: tuple[Span, ...]
    vocabulary: tuple[Span, ...]
    units: tuple[tuple[AttentionUnit, ...], ...]
    stages: tuple[Stage, ...]
    rope_tile: int
    gain_tile: int

    def stage(self, tile: int) -> int:
        """Number of a tile's stage."""
        return next(s for s, stage in enumerate(self.stages) if tile < stage.tiles[1])

    def members(self, layer: int) -> range:
        """Tiles of a layer's stage."""
        return next(range(*stage.tiles) for stage in self.stages if layer < stage.layers[1])

    def owners(self, spans: tuple[Span, ...], layer: int) -> frozenset[int]:
        """Tiles of a layer's stage with rows."""
        return frozenset(t for t in self.members(layer) if spans[t][1] > spans[t][0])

    def bystanders(self, layer: int) -> frozenset[int]:
        """Tiles of its stage that compute nothing between the gathers of x and of the heads in a layer."""
        busy = {unit.tile for unit in self.units[layer]}
        return frozenset(self.members(layer)) - self.owners(self.qkv, layer) - busy

    def ffn_bystanders(self, layer: int) -> frozenset[int]:
        """Tiles of its stage without rows of gate and up."""
        return frozenset(self.members(layer)) - self.owners(self.ffn, layer)


def split(count: int, weights) -> tuple[Span, ...]:
    """`count` rows cut into consecutive spans in proportion to `weights`, each within one row of its share."""
    total, reached, edges = sum(weights), 0.0, [0]
    for weight in weights:
        reached += weight
        edges.append(round(count * reached / total))
    return tuple(zip(edges, edges[1:], strict=False))


def _weights(design: Design, share: str):
    column = SHARES.index(share)
    return [design.tile_class(t).vlen * design.tile_class(t).shares[column] for t in range(design.tiles)]


def _attention_units(config: ModelConfig, weights, layers: int):
    """Units of every layer. A KV head is spread over several tiles, its cache copied, while tiles would stay idle."""
    able = [t for t, w in enumerate(weights) if w > 0]
    group = config.heads // config.kv_heads
    parts = max(1, min(group, len(able) // config.kv_heads))
    heads = [(kv, kv * group + a, b - a) for kv in range(config.kv_heads) for a, b in split(group, [1] * parts)]
    if len(heads) >= len(able):
        spans = split(len(heads), [weights[t] for t in able])
        owners = [[able[i] for i, (a, b) in enumerate(spans) for _ in range(a, b)]] * layers
    else:
        # rotating by layer spreads the caches over all tiles
        owners = [[able[(u * len(able) // len(heads) + layer) % len(able)] for u in range(len(heads))]
                  for layer in range(layers)]
    result = []
    for layer in range(layers):
        used, units = {}, []
        for tile, (kv, first, count) in zip(owners[layer], heads, strict=True):
            slot = used[tile] = used.get(tile, -1) + 1
            units.append(AttentionUnit(tile, kv, first, count, slot))
        result.append(tuple(units))
    return tuple(result)


def _stages(config: ModelConfig, design: Design, weights) -> tuple[Stage, ...]:
    """Bands of as equal a height as can be; a layer each, the others in proportion to what their tiles multiply."""
    count = design.pipeline_stages
    for name, most in (("rows of the mesh", design.height), ("layers of the model", config.layers)):
        if count > most:
            raise HwgenError(f"pipeline_stages must be at most the {most} {name}, not {count}")
    bands = [(a * design.width, b * design.width) for a, b in split(design.height, [1] * count)]
    for a, b in bands:
        for share, column in weights.items():
            if not any(column[a:b]):
                raise HwgenError(f"Shares of {share} must be above 0 on a tile of every pipeline stage, "
                                 f"not 0 on all of mesh rows {a // design.width} to {b // design.width - 1}")
    more = split(config.layers - count, [sum(weights["ffn"][a:b]) for a, b in bands])
    layers = [(a + number, b + number + 1) for number, (a, b) in enumerate(more)]
    return tuple(map(Stage, bands, layers))


def place(config: ModelConfig, design: Design) -> Placement:
    """The placement of a model on a design; deterministic. Raises HwgenError for stages that cannot be."""
    weights = {share: _weights(design, share) for share in ("attention", "ffn")}
    stages = _stages(config, design, weights)

    def rows(count, share):
        return tuple(span for stage in stages for span in split(count, weights[share][slice(*stage.tiles)]))

    units: list[tuple[AttentionUnit, ...]] = []
    for stage in stages:
        first, stop = stage.tiles
        own = [w if first <= t < stop else 0 for t, w in enumerate(weights["attention"])]
        units += _attention_units(config, own, stage.layers[1] - stage.layers[0])
    return Placement(
        qkv=rows((config.heads + 2 * config.kv_heads) * config.head_dim, "attention"),
        hidden=rows(config.hidden, "ffn"),
        ffn=rows(config.ffn, "ffn"),
        vocabulary=split(config.vocab, _weights(design, "vocabulary")),
        units=tuple(units),
        stages=stages,
        rope_tile=design.tiles - 1,
        gain_tile=design.tiles // 2,
    )
