"""The program of one tile, phase by phase, with the ROM slices and staging buffers it needs.

Every tile runs the same phases: embedding, then per layer q/k/v, attention, output projection, gate/up, down, then
the head. Between phases a vector is gathered on all tiles; each gather needs the whole of the one before, so a phase
of any tile starts after all tiles ended the phase before last, and buffers are reused without credits (prove.py).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from hwgen.compiler.dependencies import Step
from hwgen.compiler.memory import Region
from hwgen.compiler.place import Placement
from hwgen.compiler.tile_memory import BLOCK, TileMemory, up, value_blocks
from hwgen.compiler.words import table_words, vector_words
from hwgen.design import Design
from hwgen.integer_graph import IntegerGraph
from hwgen.isa import Dest, Index, Instruction, Unit, When

X, RESIDUAL, ROPE, GAIN, QKV, ATTENTION, H, GRANT = 0, 1, 2, 3, 4, 5, 6, 13
"""Arrival counters by what they count."""
RESULT, LOGITS, LOGITS_LAST, DONE = range(4)
"""Message kinds of the host port."""
LOGITS_CHUNK = 64
ROWS_LIMIT = 65535


class RomSlice(NamedTuple):
    """What a ROM region holds: rows `start..stop-1` of matrix `source` of layer `layer` (-1: not in a layer)."""

    region: Region
    source: str
    layer: int
    start: int
    stop: int


@dataclass
class TileProgram:
    """Builder and result for tile `memory.index`."""

    graph: IntegerGraph
    design: Design
    placement: Placement
    memory: TileMemory
    peers: list[TileMemory]
    steps: list[Step] = field(default_factory=list)
    slices: list[RomSlice] = field(default_factory=list)

    def __post_init__(self):
        self.config = self.graph.config
        self.index = self.memory.index
        self.vlen = self.memory.vlen
        self.column, self.line = self.index % self.design.width, self.index // self.design.width
        self.hidden_rows = self.placement.hidden[self.index]
        self.ffn_rows = self.placement.ffn[self.index]
        self.head_rows = self.placement.vocabulary[self.index]

    # --- instructions -------------------------------------------------------------------------------------------

    def emit(self, unit, op, fields, reads=(), writes=(), when=When.ALWAYS):
        self.steps.append(Step(Instruction(unit, op, fields, when), tuple(reads), tuple(writes)))

    def wait(self, unit, counter, count, *regions):
        """Block `unit` until `count` words have arrived, and see them as written by it."""
        if count:
            self.emit(unit, "WAIT", {"ctr": counter, "count": count}, writes=[r.span() for r in regions])

    def vector(self, op, a, n, *, reads=(), writes=(), when=When.ALWAYS, **fields):
        """Vector instruction on `n` words of region `a`; scalar registers are tracked as spans of a pseudo region."""
        reads, writes = [a.span(0, n), *reads], list(writes)
        for key, spans in (("sin", reads), ("sout", writes)):
            if key in fields:
                spans.append((_REGISTERS, fields[key], fields[key] + 1))
        self.emit(Unit.VECTOR, op, {"a": a.base, "n": n, **fields}, reads, writes, when)

    def to_vmem(self, op, a, n, dst, *, when=When.ALWAYS, reads=(), **fields):
        self.vector(op, a, n, reads=reads, writes=[dst.span(0, n)], when=when,
                    dst=dst.base, dkind=Dest.VMEM, **fields)

    def to_x(self, op, a, n, dst, frac, *, when=When.ALWAYS, reads=(), **fields):
        """Quantise the result into operand vector `dst`."""
        self.vector(op, a, n, reads=reads, writes=[dst.span(0, vector_words(n, self.vlen))], when=when,
                    dst=dst.base, dkind=Dest.X, frac=frac, **fields)

    def matmul(self, x, weights, first, rows, words, dst, offset=0, when=When.ALWAYS):
        """Rows `first .. first + rows - 1` of a ROM matrix times x into vmem at dst + offset."""
        for start in range(0, rows, ROWS_LIMIT):
            n = min(rows - start, ROWS_LIMIT)
            self.emit(Unit.MATRIX, "MATMUL",
                      {"x": x.base, "base": weights.base + (first + start) * words, "rows": n, "kwords": words,
                       "stride": words, "dst": dst.base + offset + start},
                      [x.span(0, words)], [dst.span(offset + start, n)], when)

    def gather(self, table, dst, *, first=0, n, index=Index.NONE, words, base=0, two_limb=0, when=When.ALWAYS):
        """Elements first.. of a table row into vmem; `base` words before the table stand for rows it lacks."""
        self.emit(Unit.MATRIX, "GATHER",
                  {"x": first, "base": (table.base - base) % (1 << 24), "rows": n, "stride": words, "dst": dst.base,
                   "index": index, "two_limb": two_limb}, (), [dst.span(0, n)], when)

    def send(self, src, n, target, counter, tile=None, *, start=0, when=When.ALWAYS):
        """n words from src to word `target` of one tile, or of all."""
        width, height = self.design.width, self.design.height
        if tile is None and not self.design.multicast:
            for other in range(self.design.tiles):
                self.send(src, n, target, counter, other, start=start, when=when)
            return
        x0, y0 = (tile % width, tile // width) if tile is not None else (0, 0)
        x1, y1 = (x0, y0) if tile is not None else (width - 1, height - 1)
        self.emit(Unit.SEND, "SEND",
                  {"src": src.base + start, "n": n, "dst": target, "x0": x0, "y0": y0, "x1": x1, "y1": y1,
                   "ctr": counter}, [src.span(start, n)], (), when)

    def send_host(self, src, n, kind, *, start=0, when=When.ALWAYS):
        self.emit(Unit.SEND, "SEND", {"src": src.base + start, "n": n, "dst": kind, "host": 1},
                  [src.span(start, n)], (), when)

    # --- storage --------------------------------------------------------------------------------------------------

    def buffer(self, name, size):
        """The vector-memory staging buffer of that name, made at first use; reused by every layer."""
        found = self._buffers.get(name)
        if found is None or found.size < size:
            found = self._buffers[name] = self.memory.vmem.allocate(name, size)
        return found

    def operand(self, name, length, bias=False):
        """The operand vector of that name; with `bias` its constant block is written once per token."""
        found = self._operands.get(name)
        if found is None:
            found = self._operands[name] = self.memory.xmem.allocate(name, vector_words(length, self.vlen, bias))
        return found

    def rom(self, source, layer, start, stop, words):
        """A ROM region holding rows of a matrix."""
        region = self.memory.rom.allocate(f"{source}.{layer}", (stop - start) * words)
        self.slices.append(RomSlice(region, source, layer, start, stop))
        return region

    # --- phases ---------------------------------------------------------------------------------------------------

    def build(self) -> "TileProgram":
        """Emit the whole program."""
        self._buffers, self._operands = {}, {}
        self.begin_token()
        for layer in range(self.config.layers):
            self.qkv(layer)
            self.attention(layer)
            self.project(layer)
            self.gate_up(layer)
            self.down(layer)
        self.head()
        self.emit(Unit.CONTROL, "END", {})
        return self

    def begin_token(self):
        """Embedding row to all tiles, tables for this position, constants of bias blocks."""
        config, n = self.config, self.config.hidden
        words = vector_words(n, self.vlen)
        first, stop = self.head_rows
        self.emit(Unit.CONTROL, "RANGE", {"lo": first, "hi": stop})
        if stop > first:
            self.head_rom = self.rom("head" if config.tied else "embed", -1, first, stop, words)
            pieces = [(t, a, b) for t, (a, b) in enumerate(self.placement.hidden) if b > a]
            for t, a, b in pieces:
                piece = self.buffer(f"embed{t}", b - a)
                self.gather(self.head_rom, piece, first=a, n=b - a, index=Index.TOKEN, words=words,
                            base=first * words, when=When.OWNER)
                self.send(piece, b - a, self.memory.x.base + a, X, when=When.OWNER)
            for t, a, b in pieces:
                self.send(self.buffer(f"embed{t}", b - a), b - a, self.memory.residual.base, RESIDUAL, t,
                          when=When.OWNER)
        self._shared_tables()
        self._bias_constants()

    def _shared_tables(self):
        config = self.config
        if self.index == self.placement.rope_tile:
            words, d = table_words(config.head_dim, self.vlen), config.head_dim
            rope = self.buffer("rope.row", d)
            table = self.rom("rope", -1, 0, self.graph.context, words)
            self.gather(table, rope, n=d, index=Index.POSITION, words=words, two_limb=1)
            self.send(rope, d, self.memory.rope.base, ROPE)
        if config.tied and self.index == self.placement.gain_tile:
            gain = self.buffer("gain.row", config.hidden)
            table = self.rom("gain", -1, 0, 1, table_words(config.hidden, self.vlen))
            self.gather(table, gain, n=config.hidden, words=0, two_limb=1)
            self.send(gain, config.hidden, self.memory.gain.base, GAIN)

    def _bias_constants(self):
        """Write [64, 1] behind operand vectors that meet a bias, and zeros up to the block where words are short."""
        config = self.config
        biased = [("x", config.hidden, config.attention_bias or config.mlp_bias),
                  ("attention", config.heads * config.head_dim, config.output_bias),
                  ("h", config.ffn, config.mlp_bias)]
        if not any(bias for *_, bias in biased):
            return
        table = self.rom("constant", -1, 0, 1, table_words(2 + BLOCK, self.vlen))
        constant = self.buffer("constant", 2)
        self.gather(table, constant, n=2, words=0, two_limb=1)
        for name, length, bias in biased:
            if not bias:
                continue
            vector = self.operand(name, length, True)
            last = vector_words(length, self.vlen, True) - 1
            self.vector("COPY", constant, 2, writes=[vector.span(last, 1)], dst=vector.base + last,
                        dkind=Dest.X, frac=6)
            source = getattr(self.memory, name)
            if self.vlen < BLOCK and length % BLOCK:
                zeros = Region(source.name, "vmem", source.base + length, up(length, BLOCK) - length)
                self.gather(table, zeros, first=2, n=zeros.size, words=0, two_limb=1)
                self.steps[-1].writes = (source.span(length, zeros.size),)

    def quantised_length(self, length, bias):
        """Elements to quantise: whole blocks where a bias follows, since every word of a block carries its scale."""
        return up(length, BLOCK) if bias and self.vlen < BLOCK else length

    def norm(self, frac, when=When.ALWAYS):
        """Statistics of x into register 1, and the shift that SCALE adds to its exponent."""
        x, n = self.memory.x, self.config.hidden
        epsilon = self.graph.norm_epsilon
        self.vector("MAXABS", x, n, sout=0, when=when)
        self.vector("SUMSQ", x, n, sin=0, sout=1, b=epsilon & 0xFFFF, stride=epsilon >> 16, when=when)
        return -(self.graph.norm_exponent + frac)

    def normed_operand(self, frac, bias):
        """x normalised and quantised."""
        n = self.config.hidden
        operand = self.operand("x", n, self.config.attention_bias or self.config.mlp_bias)
        shift = self.norm(frac)
        self.to_x("SCALE", self.memory.x, self.quantised_length(n, bias), operand, frac, sin=1, shift=shift)
        return operand, vector_words(n, self.vlen, bias)

    def qkv(self, layer):
        """This tile's rows of q, k, v, each sent to the tiles whose units need it."""
        self.wait(Unit.VECTOR, X, self.config.hidden, self.memory.x)
        if layer == 0:
            self.wait(Unit.VECTOR, ROPE, self.config.head_dim, self.memory.rope)
        start, stop = self.placement.qkv[self.index]
        if stop > start:
            bias = self.config.attention_bias
            operand, words = self.normed_operand(self.graph.layers[layer].attn_norm_frac, bias)
            weights = self.rom("qkv", layer, start, stop, words)
            for segment in self._segments(layer, start, stop):
                self._segment(layer, segment, operand, weights, start, words)
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
        for number in range(len(heads) + 1):
            if number < len(heads):
                self._softmax(number, *heads[number][1:])
            if number:
                self._weighted_values(layer, number - 1, *heads[number - 1])

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
        self.send(output, d, self.memory.attention.base + head * d, ATTENTION)

    def _project_rows(self, layer, name, operand, words, rows):
        """Product, residual addition, and the new residual to all tiles."""
        start, stop = rows
        weights = self.rom(name, layer, start, stop, words)
        product = self.buffer("product", stop - start)
        self.matmul(operand, weights, 0, stop - start, words, product)
        residual = self.memory.residual
        n = stop - start
        self.to_vmem("ADD", residual, n, residual, reads=[product.span(0, n)], b=product.base)
        self.send(residual, n, self.memory.x.base + start, X)

    def project(self, layer):
        """Output projection and residual addition."""
        config = self.config
        length, bias = config.heads * config.head_dim, config.output_bias
        self.wait(Unit.VECTOR, ATTENTION, length, self.memory.attention)
        start, stop = self.hidden_rows
        if layer == 0:
            self.wait(Unit.VECTOR, RESIDUAL, stop - start, self.memory.residual)
        if stop > start:
            operand = self.operand("attention", length, bias)
            self.to_x("COPY", self.memory.attention, self.quantised_length(length, bias), operand,
                      self.graph.layers[layer].att_frac)
            self._project_rows(layer, "o", operand, vector_words(length, self.vlen, bias), self.hidden_rows)

    def gate_up(self, layer):
        """silu(gate) * up in chunks, so that sending overlaps computing."""
        config, graph = self.config, self.graph.layers[layer]
        self.wait(Unit.VECTOR, X, config.hidden, self.memory.x)
        start, stop = self.ffn_rows
        if stop == start:
            return
        operand, words = self.normed_operand(graph.ffn_norm_frac, config.mlp_bias)
        gate_rom = self.rom("gate", layer, start, stop, words)
        up_rom = self.rom("up", layer, start, stop, words)
        chunk = 16 if stop - start <= 64 else 32
        for a in range(start, stop, chunk):
            n = min(chunk, stop - a)
            name = (a - start) // chunk
            gate, raised, gated, h = (self.buffer(f"{kind}{name}", n) for kind in ("gate", "up", "silu", "h"))
            self.matmul(operand, gate_rom, a - start, n, words, gate)
            self.matmul(operand, up_rom, a - start, n, words, raised)
            self.to_vmem("SILU", gate, n, gated, shift=28 - graph.silu_frac)
            self.to_vmem("MUL", raised, n, h, reads=[gated.span(0, n)], b=gated.base,
                         shift=12 + graph.silu_frac - graph.h_frac)
            self.send(h, n, self.memory.h.base + a, H)

    def down(self, layer):
        """Down projection and residual addition."""
        config = self.config
        self.wait(Unit.VECTOR, H, config.ffn, self.memory.h)
        start, stop = self.hidden_rows
        if stop > start:
            operand = self.operand("h", config.ffn, config.mlp_bias)
            self.to_x("COPY", self.memory.h, self.quantised_length(config.ffn, config.mlp_bias), operand,
                      self.graph.layers[layer].h_frac)
            self._project_rows(layer, "down", operand, vector_words(config.ffn, self.vlen, config.mlp_bias),
                               self.hidden_rows)

    def head(self):
        """Final norm, head rows, greedy pick or logits, and exactly one result or done message."""
        config, n = self.config, self.config.hidden
        self.wait(Unit.VECTOR, X, n, self.memory.x)
        if config.tied:
            self.wait(Unit.VECTOR, GAIN, n, self.memory.gain)
        done = self.buffer("done", 1)
        first, stop = self.head_rows
        if stop > first:
            self._head_rows(first, stop)
        # reading x orders the message after the last arrival
        self.to_vmem("COPY", self.memory.x, 1, done, when=When.NOT_TOKENS if stop > first else When.ALWAYS)
        self.send_host(done, 1, DONE, when=When.NOT_TOKENS if stop > first else When.ALWAYS)

    def _head_rows(self, first, stop):
        config, n, rows = self.config, self.config.hidden, stop - first
        words = vector_words(n, self.vlen)
        operand = self.operand("x.head", n)
        shift = self.norm(self.graph.final_norm_frac, When.OUTPUT)
        if config.tied:
            normed = self.buffer("normed", n)
            self.to_vmem("SCALE", self.memory.x, n, normed, sin=1, shift=shift, when=When.OUTPUT)
            self.to_x("MUL", normed, n, operand, self.graph.final_frac, b=self.memory.gain.base,
                      reads=[self.memory.gain.span(0, n)], when=When.OUTPUT,
                      shift=self.graph.final_norm_frac + self.graph.final_gain_frac - self.graph.final_frac)
            weights = self.head_rom
        else:
            self.to_x("SCALE", self.memory.x, n, operand, self.graph.final_norm_frac, sin=1, shift=shift,
                      when=When.OUTPUT)
            weights = self.rom("head", -1, first, stop, words)
        logits, best = self.buffer("logits", rows), self.buffer("best", 2)
        self.matmul(operand, weights, 0, rows, words, logits, when=When.OUTPUT)
        self.vector("ARGMAX", logits, rows, writes=[best.span()], dst=best.base, b=first & 0xFFFF,
                    stride=first >> 16, when=When.TOKENS)
        self.send_host(best, 2, RESULT, when=When.TOKENS)
        for start in range(0, rows, LOGITS_CHUNK):
            self.wait_grant()
            last = start + LOGITS_CHUNK >= rows
            self.send_host(logits, min(LOGITS_CHUNK, rows - start), LOGITS_LAST if last else LOGITS, start=start,
                           when=When.LOGITS)

    def wait_grant(self):
        self.emit(Unit.SEND, "WAIT", {"ctr": GRANT, "count": 1}, when=When.LOGITS)


_REGISTERS = Region("registers", "registers", 0, 8)
