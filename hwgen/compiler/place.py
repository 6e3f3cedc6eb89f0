"""Placement: which tile holds which matrix rows and which attention heads.

Rows are split anywhere, in proportion to VLEN times the tile class's share for the operator class. The split of the
hidden rows serves both `o` and `down`, so a tile keeps its slice of the residual stream for itself.
"""

from dataclasses import dataclass

from hwgen.design import SHARES, Design
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
class Placement:
    """Row spans by tile for every matrix kind, and the attention units of every layer."""

    qkv: tuple[Span, ...]
    hidden: tuple[Span, ...]
    ffn: tuple[Span, ...]
    vocabulary: tuple[Span, ...]
    units: tuple[tuple[AttentionUnit, ...], ...]
    rope_tile: int
    gain_tile: int

    def bystanders(self, layer: int) -> frozenset[int]:
        """Tiles that compute nothing between the gathers of x and of the heads in a layer."""
        busy = {unit.tile for unit in self.units[layer]}
        return frozenset(t for t, (a, b) in enumerate(self.qkv) if a == b and t not in busy)

    @property
    def ffn_bystanders(self) -> frozenset[int]:
        """Tiles without rows of gate and up."""
        return frozenset(t for t, (a, b) in enumerate(self.ffn) if a == b)


def row_owners(spans: tuple[Span, ...]) -> int:
    """Number of tiles with rows."""
    return sum(b > a for a, b in spans)


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


def place(config: ModelConfig, design: Design) -> Placement:
    """The placement of a model on a design; deterministic."""
    attention, ffn = _weights(design, "attention"), _weights(design, "ffn")
    rows = (config.heads + 2 * config.kv_heads) * config.head_dim
    return Placement(
        qkv=split(rows, attention),
        hidden=split(config.hidden, ffn),
        ffn=split(config.ffn, ffn),
        vocabulary=split(config.vocab, _weights(design, "vocabulary")),
        units=_attention_units(config, attention, config.layers),
        rope_tile=design.tiles - 1,
        gain_tile=design.tiles // 2,
    )
