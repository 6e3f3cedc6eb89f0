"""The program of one tile, phase by phase.

Every tile runs the same phases: embedding, then per layer of its stage q/k/v, attention, output projection, gate/up,
down, then the head. Between phases a vector is gathered on all tiles of the stage; each gather needs the whole of the
one before, so a phase of any tile starts after all tiles ended the phase before last, and buffers are reused without
credits (prove.py). A tile that adds nothing to a gather sends one word instead, so that all know it has what came
before. What the last layer of a stage gives is gathered on the tiles of the next, that of the model on all.
"""

from hwgen.compiler.memory import ROW, Region
from hwgen.compiler.tile_attention import TileAttention
from hwgen.compiler.tile_builder import ATTENTION, GAIN, RESIDUAL, ROPE, H, X
from hwgen.compiler.tile_memory import BLOCK, up
from hwgen.compiler.turns import Segment
from hwgen.compiler.words import table_words, vector_words
from hwgen.isa import Dest, Index, Unit, When

RESULT, LOGITS, LOGITS_LAST, DONE = range(4)
"""Message kinds of the host port."""
LOGITS_CHUNK = 64
FEW_ROWS, CHUNKS = 64, (16, 32)
"""Rows of gate and up at a time, where a tile has few or more of them."""


def ffn_chunk(rows: int) -> int:
    """Rows of gate and up that a tile with `rows` of them works on at a time."""
    return CHUNKS[rows > FEW_ROWS]


class TileProgram(TileAttention):
    """All phases of a stream on a tile, in order."""

    def build(self) -> "TileProgram":
        """Emit all parts."""
        self.part(Segment.EMBEDDING)
        self.begin_token()
        self.part(Segment.LAYERS)
        for layer in range(*self.stage.layers):
            self.qkv(layer)
            self.attention(layer)
            self.project(layer)
            self.gate_up(layer)
            self.down(layer)
        self.head()
        return self

    def begin_token(self):
        """Embedding row to all tiles, tables for this position, constants of bias blocks."""
        config, n = self.config, self.config.hidden
        words = vector_words(n, self.vlen)
        first, stop = self.head_rows
        self.emit(Unit.CONTROL, "RANGE", {"lo": first, "hi": stop})
        if stop > first:
            self.head_rom = self.rom("head" if config.tied else "embed", -1, first, stop, words)
            pieces = [(t, *self.placement.hidden[t]) for t in sorted(self.placement.owners(self.placement.hidden, 0))]
            for t, a, b in pieces:
                piece = self.buffer(f"embed{t}", b - a)
                self.gather(self.head_rom, piece, first=a, n=b - a, index=Index.TOKEN, words=words,
                            base=first * words, when=When.OWNER)
                self.send_all(piece, b - a, self.memory.x.base + a, X, self.placement.stages[0].tiles, when=When.OWNER)
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
            self.send_all(rope, d, self.memory.rope.base, ROPE)
        if config.tied and self.index == self.placement.gain_tile:
            gain = self.buffer("gain.row", config.hidden)
            table = self.rom("gain", -1, 0, 1, table_words(config.hidden, self.vlen))
            self.gather(table, gain, n=config.hidden, words=0, two_limb=1)
            self.send_all(gain, config.hidden, self.memory.gain.base, GAIN)

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
                self.parts[-1].steps[-1].writes = (source.span(length, zeros.size),)

    def _project_rows(self, layer, name, operand, words, rows):
        """Product, residual addition, and the new residual to all tiles."""
        start, stop = rows
        weights = self.rom(name, layer, start, stop, words)
        product = self.buffer("product", stop - start)
        self.matmul(operand, weights, 0, stop - start, words, product)
        residual = self.memory.residual
        n = stop - start
        self.to_vmem("ADD", residual, n, residual, reads=[product.span(0, n)], b=product.base)
        self.send_all(residual, n, self.memory.x.base + start, X, self._readers(name, layer),
                      senders=len(self.placement.owners(self.placement.hidden, layer)))

    def _readers(self, name, layer):
        """Tiles that go on with x after `o` or `down` of a layer; None: all."""
        if name == "o" or layer + 1 < self.stage.layers[1]:
            return self.stage.tiles
        if layer + 1 == self.config.layers:
            return None
        return self.placement.stages[self.placement.stage(self.index) + 1].tiles

    def begin_stage(self):
        """Behind the first stage, which gets it from the embedding: this tile's slice of the residual, out of x."""
        start, stop = self.hidden_rows
        if self.stage.layers[0] and stop > start:
            lead = start % ROW
            self.send(self.memory.x, stop - start + lead, self.memory.residual.base - lead, RESIDUAL, self.index,
                      start=start - lead)

    def project(self, layer):
        """Output projection and residual addition."""
        config = self.config
        length, bias = config.heads * config.head_dim, config.output_bias
        self.part(Segment.LAYERS, front=True)
        self.wait(Unit.VECTOR, ATTENTION, length + len(self.placement.bystanders(layer)), self.memory.attention)
        start, stop = self.hidden_rows
        if layer == self.stage.layers[0] and stop > start:
            lead = start % ROW if layer else 0
            self.wait(Unit.VECTOR, RESIDUAL, stop - start + lead, self.memory.residual)
        if stop > start:
            operand = self.operand("attention", length, bias)
            self.to_x("COPY", self.memory.attention, self.quantised_length(length, bias), operand,
                      self.graph.layers[layer].att_frac)
        self.part(Segment.LAYERS)
        if stop > start:
            self._project_rows(layer, "o", operand, vector_words(length, self.vlen, bias), self.hidden_rows)

    def gate_up(self, layer):
        """silu(gate) * up in chunks, so that sending overlaps computing."""
        config, graph = self.config, self.graph.layers[layer]
        self.part(Segment.LAYERS, front=True)
        self.wait(Unit.VECTOR, X, config.hidden, self.memory.x)
        start, stop = self.ffn_rows
        if stop > start:
            operand, words = self.normed_operand(graph.ffn_norm_frac, config.mlp_bias)
        self.part(Segment.LAYERS)
        if stop == start:
            self.report_arrival(H)
            return
        gate_rom = self.rom("gate", layer, start, stop, words)
        up_rom = self.rom("up", layer, start, stop, words)
        chunk = ffn_chunk(stop - start)
        for a in range(start, stop, chunk):
            n = min(chunk, stop - a)
            name = (a - start) // chunk
            gate, raised, gated, h = (self.buffer(f"{kind}{name}", n) for kind in ("gate", "up", "silu", "h"))
            self.matmul(operand, gate_rom, a - start, n, words, gate)
            self.matmul(operand, up_rom, a - start, n, words, raised)
            self.to_vmem("SILU", gate, n, gated, shift=28 - graph.silu_frac)
            self.to_vmem("MUL", raised, n, h, reads=[gated.span(0, n)], b=gated.base,
                         shift=12 + graph.silu_frac - graph.h_frac)
            self.send_all(h, n, self.memory.h.base + a, H, self.stage.tiles,
                          senders=len(self.placement.owners(self.placement.ffn, layer)))

    def down(self, layer):
        """Down projection and residual addition."""
        config = self.config
        self.part(Segment.LAYERS, front=True)
        self.wait(Unit.VECTOR, H, config.ffn + len(self.placement.ffn_bystanders(layer)), self.memory.h)
        start, stop = self.hidden_rows
        if stop > start:
            operand = self.operand("h", config.ffn, config.mlp_bias)
            self.to_x("COPY", self.memory.h, self.quantised_length(config.ffn, config.mlp_bias), operand,
                      self.graph.layers[layer].h_frac)
        self.part(Segment.LAYERS)
        if stop > start:
            self._project_rows(layer, "down", operand, vector_words(config.ffn, self.vlen, config.mlp_bias),
                               self.hidden_rows)

    def head(self):
        """Final norm, head rows, greedy pick or logits, and exactly one result or done message."""
        config, n = self.config, self.config.hidden
        self.part(Segment.HEAD, front=True)
        self.wait(Unit.VECTOR, X, n, self.memory.x)
        if config.tied:
            self.wait(Unit.VECTOR, GAIN, n, self.memory.gain)
        first, stop = self.head_rows
        if stop > first:
            operand = self._head_operand()
        self.part(Segment.HEAD)
        done = self.buffer("done", 1)
        if stop > first:
            self._head_rows(operand, first, stop)
        # reading x orders the message after the last arrival
        self.to_vmem("COPY", self.memory.x, 1, done, when=When.NOT_TOKENS if stop > first else When.ALWAYS)
        self.send_host(done, 1, DONE, when=When.NOT_TOKENS if stop > first else When.ALWAYS)

    def _head_operand(self):
        """The final norm of x, quantised."""
        config, n = self.config, self.config.hidden
        operand = self.operand("x.head", n)
        shift = self.norm(self.graph.final_norm_frac, When.OUTPUT)
        if config.tied:
            normed = self.buffer("normed", n)
            self.to_vmem("SCALE", self.memory.x, n, normed, sin=1, shift=shift, when=When.OUTPUT)
            self.to_x("MUL", normed, n, operand, self.graph.final_frac, b=self.memory.gain.base,
                      reads=[self.memory.gain.span(0, n)], when=When.OUTPUT,
                      shift=self.graph.final_norm_frac + self.graph.final_gain_frac - self.graph.final_frac)
        else:
            self.to_x("SCALE", self.memory.x, n, operand, self.graph.final_norm_frac, sin=1, shift=shift,
                      when=When.OUTPUT)
        return operand

    def _head_rows(self, operand, first, stop):
        rows, words = stop - first, vector_words(self.config.hidden, self.vlen)
        weights = self.head_rom if self.config.tied else self.rom("head", -1, first, stop, words)
        logits, best = self.buffer("logits", rows), self.buffer("best", 2)
        self.matmul(operand, weights, 0, rows, words, logits, when=When.OUTPUT)
        self.vector("ARGMAX", logits, rows, writes=[best.span()], dst=best.base, b=first & 0xFFFF,
                    stride=first >> 16, when=When.OUTPUT)
        # takes the other units' tokens in either mode
        self.emit(Unit.SEND, "WAIT", {"ctr": self.grant, "count": 0}, reads=[logits.span(), best.span()],
                  when=When.OUTPUT)
        self.send_host(best, 2, RESULT, when=When.TOKENS)
        for start in range(0, rows, LOGITS_CHUNK):
            self.emit(Unit.SEND, "WAIT", {"ctr": self.grant, "count": 1}, when=When.LOGITS)
            last = start + LOGITS_CHUNK >= rows
            self.send_host(logits, min(LOGITS_CHUNK, rows - start), LOGITS_LAST if last else LOGITS, start=start,
                           when=When.LOGITS)
