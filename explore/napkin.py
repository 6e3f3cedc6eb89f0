"""Rough figures of a design, as one would write on a napkin: what critics and surrogate see besides the knobs.

Rows over multipliers for time, gates and bits for area, reads and clocked gates for energy. The networks learn what is
wrong with them; the evaluator (`explore/evaluate.py`) is neither asked nor imported, and every choice here is free of
consequence for what a design is worth.
"""

from math import log

import torch
from torch import Tensor

from explore.action import Codec
from explore.stages import bands
from explore.straight import mixed
from hwgen.design import SHARES

COUNTS = ("embedding", "projections", "attention", "feed_forward", "head", "gathers", "gates", "sram_bits", "rom_bits",
          "rom_reads", "work", "network", "flip_flops")
"""What a design takes, whatever the node: cycles by what they go to, of a step over its tokens, one of each stream;
gates; bits; of a token, bits read from ROM, pJ at 45 nm of units and of the network; and what draws power at every
clock."""
CYCLES = 6
"""The first counts are cycles."""
CLOCK = len(COUNTS)
"""Column of ln Hz, after the counts."""
_LIMITS = {CLOCK + 9: 20, CLOCK + 10: 24, CLOCK + 11: 20}
"""Column of the fullest tile's words -> ln2 of what instructions can address."""
LIMITS = len(_LIMITS)
"""The last hints are of limits, each 1 where far broken."""
HINTS = CLOCK + 13 + LIMITS
_NEEDED = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab", "position", "context", "rom_mm2",
           "weight_bytes", "rom_bits_mm2")


class Napkin:
    """`names`: those of a scenario's features, in their order."""

    def __init__(self, codec: Codec, names: tuple[str, ...]):
        self.codec, self.names = codec, names
        self._at, self._tied = [names.index(f"ln_{name}") for name in _NEEDED], names.index("tied")

    def __call__(self, actions: Tensor, features: Tensor) -> Tensor:
        """[B, HINTS] for actions [B, A] and features [B, F] or [1, F]: logarithms, differentiable.

        First the `COUNTS` as estimated; then clock, tiles, sides, MACs and lanes a cycle, the fewest lanes, tiles with
        attention, copies of the cache, and of the fullest tile heads, words of cache, ROM and vector memory, and rows;
        last, by how much those words pass what can be addressed, from -1 (20 % below) to 1.
        """
        f = dict(zip(_NEEDED, features[:, self._at].exp()[:, :, None].unbind(1), strict=True))
        f["tied"] = features[:, self._tied, None]
        rough = _Rough(f, self.codec.numbers(actions), self._multicast(actions))
        cycles, silicon = rough.cycles(), rough.silicon()
        columns = [*cycles, *silicon, *rough.energy(), *rough.sizes()]
        logs = torch.stack([x.expand(len(actions)) for x in columns], 1).clamp(min=1e-3).log()
        limits = logs.new_tensor([bits * log(2) for bits in _LIMITS.values()])
        return torch.cat([logs, ((logs[:, list(_LIMITS)] - limits) / 0.2).clamp(-1, 1)], 1)

    def _multicast(self, actions):
        labels = self.codec.labels()
        if "multicast=True" not in labels:
            return actions.new_ones(len(actions), dtype=torch.bool)
        return actions[:, labels.index("multicast=True")] > 0.5


class _Rough:
    """`f`: sizes of the workload [B or 1, 1]; `v`: knobs [B] of the chip, [B, K] of tile classes; `multicast` [B]."""

    def __init__(self, f, v, multicast):
        self.f, self.v, self.multicast = f, v, multicast
        self.tiles, self.out = v["width"] * v["height"], f["heads"] * f["head_dim"]
        one = torch.ones_like(self.tiles)
        self.streams, stages = v.get("streams", one), v.get("pipeline_stages", one)
        self.stages = stages.minimum(v["height"].detach()).clamp(min=1).minimum(f["layers"][:, 0])
        column = torch.where(self.stages > 1, v["height"], one)[:, None]
        self.nodes = _split(self.tiles[:, None] / column, v["part"]) * column
        self.layers, self.group = f["layers"][:, 0], f["heads"] / f["kv_heads"]
        self._bands()
        self.on = (self.nodes.detach() > 0).to(self.nodes)
        pairs = torch.where(self.streams >= 2 * self.stages, 2 * one, one)
        self.together = torch.where(self.stages > 1, pairs, self.streams)
        weight = {name: v["vlen"] * v[name] * self.on for name in SHARES}
        self.mean, self.most = {}, {}
        for name, rows, share in (("qkv", self.out + 2 * f["kv_heads"] * f["head_dim"], "attention"),
                                  ("hidden", f["hidden"], "ffn"), ("ffn", f["ffn"], "ffn"),
                                  ("vocab", f["vocab"], "vocabulary")):
            nodes = self.nodes if name == "vocab" else self.band
            total = (weight[share] * nodes).sum(1, keepdim=True).clamp(min=1e-3)
            self.mean[name] = rows * weight[share] / total
            self.most[name] = _up(self.mean[name])
        self.speaks = (self.mean["vocab"] > 0).to(self.nodes)
        self.copied = torch.where(multicast, one, self.stage_tiles)
        self.senders = (self.band * self.mean["hidden"].clamp(max=1)).sum(1).clamp(min=1)
        self._place_heads(weight["attention"])

    def _bands(self):
        """The highest stage as a chip of its own, its layers, and those of the fullest tiles in its terms."""
        height = self.v["height"]
        found = bands(self.stages, height, self.layers).to(height)
        rows, self.deep, self.dense, self.worked, self.lower, self.least, self.usual = found.unbind(1)
        high = height.detach().round()  # multiplied first, so that whole numbers stay so
        self.band, self.stage_tiles = self.nodes * rows[:, None] / high[:, None], self.tiles * rows / high
        self.own = self.layers * rows / high

    def _place_heads(self, weight):
        f, lower = self.f, self.lower[:, None]
        self.able = (self.band * (weight.detach() > 0)).sum(1, keepdim=True).clamp(min=1)
        fraction = weight / (weight * self.band).sum(1, keepdim=True).clamp(min=1e-3)
        self.copies, self.units, self.heads, caches, self.usual_heads = self._heads(
            self.able, fraction, self.deep[:, None])
        able = (self.able / lower).round()
        _, units, heads, more, _ = self._heads(able, fraction * lower, self.least[:, None])
        self.caches = torch.maximum(caches, more)
        self.slots = 2 * torch.maximum(self.heads, heads) + 2 * torch.maximum(self.units, units)
        self.blocks = (f["head_dim"] / 32).clamp(min=1)
        self.head_words = self.words(f["head_dim"]) * f["position"] + f["head_dim"] * self.words(f["position"])
        self.softmax = f["position"] / self.v["lanes"] * (1 + 2 * self.blocks)
        self.norm = 3 * f["hidden"] / self.v["lanes"]

    def _heads(self, able, fraction, layers):
        """(copies of a cache, units, heads, caches, mean of the heads) of a tile, one of `able`."""
        kv, holds = self.f["kv_heads"], (fraction.detach() > 0).to(self.nodes)
        copies = (able / kv).detach().floor().clamp(min=1).minimum(self.group)
        every = kv * copies
        units = torch.where(able > every, holds, holds * _up(every * fraction))
        caches = torch.where(able > every, holds * _up(every * layers / able), units * layers)
        mean = torch.where(able > every, holds * every / able, every * fraction)
        return copies, units, _up(units * self.group / copies), caches, mean * self.group / copies

    def words(self, length):
        return _up(length / self.v["vlen"])

    def slowest(self, x):
        return (x * self.on).amax(1)

    def cycles(self):
        """Cycles [B] of each part, over the tokens of a step."""
        f, v, mean, most = self.f, self.v, self.mean, self.most
        lanes = v["lanes"]
        self.per_flit = v["flit_bits"] / 32
        room = v["buffer_flits"] - 64 / v["flit_bits"]
        self.long = torch.where(room.detach() >= 3, room - 1, room).clamp(min=1)
        self.few = torch.where(self.on > 0, lanes, torch.full_like(lanes, 64.0)).amin(1)
        self.pace = ((self.per_flit + self.few - self.per_flit.minimum(self.few)) / self.few).clamp(min=1)
        settle = 14 + v["width"] + v["height"] / self.stages
        more = self.streams / self.together - 1  # groups that come when the slowest stage has done the one before
        passes = more * self.deep + self.layers
        spread = ((more * self.dense + self.worked) / passes)[:, None]
        (x_time, x_flits), (h_time, h_flits) = self._gather(mean["hidden"]), self._gather(mean["ffn"], 32)
        a_time, a_flits = self._gather(self.heads * f["head_dim"], f["head_dim"])
        self.sent = self.layers * (2 * x_flits + a_flits + h_flits)
        qkv, feed = (rows * self.words(f["hidden"]) * spread for rows in (most["qkv"], 2 * most["ffn"]))
        out, down = (most["hidden"] * self.words(length) * spread for length in (self.out, f["ffn"]))
        tail, residual = 2 * most["hidden"] / lanes, mean["hidden"] > 0
        heads = torch.maximum(self.heads * self.head_words + self.softmax, self.heads * self.softmax + self.head_words)
        busy = self.slowest((self.norm + feed) * (mean["ffn"] > 0))
        phases = (
            self._turns((self.norm + qkv) * (mean["qkv"] > 0), qkv, settle, 4),
            self._turns(heads, 0 * heads, settle + a_time, 2 + self.units * self.blocks + self.heads),
            self._turns((self.out / lanes + out + tail) * residual, out, settle + x_time, 2),
            self._turns((self.norm + feed) * (mean["ffn"] > 0), feed,
                        settle + torch.maximum(h_time - 0.75 * busy, 0.25 * h_time), 4),
            self._turns((f["ffn"] / lanes + down + tail) * residual, down, settle + x_time, 2))
        (qkv, _), (attention, _), (out, _), (feed, _), (down, _) = phases
        piece = (f["hidden"][:, 0] / self.senders / self.per_flit).clamp(min=1) * (1 + 1 / self.long)
        first = torch.maximum(f["hidden"][:, 0] + self.senders, self.senders * piece * (1 + self.copied)) + settle
        rows = most["vocab"] * self.words(f["hidden"]) * self.speaks
        head = self.slowest(rows + (self.norm + f["vocab"] / 1e3 + most["vocab"] / lanes) * self.speaks)
        others, answers = self.together - 1, 4 * self.tiles
        head = head + answers + others * self.slowest(rows).maximum(answers)
        layers = passes / self.streams
        return ((first + others * x_time) / self.together, layers * (qkv + out), layers * attention,
                layers * (feed + down), head / self.together, layers * sum(wait for _, wait in phases))

    def _turns(self, work, matrix, wait, front):
        """(`work`, `wait`) [B] of a phase of all streams in a stage: while one waits, the matrix unit has another's.

        `front`: instructions that must fit into a queue.
        """
        chain = self.slowest(work) + wait
        each = torch.maximum(matrix, work - matrix + wait[:, None])
        stuck = chain / torch.where(self.together > 2, 2.0, 1.0)
        each = self.slowest(torch.where(self.v["stations"] >= front, each, each.maximum(stuck[:, None])))
        longer = torch.where(self.together > 1, (self.together * each / chain).clamp(min=1), torch.ones_like(chain))
        return self.slowest(work) * longer, wait * longer

    def _gather(self, rows, chunk=None):
        """(cycles, flits) [B] of messages of `rows` words on average [B, K] from every tile to all, cut to `chunk`."""
        def cut(count):
            piece = count if chunk is None else torch.minimum(count, torch.ones_like(count) * chunk)
            flits = _up(piece / self.per_flit[:, None])
            return (flits + _up(flits / self.long[:, None])) * (count / piece.clamp(min=1e-3))

        every = (mixed(rows, cut) * self.band).sum(1)
        paced, most = every * self.pace, self.slowest(cut(_up(rows)))
        return torch.where(self.multicast, paced, torch.maximum(paced, most * self.stage_tiles)), every

    def silicon(self):
        """Gates, bits of SRAM and bits of ROM [B]."""
        f, v, mean, most = self.f, self.v, self.mean, self.most
        ports = 5 - 2 / v["width"] - 2 / v["height"]
        self.router = ports * ((ports - 1) * (56 + 0.8 * v["flit_bits"])
                               + v["buffer_flits"] * (33 + 7.2 * v["flit_bits"]))
        tile = 43_000 + 615 * v["vlen"] + 14_300 * v["lanes"] + 1600 * v["fetch"] + 1900 * v["stations"]
        streams = self.streams[:, None]
        gates = (self.nodes * tile).sum(1) + self.tiles * (self.router + 4600 * (self.streams - 1))
        cached = f["context"] * self.words(f["head_dim"]) + f["head_dim"] * self.words(f["context"])
        self.cache = streams * self.caches * cached
        piece, head = _rows(most["hidden"]), _rows(f["head_dim"])
        vectors = (1 + f["tied"] * (1 + self.speaks)) * f["hidden"] + self.out + f["ffn"] + 128
        vectors = vectors + self.speaks * self.senders[:, None] * piece
        vectors = vectors + head * (self.slots + self.heads.clamp(max=2) + 1)
        vectors = vectors + f["context"] * (self.heads.clamp(max=2) + self.caches * self.blocks)
        rows = _rows(most["qkv"]) + 2 * piece + 4 * _rows(most["ffn"]) + _rows(most["vocab"])
        self.vectors = streams * (vectors + rows) * self.on
        self.weights = self.own[:, None] * ((mean["qkv"] + 2 * mean["ffn"]) * self.words(f["hidden"])
                                            + mean["hidden"] * (self.words(self.out) + self.words(f["ffn"])))
        self.weights = self.weights + mean["vocab"] * self.words(f["hidden"])
        self.width = 8 * (v["vlen"] + (v["vlen"] / 32).clamp(min=1))
        operands = streams * (2 * f["hidden"] + self.out + f["ffn"] + f["context"] * self.blocks) / v["vlen"]
        sram = (self.nodes * (32 * self.vectors + (self.cache + operands) * self.width)).sum(1)
        copied = self.copied[:, None]
        program = self.deep[:, None] * (20 + 2 * self.units + self.heads * (6 + copied) + 2 * copied
                                 + _up(most["ffn"] / 24) * (4 + copied))
        program = program + (self.senders * (2 + self.copied))[:, None] * self.speaks
        self.programs = 128 * (self.nodes * program).sum(1)  # of one stream
        self.read = (self.nodes * self.weights * self.width).sum(1)
        stored = (f["rom_mm2"] * f["rom_bits_mm2"])[:, 0] + self.streams * self.programs
        return gates, sram, stored + (self.read - 8 * f["weight_bytes"][:, 0]).clamp(min=0)

    def energy(self):
        """Bits read from ROM, pJ of units, pJ of the network, and clocked flip-flops [B]."""
        f, v = self.f, self.v
        own = self.own[:, None]
        kv = self.usual_heads * self.head_words * own
        root = (self.cache.clamp(min=64) * self.width / 65536).sqrt()
        has = {name: (rows > 0).to(rows) for name, rows in self.mean.items()}
        whole = (has["qkv"] + has["ffn"]) * self.norm + has["hidden"] * (self.out + f["ffn"]) / v["lanes"]
        sums = (4 * self.mean["hidden"] + 3 * self.mean["ffn"]) / v["lanes"]
        vector = self.usual[:, None] * whole + own * (sums + self.usual_heads * self.softmax)
        work = 0.233 * (self.weights + kv) * v["vlen"] + 0.16 * kv * self.width * root
        work = work + vector * (30 * v["lanes"] + 12)
        apart = ((v["width"] + v["height"] / self.stages) / 3).clamp(min=1)
        links = torch.where(self.multicast, self.stage_tiles, self.stage_tiles * apart)
        written = 0.16 * v["flit_bits"][:, None] * (self.vectors.clamp(min=64) / 2048).sqrt()
        network = self.sent * ((self.band * written).sum(1) + links * self.router * 1e-4)
        flops = 3500 + 25 * v["vlen"] + 600 * v["lanes"] + 150 * v["fetch"] + 180 * v["stations"]
        clocked = (self.nodes * flops).sum(1) + 0.11 * self.tiles * self.router
        return self.read + self.programs, (self.nodes * work).sum(1), network, clocked

    def sizes(self):
        """What else tells designs apart."""
        v = self.v
        return (v["clock_mhz"].exp() * 1e6, self.tiles, v["width"] + v["height"], (self.nodes * v["vlen"]).sum(1),
                (self.nodes * v["lanes"]).sum(1), self.few, self.able[:, 0], self.copies[:, 0],
                self.slowest(self.heads), self.slowest(self.cache), self.slowest(self.weights),
                self.slowest(self.vectors), self.slowest(self.most["hidden"]))


def _up(x: Tensor) -> Tensor:
    """Rounded up; gradients pass."""
    return x + ((x - 1e-5).ceil() - x).detach()


def _rows(count: Tensor) -> Tensor:
    """Words of whole rows of 16."""
    return 16 * _up(count / 16)


def _split(count: Tensor, part: Tensor) -> Tensor:
    """Whole numbers of tiles [B, K] that share out `count` [B, 1]."""
    edges = count * (part / part.sum(1, keepdim=True).clamp(min=1e-6)).cumsum(1)
    edges = edges + (edges.round() - edges).detach()
    return torch.cat([edges[:, :1], edges.diff(dim=1)], 1)
