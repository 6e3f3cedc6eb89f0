"""One design tile by tile: what every tile holds and does, and what real routes put on every link.

The placement is the compiler's own, tile by tile; the evaluator's closed form stands for its mean. Reports show these
maps, and `deviation` tells how far the closed form is off for the design.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from explore.cycles import cycles
from explore.network_load import gather_cycles, packets
from explore.scenario import Scenario
from explore.space import knobs_of
from explore.tile_load import tile_load
from hwgen.compiler.place import Placement, place
from hwgen.compiler.tile_program import ffn_chunk
from hwgen.compiler.words import rom_word_bytes, vector_words
from hwgen.design import Design
from hwgen.isa import KIND_BITS
from hwgen.model_config import ModelConfig
from hwgen.noc.gather import MAX_UNICAST_FLITS, cut
from hwgen.noc.network import bits_for
from hwgen.noc.routes import DIRECTIONS, tree
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.starts import stream_bits

LINK_CLASSES = {"east": "row", "west": "row", "north": "column", "south": "column", "local": "local"}


@dataclass(frozen=True)
class TileMap:
    """Arrays [height, width] of a design for one token of one stream at the scenario's position.

    `weights`: weight elements held. `wmem_kib`: weight ROM used. `fetch`, `vlen`, `lanes`: of its class. `load`: busy
    cycles of its matrix unit. `sent`: flits of its messages to all tiles. `links`: (x, y, output) -> flits.
    """

    weights: np.ndarray
    wmem_kib: np.ndarray
    fetch: np.ndarray
    vlen: np.ndarray
    lanes: np.ndarray
    load: np.ndarray
    sent: np.ndarray
    links: dict = field(repr=False)

    def busiest(self) -> dict[str, float]:
        """Link class (row, column, local) -> flits on its busiest link."""
        found = dict.fromkeys(("row", "column", "local"), 0.0)
        for (_, _, out), flits in self.links.items():
            found[LINK_CLASSES[out]] = max(found[LINK_CLASSES[out]], flits)
        return found


def tile_map(design: Design, scenario: Scenario) -> TileMap:
    """The maps of `design`; takes seconds on a mesh of a thousand tiles."""
    config, placement = scenario.workload.config, place(scenario.workload.config, design)
    words = {kind: np.array([b - a for a, b in getattr(placement, kind)]) for kind in
             ("qkv", "hidden", "ffn", "vocabulary")}
    layers = np.array([b - a for a, b in (placement.stages[placement.stage(t)].layers for t in range(design.tiles))])
    classes = [design.tile_class(t) for t in range(design.tiles)]
    vlen = np.array([c.vlen for c in classes])
    mxfp4 = scenario.workload.mxfp4
    rom, load = _matrix(config, words, layers, vlen, mxfp4)
    word = np.array([rom_word_bytes(int(v), "mxfp4" if mxfp4 else "mxint8") for v in vlen])
    load = load + _attention(config, placement, vlen, scenario.at)
    sent = _sent(config, design, scenario, placement, words, layers)
    links = _gather_links(design, placement, sent)
    for (source, target), flits in _unicast(config, design, scenario, placement).items():
        for link in _path(design, source, target):
            links[link] += flits
    shape = (design.height, design.width)
    return TileMap(
        weights=_weights(config, words, layers).reshape(shape),
        wmem_kib=(rom * word / 1024).reshape(shape),
        fetch=np.array([c.fetch for c in classes]).reshape(shape), vlen=vlen.reshape(shape),
        lanes=np.array([c.lanes for c in classes]).reshape(shape), load=load.reshape(shape),
        sent=sent.reshape(shape), links=dict(links))


def deviation(design: Design, scenario: Scenario, maps: TileMap | None = None) -> dict[str, float]:
    """Relative difference of the closed form to the maps: busiest link of each class, and all matrix cycles."""
    maps = maps or tile_map(design, scenario)
    knobs = knobs_of(design)
    load = tile_load(knobs, scenario)
    form, part = packets(knobs, load.reach), load.stages.part
    timing = cycles(knobs, load, form, scenario, scenario.at)
    embedding = gather_cycles(knobs, form, load.hidden.mean)[1] * (1 - part)  # it is the first stage's alone
    sent = (timing.sent + embedding)[0].numpy()
    kinds = np.array(design.node_class).reshape(design.height, design.width)
    band = sent[kinds[: round(float(load.stages.band.height))]]
    closed = _closed_links(band, float(timing.unicast * part) / band.size, design.multicast)
    closed["matrix"] = float((knobs.nodes * (timing.rom_words + timing.kv_words)).sum())
    real = maps.busiest() | {"matrix": float(maps.load.sum())}
    return {name: closed[name] / real[name] - 1 if real[name] else 0.0 for name in closed}


def _closed_links(sent: np.ndarray, near: float, multicast: bool) -> dict[str, float]:
    """Flits on the busiest link of each class where tiles send `sent` flits [height, width] to all tiles.

    Along the XY tree a row's link carries what its row sends on one side, a column's link what all rows on one side
    send, a local output everything. Without multicast a copy for every tile beyond goes the same way. `near`: flits of
    q, k and v a tile, which go to a tile near by: each crosses about one link of a class.
    """
    def busiest(lines, tiles):
        """Of lines [n, length] of senders; each place of a line stands for so many `tiles` that want a copy."""
        behind = lines.cumsum(1)[:, :-1]
        ahead, places = lines.sum(1, keepdims=True) - behind, np.arange(1, lines.shape[1])
        if not multicast:
            behind, ahead = behind * places[::-1] * tiles, ahead * places * tiles
        return float(np.maximum(behind, ahead).max()) + near if len(places) else 0.0

    return {"row": busiest(sent, len(sent)), "column": busiest(sent.sum(1)[None], 1), "local": float(sent.sum()) + near}


def _weights(config: ModelConfig, rows, layers) -> np.ndarray:
    out = config.heads * config.head_dim
    layer = (rows["qkv"] + 2 * rows["ffn"]) * config.hidden + rows["hidden"] * (out + config.ffn)
    return layers * layer + (1 if config.tied else 2) * rows["vocabulary"] * config.hidden


def _matrix(config: ModelConfig, rows, layers, vlen, mxfp4):
    """(words of weight ROM, words that the matrix unit multiplies for one token) of every tile."""
    def words(kind, length, bias=False):
        return rows[kind] * np.array([vector_words(length, int(v), bias) for v in vlen])

    head = words("vocabulary", config.hidden)
    layer = {"qkv": words("qkv", config.hidden, config.attention_bias),
             "o": words("hidden", config.heads * config.head_dim, config.output_bias),
             "down": words("hidden", config.ffn, config.mlp_bias),
             **dict.fromkeys(("gate", "up"), words("ffn", config.hidden, config.mlp_bias))}
    held = {name: layers * count for name, count in layer.items()} | {"embed": head}
    held |= {} if config.tied else {"head": head}
    rom = sum(-(-count // 2) if name in mxfp4 else count for name, count in held.items())
    return rom, layers * sum(layer.values()) + head


def _attention(config: ModelConfig, placement: Placement, vlen, position: int) -> np.ndarray:
    seen, d = position + 1, config.head_dim
    busy = np.zeros(len(vlen))
    for unit in (unit for units in placement.units for unit in units):
        width = int(vlen[unit.tile])
        busy[unit.tile] += unit.count * (seen * vector_words(d, width) + d * vector_words(seen, width))
    return busy


def _format(design, scenario):
    """Flits of a message of `count` words, a gather's or another's, in the hardware's own packets."""
    reach = int(tile_load(knobs_of(design), scenario).reach.amax())
    least = KIND_BITS + stream_bits(design.streams)
    form = PacketFormat(
        width=design.width, height=design.height, flit_bits=design.flit_bits, buffer_flits=design.buffer_flits,
        address_bits=max(least, bits_for(reach - 1)), multicast=design.multicast,
        virtual_channels=design.virtual_channels, routing=design.routing, streams=design.streams)

    def flits(count, gathered):
        longest = form.multicast_flits if gathered and design.multicast else MAX_UNICAST_FLITS
        return sum(cut(ceil(count / form.words_per_flit), longest, form.header_flits))

    return flits


def _sent(config, design, scenario, placement, rows, layers):
    """Flits of every tile's messages to all tiles of its stage in one token; the embedding row counts where it goes."""
    flits = _format(design, scenario)
    heads = Counter(unit.tile for units in placement.units for unit in units for _ in range(unit.count))
    sent = np.zeros(design.tiles)
    for t in range(design.tiles):
        n, ffn = int(rows["hidden"][t]), int(rows["ffn"][t])
        chunk = ffn_chunk(ffn)
        whole, rest = divmod(ffn, chunk)
        sent[t] = layers[t] * (2 * flits(n, True) + whole * flits(chunk, True) + flits(rest, True))
        sent[t] += heads[t] * flits(config.head_dim, True) + flits(n, True) * (placement.stage(t) == 0)
    return sent


def _gather_links(design: Design, placement: Placement, sent) -> Counter:
    """Output of a router -> flits; what goes from one stage to the next, once a stage, counts as if it stayed."""
    links = Counter()
    width = design.width
    for t, flits in enumerate(sent):
        if not flits:
            continue
        source = t % width, t // width
        first, stop = placement.stages[placement.stage(t)].tiles
        if design.multicast:
            for (x, y), _, outputs in tree(source, (0, first // width, width - 1, stop // width - 1)):
                for out in outputs:
                    links[x, y, out] += flits
        else:
            for target in range(first, stop):
                for link in _path(design, t, target):
                    links[link] += flits
    return links


def _path(design: Design, source: int, target: int):
    """Links of an XY route, the local output last."""
    x, y = source % design.width, source // design.width
    goal_x, goal_y = target % design.width, target // design.width
    while (x, y) != (goal_x, goal_y):
        dx, dy = np.sign(goal_x - x), 0 if goal_x != x else np.sign(goal_y - y)
        yield x, y, next(name for name, step in DIRECTIONS.items() if step == (dx, dy))
        x, y = x + int(dx), y + int(dy)
    yield x, y, "local"


def _unicast(config, design, scenario, placement) -> Counter:
    """(source, target) -> flits of q, k and v rows that go to the tiles whose heads need them."""
    flits, d = _format(design, scenario), config.head_dim
    group = config.heads // config.kv_heads
    found = Counter()

    def rows_of(first, stop):
        tile = members[int(np.searchsorted(starts, first, side="right")) - 1]
        while first < stop:
            end = min(stop, placement.qkv[tile][1])
            if end > first:
                yield tile, end - first
            first, tile = max(first, end), tile + 1

    for layer, units in enumerate(placement.units):
        members = placement.members(layer)
        starts = np.array([placement.qkv[t][0] for t in members])
        for unit in units:
            base = unit.kv * (group + 2)
            for head in (*(base + q - unit.kv * group for q in range(unit.first, unit.first + unit.count)),
                         base + group, base + group + 1):
                for tile, count in rows_of(head * d, (head + 1) * d):
                    if tile != unit.tile:
                        found[tile, unit.tile] += flits(count, False)
    return found
