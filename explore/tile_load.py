"""What every tile class is given: rows, attention heads, memories and instructions, in closed form.

The same rules as `hwgen.compiler` (place, tile_memory, tile_program), for all designs of a batch at once. Rows of a
tile are a mean over its class (they add up exactly) and a maximum (what the slowest tile has: one row more at most).
Layers are those of its pipeline stage (`stages.py`). Every stream has memories and a program of its own.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explore.scenario import Scenario
from explore.space import Knobs
from explore.stages import Stages, groups, stages_of
from explore.straight import ceil, mixed, words
from hwgen.compiler.memory import ROW
from hwgen.compiler.tile_memory import BLOCK, value_blocks
from hwgen.compiler.tile_program import CHUNKS, FEW_ROWS, LOGITS_CHUNK
from hwgen.compiler.words import HIGH_LIMB, LOW_LIMB
from hwgen.isa import WIDTH

PARTS = 5
"""Parts of a layer: streams take turns between them."""
_LIMBS = len({HIGH_LIMB, LOW_LIMB})


@dataclass(frozen=True)
class Rows:
    """Rows of one matrix kind, or what attention has, on a tile [B, K]: the mean of its class, and the most of one."""

    mean: Tensor
    most: Tensor


@dataclass(frozen=True)
class TileLoad:
    """By tile class [B, K], for one tile unless said otherwise.

    `stages` are the pipeline stages. `qkv, hidden, ffn, vocabulary`: rows, but for the last in a layer of a stage.
    `units, heads`: attention units in a layer, and their query heads; a KV head makes `parts` units [B, 1]. `caches`:
    units that the busiest tile keeps a cache for, all layers together; `share` of the layers in which it holds heads.
    `instructions` of a stream. Memories in words of their own, for all streams: `rom`, `rom_most`, `imem`, `vmem`,
    `xmem`, `kvmem`; `rom_word`: bits of a ROM word. `reach`: first word that no message can be sent to. `placed`:
    whether every operator class has a tile [B].
    """

    stages: Stages
    qkv: Rows
    hidden: Rows
    ffn: Rows
    vocabulary: Rows
    units: Rows
    heads: Rows
    parts: Tensor
    caches: Tensor
    share: Tensor
    placed: Tensor
    instructions: Tensor
    rom: Tensor
    rom_most: Tensor
    rom_word: Tensor
    imem: Tensor
    vmem: Tensor
    xmem: Tensor
    kvmem: Tensor
    reach: Tensor


def scale_bytes(vlen: Tensor) -> Tensor:
    """Scale bytes of an MX word."""
    return (vlen / BLOCK).clamp(min=1)


def row_words(length: int, vlen: Tensor, bias: bool = False) -> Tensor:
    """Words of a matrix row, as `hwgen.compiler.words.vector_words`."""
    if not bias:
        return words(length, vlen)
    unit = vlen.clamp(min=BLOCK)
    return words(length, unit) * unit / vlen + 1


def _rows(count: int, weight: Tensor, nodes: Tensor) -> Rows:
    mean = count * weight / (weight * nodes).sum(1, keepdim=True).clamp(min=1e-12)
    return Rows(mean, ceil(mean))


@dataclass(frozen=True)
class _Heads:
    """As in `TileLoad`, of the tiles of one band."""

    units: Rows
    heads: Rows
    parts: Tensor
    caches: Tensor
    share: Tensor


def _heads(c, able, fraction, layers) -> _Heads:
    """`able` tiles [B, 1] share out the heads, a tile of a class `fraction` [B, K]."""
    group = c.heads // c.kv_heads
    parts = torch.floor(able.detach() / c.kv_heads).clamp(1, group)
    count = c.kv_heads * parts  # units of a layer
    even, holds = able > count, (fraction > 0).double()
    mean = torch.where(even, holds * count / able.clamp(min=1), count * fraction)
    units = torch.where(even, holds, ceil(count * fraction))
    caches = torch.where(even, holds * ceil(count * layers / able.clamp(min=1)), units * layers)
    share = torch.where(even, (caches / (units * layers).clamp(min=1e-9)).clamp(max=1), (units > 0).double())
    heads = Rows(mean * group / parts, ceil(units * group / parts))
    return _Heads(Rows(mean, units), heads, parts, caches, share)


def tile_load(knobs: Knobs, scenario: Scenario) -> TileLoad:
    """The load of every tile class of a batch."""
    c = scenario.workload.config
    stages = stages_of(knobs, c.layers)
    band = stages.band
    present = (knobs.nodes > 0).double()
    weight = {name: knobs.vlen * share * present for name, share in knobs.shares.items()}
    able = (band.nodes * (weight["attention"] > 0)).sum(1, keepdim=True)
    fraction = weight["attention"] / (weight["attention"] * band.nodes).sum(1, keepdim=True).clamp(min=1e-12)
    heads = _heads(c, able, fraction, stages.layers)
    lowest = _heads(c, torch.round(able / stages.lower), fraction * stages.lower, stages.few)
    caches = torch.maximum(heads.caches, lowest.caches)
    rows = {
        "qkv": _rows((c.heads + 2 * c.kv_heads) * c.head_dim, weight["attention"], band.nodes),
        "hidden": _rows(c.hidden, weight["ffn"], band.nodes), "ffn": _rows(c.ffn, weight["ffn"], band.nodes),
        "vocabulary": _rows(c.vocab, weight["vocabulary"], knobs.nodes)}
    placed = torch.stack([(w * knobs.nodes).sum(1) > 0 for w in weight.values()], 1).all(1)
    more = rows | {name: Rows(r.mean * stages.lower, ceil(r.mean * stages.lower)) for name, r in rows.items()
                   if name != "vocabulary"}  # a tile of the lowest band has most of a layer
    vmem, reach = (torch.maximum(*both) for both in zip(
        _vector_memory(c, scenario.context, band, rows, heads),
        _vector_memory(c, scenario.context, replace(band, nodes=band.nodes / stages.lower), more, lowest), strict=True))
    instructions = _instructions(c, stages, rows, heads)
    mxfp4 = scenario.workload.mxfp4
    rom = {kind: _rom_words(c, knobs.vlen, {n: getattr(r, kind) for n, r in rows.items()}, layers, mxfp4)
           for kind, layers in (("mean", c.layers * stages.part), ("most", stages.dense))}
    return TileLoad(
        stages=stages, **rows, units=heads.units, heads=heads.heads, parts=heads.parts, caches=caches,
        share=heads.share, placed=placed, instructions=instructions, rom=rom["mean"] * present,
        rom_most=rom["most"] * present, rom_word=rom_word_bits(knobs.vlen, mxfp4),
        imem=ceil(knobs.streams * instructions / knobs.fetch) * present, vmem=vmem * present,
        xmem=knobs.streams * _operand_memory(
            c, scenario.context, knobs.vlen, rows, torch.maximum(heads.heads.most, lowest.heads.most)) * present,
        kvmem=knobs.streams * caches * _cache_words(c, scenario.context, knobs.vlen), reach=reach)


def _rom_words(c, vlen, rows, layers, mxfp4):
    """ROM words: two words of 4-bit codes take one."""
    def part(*names):
        return sum(0.5 if name in mxfp4 else 1.0 for name in names)

    layer = part("qkv") * rows["qkv"] * row_words(c.hidden, vlen, c.attention_bias)
    layer = layer + part("gate", "up") * rows["ffn"] * row_words(c.hidden, vlen, c.mlp_bias)
    layer = layer + rows["hidden"] * (part("o") * row_words(c.heads * c.head_dim, vlen, c.output_bias)
                                      + part("down") * row_words(c.ffn, vlen, c.mlp_bias))
    ends = part("embed") if c.tied else part("embed", "head")
    return layers * layer + ends * rows["vocabulary"] * row_words(c.hidden, vlen)


def rom_word_bits(vlen: Tensor, mxfp4: frozenset[str]) -> Tensor:
    """Bits of a ROM word, as `hwgen.compiler.words.rom_word_bytes`."""
    return 8 * (vlen + (2 if mxfp4 else 1) * scale_bytes(vlen))


def rom_table_bits(c, context: int, vlen: Tensor, mxfp4: frozenset[str] = frozenset()) -> Tensor:
    """Bits of the rotation table and the final gain, which one tile each holds; `vlen`: the mean of all tiles."""
    table = _LIMBS * (context * words(c.head_dim, vlen) + (words(c.hidden, vlen) if c.tied else 0))
    return table * rom_word_bits(vlen, mxfp4)


def _cache_words(c, context, vlen):
    """KV words of one unit in one layer."""
    return context * words(c.head_dim, vlen) + c.head_dim * words(context, vlen)


def _operand_memory(c, context, vlen, rows, heads):
    def vector(length, bias, *names):
        """An operand vector; with a bias every tile has it, as its constants are written everywhere."""
        used = (sum(rows[name].mean for name in names) > 0).double().clamp(min=float(bias))
        return used * row_words(length, vlen, bias)

    fixed = vector(c.hidden, c.attention_bias or c.mlp_bias, "qkv", "ffn") + vector(c.hidden, False, "vocabulary")
    fixed = fixed + vector(c.heads * c.head_dim, c.output_bias, "hidden") + vector(c.ffn, c.mlp_bias, "hidden")
    reach = words(context, vlen.clamp(min=BLOCK)) * vlen.clamp(min=BLOCK) / vlen
    probabilities = heads.clamp(max=2) * len(value_blocks(c.head_dim)) * reach
    return fixed + heads * words(c.head_dim, vlen) + probabilities


def _aligned(count):
    return ceil(count / ROW) * ROW


def _vector_memory(c, context, band, rows, held):
    """(words, first word beyond message buffers), aligned as the compiler does."""
    d, blocks, ctx, heads = c.head_dim, len(value_blocks(c.head_dim)), _up(context), held.heads.most
    most_hidden = (rows["hidden"].most * (band.nodes > 0)).amax(1, keepdim=True)
    # behind the first stage the residual comes from a row start on
    common = _up(c.hidden + BLOCK) + _up(d) + _up(c.hidden * c.tied) + _up(c.heads * d + BLOCK) + _up(c.ffn + BLOCK)
    common = common + _aligned(most_hidden) + ROW * (band.pipeline_stages > 1)
    slots = (heads + 2 * held.units.most) * _up(d)
    # scores, weighted values and head outputs; scale codes of every cache
    own = slots + heads.clamp(max=2) * (ctx + _up(d)) + heads * _up(d) + held.caches * blocks * ctx
    # messages of all streams come first, then what each has of its own
    reach = ROW + band.streams * common + (band.streams - 1) * own + slots
    pieces = (band.nodes * mixed(rows["hidden"].mean, _aligned)).sum(1, keepdim=True)
    speaks = (rows["vocabulary"].mean > 0).double()
    own = own + ROW + speaks * (pieces + ROW + (_up(c.hidden) if c.tied else 0))
    away = (band.tiles > 1).double() * (rows["qkv"].mean > 0)
    own = own + away * _aligned(rows["qkv"].most) + _aligned(rows["hidden"].most) + 4 * _aligned(rows["ffn"].most)
    own = own + _aligned(rows["vocabulary"].most)
    return ROW + band.streams * (common + own), reach


def _up(count: int) -> int:
    return -(-count // ROW) * ROW


def ffn_chunk(ffn: Rows) -> Tensor:
    """Rows of gate and up that a tile works on at a time [B, K], as `hwgen.compiler.tile_program.ffn_chunk`."""
    few, more = (torch.full_like(ffn.most, float(rows)) for rows in CHUNKS)
    return torch.where(ffn.most <= FEW_ROWS, few, more)


def senders_of(band: Knobs, hidden: Rows) -> Tensor:
    """Tiles of a band that have rows of the hidden vector [B]."""
    return (band.nodes * hidden.mean.clamp(max=1)).sum(1)


def _instructions(c, stages, rows, held):
    """Instructions of one stream's program, phase by phase as `TileProgram` emits them, and a STREAM for each part."""
    band = stages.band
    blocks, tiles = len(value_blocks(c.head_dim)), band.tiles
    copies = torch.where(band.multicast > 0, torch.ones_like(tiles), tiles)
    senders = senders_of(band, rows["hidden"])[:, None]
    units, heads = held.units.most, held.heads.most
    has = {name: (r.mean > 0).double() for name, r in rows.items()}
    chunk = ffn_chunk(rows["ffn"])
    segments = rows["qkv"].mean / c.head_dim + has["qkv"]
    away = torch.where(tiles > 1, segments * (1 + (held.parts - 1) * 2 * c.kv_heads / (c.heads + 2 * c.kv_heads)), 0.0)
    layer = has["qkv"] * 3 + 2 + 3 + has["hidden"] * 2 * (3 + copies) + has["ffn"] * 3
    layer = layer + PARTS * (groups(band)[0] > 1)
    more = segments + away + held.share * (units * (1 + blocks) + heads * (4 + 2 * blocks + copies))
    more = more + has["ffn"] * words(rows["ffn"].most, chunk) * (4 + copies)
    start = 3 + has["vocabulary"] * senders * (2 + copies)
    chunks = words(rows["vocabulary"].most, torch.tensor(float(LOGITS_CHUNK), dtype=torch.float64,
                                                         device=tiles.device))
    head = 4 + has["vocabulary"] * (6 + int(c.tied) + 2 * chunks)
    return start + stages.layers * layer + stages.dense * more + head


def program_bits(load: TileLoad, knobs: Knobs) -> Tensor:
    """Bits of a tile's program ROM [B, K]."""
    return load.imem * knobs.fetch * WIDTH
