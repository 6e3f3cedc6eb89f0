"""The attention phases of a tile's program: q, k, v rows to the tiles that need them, and the heads of this tile."""

from hwgen.compiler.memory import Region
from hwgen.compiler.tile_builder import ATTENTION, QKV, ROPE, TileBuilder, X
from hwgen.compiler.tile_memory import value_blocks
from hwgen.compiler.turns import Segment
from hwgen.compiler.words import vector_words
from hwgen.isa import Dest, Unit


class TileAttention(TileBuilder):
    """Phases qkv and attention."""

    def qkv(self, layer):
        """This tile's rows of q, k, v, each sent to the tiles whose units need it."""
        self.part(Segment.LAYERS, front=True)
        self.wait(Unit.VECTOR, X, self.config.hidden, self.memory.x)
        if layer == self.stage.layers[0]:
            self.wait(Unit.VECTOR, ROPE, self.config.head_dim, self.memory.rope)
            self.begin_stage()
        start, stop = self.placement.qkv[self.index]
        if stop > start:
            bias = self.config.attention_bias
            operand, words = self.normed_operand(self.graph.layers[layer].attn_norm_frac, bias)
        self.part(Segment.LAYERS)
        if stop > start:
            weights = self.rom("qkv", layer, start, stop, words)
            for segment in self._segments(layer, start, stop):
                self._segment(layer, segment, operand, weights, start, words)
        self.part(Segment.LAYERS, front=True)
        self._expect(layer)

    def _segments(self, layer, start, stop):
        """(order, kind, head or kv, offset in the head, first row, rows) of the pieces of heads in a span of rows."""
        config, d = self.config, self.config.head_dim
        group = config.heads // config.kv_heads
        pieces, row = [], start
        while row < stop:
            kv, inner = divmod(row, (group + 2) * d)
            head, offset = divmod(inner, d)
            n = min(d - offset, stop - row)
            if head < group:
                pieces.append((1, "q", kv * group + head, offset, row, n))
            else:
                pieces.append((0, "k", kv, offset, row, n) if head == group else (2, "v", kv, offset, row, n))
            row += n
        return sorted(pieces)

    def _targets(self, layer, kind, head):
        """(tile, slot, index of the query head in its unit) of the units that use a head."""
        for unit in self.placement.units[layer]:
            if kind != "q" and unit.kv == head:
                yield unit.tile, unit.slot, 0
            elif kind == "q" and unit.first <= head < unit.first + unit.count:
                yield unit.tile, unit.slot, head - unit.first

    def _segment(self, layer, segment, operand, weights, start, words):
        _, kind, head, offset, row, n = segment
        targets = list(self._targets(layer, kind, head))
        local = [t for t in targets if t[0] == self.index]
        if len(targets) == len(local) == 1:
            dst = self._head_buffer(self.memory, kind, *local[0][1:])
            self.matmul(operand, weights, row - start, n, words, dst, offset)
            return
        staging = self.buffer(f"qkv{row - start}", n)
        self.matmul(operand, weights, row - start, n, words, staging)
        for tile, slot, query in targets:
            buffer = self._head_buffer(self.peers[tile], kind, slot, query)
            self.send(staging, n, buffer.base + offset, QKV, tile)

    @staticmethod
    def _head_buffer(memory, kind, slot, query):
        unit = memory.slots[slot]
        return unit.q[query] if kind == "q" else getattr(unit, kind)

    def _expect(self, layer):
        """Wait for the q, k, v words that come as messages."""
        words, d = 0, self.config.head_dim
        regions = []
        for kind, head, tile, slot, query in self.heads_of(layer):
            if tile != self.index:
                continue
            alone = len(list(self._targets(layer, kind, head))) == 1
            row = self._head_row(kind, head)
            start, stop = self.placement.qkv[self.index]
            own = max(0, min(stop, row + d) - max(start, row)) if alone else 0
            if own < d:
                words += d - own
                regions.append(self._head_buffer(self.memory, kind, slot, query))
        self.wait(Unit.VECTOR, QKV, words, *regions)

    def heads_of(self, layer):
        """(kind, head, tile, slot, query) of everything the units of a layer take in."""
        for unit in self.placement.units[layer]:
            yield "k", unit.kv, unit.tile, unit.slot, 0
            yield "v", unit.kv, unit.tile, unit.slot, 0
            for query in range(unit.count):
                yield "q", unit.first + query, unit.tile, unit.slot, query

    def _head_row(self, kind, head):
        """First row of a head in the group-major q/k/v matrix."""
        config = self.config
        group = config.heads // config.kv_heads
        kv, inner = divmod(head, group) if kind == "q" else (head, group + (kind == "v"))
        return (kv * (group + 2) + inner) * config.head_dim

    def attention(self, layer):
        """RoPE, cache rows, and for every query head scores, softmax, weighted values; heads overlap pairwise."""
        units = [u for u in self.placement.units[layer] if u.tile == self.index]
        heads = []
        for unit in units:
            cache = self.memory.caches[layer][unit.slot]
            self._store_key(layer, unit, cache)
            for query in range(unit.count):
                heads.append((unit.first + query, self._query(layer, unit, query, len(heads)), cache))
            self._store_values(unit, cache)
        self.part(Segment.LAYERS)
        for number in range(len(heads) + 1):
            if number < len(heads):
                self._softmax(number, *heads[number][1:])
            if number:
                self._weighted_values(layer, number - 1, *heads[number - 1])
        if self.index in self.placement.bystanders(layer):
            self.report_arrival(ATTENTION)

    def _rope(self, a, frac, **fields):
        d = self.config.head_dim
        self.vector("ROPE", a, d, reads=[self.memory.rope.span(0, d)], b=self.memory.rope.base, shift=26 - frac,
                    frac=frac, **fields)

    def _store_key(self, layer, unit, cache):
        words = vector_words(self.config.head_dim, self.vlen)
        self._rope(self.memory.slots[unit.slot].k, self.graph.layers[layer].k_frac, writes=[cache.k.span()],
                   dst=cache.k.base, dkind=Dest.KROW, stride=words)

    def _query(self, layer, unit, query, number):
        vector = self.memory.q_vectors[number]
        self._rope(self.memory.slots[unit.slot].q[query], self.graph.layers[layer].q_frac, writes=[vector.span()],
                   dst=vector.base, dkind=Dest.X)
        return vector

    def _store_values(self, unit, cache):
        buffer = self.memory.slots[unit.slot].v
        words = -(-self.graph.context // self.vlen)
        for (a, b), codes in zip(value_blocks(self.config.head_dim), cache.codes, strict=True):
            # a value block starts at a multiple of 32 words, so its source is row-aligned
            part = Region(buffer.name, "vmem", buffer.base + a, b - a)
            self.emit(Unit.VECTOR, "COPY",
                      {"a": part.base, "n": b - a, "dst": cache.v.base + a * words, "dkind": Dest.VCOL,
                       "stride": words, "b": codes.base, "frac": 12},
                      [buffer.span(a, b - a)], [cache.v.span(a * words, (b - a) * words), codes.span()])

    def _softmax(self, number, vector, cache):
        way = number % len(self.memory.scores)
        words = vector_words(self.config.head_dim, self.vlen)
        scores = self.memory.scores[way]
        self.emit(Unit.MATRIX, "MATMUL",
                  {"x": vector.base, "base": cache.k.base, "kwords": words, "stride": words, "dst": scores.base,
                   "kv": 1, "dyn_rows": 1}, [vector.span(), cache.k.span()], [scores.span()])
        maximum, total = 2 + way, 4 + way
        self.vector("MAX", scores, scores.size, dyn=1, sout=maximum)
        for codes, p in zip(cache.codes, self.memory.p_vectors[way], strict=True):
            self.vector("EXP", scores, scores.size, dyn=1, sin=maximum, sout=total, b=codes.base,
                        reads=[codes.span()], writes=[p.span()], dst=p.base, dkind=Dest.X)

    def _weighted_values(self, layer, number, head, _, cache):
        way, d = number % len(self.memory.scores), self.config.head_dim
        words = -(-self.graph.context // self.vlen)
        weighted, output = self.memory.weighted[way], self.memory.outputs[number]
        for (a, b), p in zip(value_blocks(d), self.memory.p_vectors[way], strict=True):
            self.emit(Unit.MATRIX, "MATMUL",
                      {"x": p.base, "base": cache.v.base + a * words, "rows": b - a, "stride": words,
                       "dst": weighted.base + a, "kv": 1, "bare": 1, "dyn_k": 1},
                      [p.span(), cache.v.span(a * words, (b - a) * words)], [weighted.span(a, b - a)])
        self.to_vmem("SCALE", weighted, d, output, sin=4 + way, shift=-3 - self.graph.layers[layer].att_frac)
        senders = len({unit.tile for unit in self.placement.units[layer]})
        self.send_all(output, d, self.memory.attention.base + head * d, ATTENTION, self.stage.tiles, senders=senders)
