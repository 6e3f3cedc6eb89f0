"""Cycles of one token, phase by phase, in closed form per tile class.

Every phase ends in a gather, so a token takes the sum over phases of the slowest class and of the gather
(ARCHITECTURE.md, section 8). Throughputs are those of the hardware: a matrix row ceil(K / VLEN) cycles, a vector row
of LANES words one cycle an operand. What the hardware adds to them is `Overheads`, fitted to RTL simulation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.network_load import Packets, gather_cycles, receive_cycles
from explore.scenario import Scenario
from explore.space import Knobs
from explore.straight import words
from explore.tile_load import TileLoad, row_words
from hwgen.compiler.tile_memory import value_blocks


@dataclass(frozen=True)
class Overheads:
    """Cycles that the hardware adds to its throughputs, measured in RTL simulation by `python -m bench.calibration`.

    `phase`: per phase, filling and draining of units, network and queues. `hop`: per router and phase. `vector`: per
    vector instruction on the critical path; `issue`: per one that follows another at once. `head`: per attention head
    of a tile. `message`: per message of q, k, v. `token`: per token, from the last answer to the first instruction.
    `gather`: factor on the cycles of a gather, what forks lose that wait for all their outputs.
    """

    phase: float = 14.0
    hop: float = 1.0
    vector: float = 7.0
    issue: float = 2.0
    head: float = 7.0
    message: float = 1.0
    token: float = 17.0
    gather: float = 1.0


@dataclass(frozen=True)
class Cycles:
    """Cycles of a token at one position [B], by what they are spent on; `total` is their sum.

    By class [B, K], mean of its tiles: `rom_words`, `kv_words` that the matrix unit multiplies, `rom_reads` (one for
    two words of 4-bit codes in a row), `vector_busy` cycles, and `sent`, flits that a tile sends to all others. Of the
    whole chip [B]: `unicast`, flits of q, k and v messages; `link_flits`, flits times links.
    """

    embedding: Tensor
    projections: Tensor
    attention: Tensor
    feed_forward: Tensor
    head: Tensor
    gathers: Tensor
    rom_words: Tensor
    rom_reads: Tensor
    kv_words: Tensor
    vector_busy: Tensor
    sent: Tensor
    unicast: Tensor
    link_flits: Tensor

    @property
    def total(self) -> Tensor:
        """Cycles from one token to the next."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, Tensor]:
        """Cycles by what they are spent on."""
        names = ("embedding", "projections", "attention", "feed_forward", "head", "gathers")
        return {name: getattr(self, name) for name in names}


def cycles(knobs: Knobs, load: TileLoad, form: Packets, scenario: Scenario, position: int, *,
           output: bool = True, overheads: Overheads | None = None) -> Cycles:
    """Cycles of the token at `position`; `output`: its successor is wanted, so the head runs."""
    o = overheads or Overheads()
    c, nodes = scenario.workload.config, knobs.nodes
    present = (nodes > 0).double()

    def slowest(per_class):
        return (per_class * present).amax(1)

    def vector(length, operands=1):
        return words(length, knobs.lanes) * operands + o.vector

    hops = (knobs.width + knobs.height)[:, 0]
    share = _share(c, load)
    settle = o.phase + o.hop * hops
    width, ffn_words = row_words(c.hidden, knobs.vlen), row_words(c.ffn, knobs.vlen, c.mlp_bias)
    out_words = row_words(c.heads * c.head_dim, knobs.vlen, c.output_bias)
    qkv_words = row_words(c.hidden, knobs.vlen, c.attention_bias)
    up_words = row_words(c.hidden, knobs.vlen, c.mlp_bias)
    norm = 3 * vector(c.hidden)
    qkv = norm * (load.qkv.mean > 0) + load.qkv.most * qkv_words
    attention, busy = _attention(c, knobs, load, form, position + 1, o)
    project = (vector(c.heads * c.head_dim) + load.hidden.most * out_words + vector(load.hidden.most, 2))
    chunk = torch.where(load.ffn.most <= 64, 16.0, 32.0).minimum(load.ffn.most.clamp(min=1))
    feed = norm + torch.maximum(2 * load.ffn.most * up_words, words(load.ffn.most, knobs.lanes) * 3)
    last = load.ffn.most - torch.ceil(load.ffn.most.detach() / chunk - 1) * chunk
    feed = (feed + vector(last) + vector(last, 2)) * (load.ffn.mean > 0)
    down = vector(c.ffn) + load.hidden.most * ffn_words + vector(load.hidden.most, 2)
    down, project = (t * (load.hidden.mean > 0) for t in (down, project))
    x_gather, x_sent = gather_cycles(knobs, form, load.hidden.most)
    h_gather, h_sent = gather_cycles(knobs, form, load.ffn.most, 32.0)
    a_rows = load.heads * c.head_dim * share
    a_gather, a_sent = gather_cycles(knobs, form, a_rows, float(c.head_dim))
    gathers = c.layers * (o.gather * (2 * x_gather + a_gather + _rest(h_gather, feed, slowest)) + 5 * settle)
    head, head_busy = _head(c, knobs, load, width, vector, norm, slowest, output)
    head = head + o.token + 2 * settle
    rows = {"qkv": (load.qkv, qkv_words), "o": (load.hidden, out_words), "down": (load.hidden, ffn_words),
            "gate": (load.ffn, up_words), "up": (load.ffn, up_words)}
    layer = sum(row.mean * length for row, length in rows.values())
    output_words = load.vocabulary.mean * width * output
    mxfp4, output_name = scenario.workload.mxfp4, "embed" if c.tied else "head"
    reads = sum(row.mean * _reads(length, name in mxfp4) for name, (row, length) in rows.items())
    output_reads = load.vocabulary.mean * _reads(width, output_name in mxfp4) * output
    kv = load.heads * share * ((position + 1) * words(c.head_dim, knobs.vlen)
                               + c.head_dim * words(position + 1, knobs.vlen))
    unicast = c.layers * _qkv_flits(c, load, form, nodes) * (1 - 1 / knobs.tiles[:, 0])
    sent = c.layers * (2 * x_sent + h_sent + a_sent) + x_sent
    prep = (3 * (words(c.hidden, knobs.lanes) * 2) + words(c.heads * c.head_dim, knobs.lanes)
            + words(c.ffn, knobs.lanes)) * c.layers
    return Cycles(
        embedding=_embedding(c, knobs, load, form, o) + settle,
        projections=c.layers * (slowest(qkv) + slowest(project)), attention=c.layers * slowest(attention),
        feed_forward=c.layers * (slowest(feed) + slowest(down)), head=head, gathers=gathers,
        rom_words=c.layers * layer + output_words, rom_reads=c.layers * reads + output_reads, kv_words=c.layers * kv,
        vector_busy=prep + busy * share * c.layers + head_busy, sent=sent, unicast=unicast,
        link_flits=(sent * nodes).sum(1) * _links(knobs) + unicast * (hops / 3 + 1))


def _reads(length, narrow):
    """Reads of the ROM for a row of `length` words."""
    return words(length, torch.full_like(length, 2.0)) if narrow else length


def _links(knobs):
    """Links and local outputs that one message to all tiles crosses."""
    hops = (knobs.width + knobs.height)[:, 0] / 3
    return knobs.tiles[:, 0] * torch.where(knobs.multicast[:, 0] > 0, torch.ones_like(hops), hops.clamp(min=1))


def _share(c, load):
    """Share of the layers in which a tile holds heads at all, mean of its class."""
    return (load.caches / (load.units * c.layers).clamp(min=1e-9)).clamp(max=1)


def _rest(gather, compute, slowest):
    """What is left of a gather that goes on while its words are being computed, the first part excepted."""
    return torch.maximum(gather - 0.75 * slowest(compute), 0.25 * gather)


def _attention(c, knobs, load, form, seen, o):
    """(cycles of a layer's attention on the busiest tile, vector cycles) [B, K].

    Of a head, scores and weighted values (matrix unit) enclose the softmax (vector unit), and two heads are under way:
    the longer unit sets the pace, and the last softmax shows as far as no other product hides it. Rotations and new
    cache entries go before the first head; all but the first are hidden behind its scores.
    """
    blocks = len(value_blocks(c.head_dim))
    scores, values = seen * words(c.head_dim, knobs.vlen), c.head_dim * words(seen, knobs.vlen)
    row = words(seen, knobs.lanes)
    softmax = row * (1 + 2 * blocks) + words(c.head_dim, knobs.lanes)
    turned = 2 * words(c.head_dim, knobs.lanes) + o.issue
    first = load.units * (turned + c.head_dim + blocks * o.issue) + load.heads * turned
    work = (softmax + o.head) * load.heads
    shown = torch.where(load.heads > 1, (softmax + o.head - values).clamp(min=0), softmax + o.head)
    by_matrix = load.heads * (scores + values) + shown
    spent = 2 * turned + torch.maximum(by_matrix, first - 2 * turned + scores + work + values) * (load.heads > 0)
    lane = receive_cycles(form.per_flit, knobs.lanes)
    arrivals = (load.heads + 2 * load.units) * (words(c.head_dim, form.per_flit) * lane)
    arrivals = arrivals + _messages(c, load) * (o.message + form.header)
    away = (knobs.tiles > 1).double()
    return spent + arrivals * away, softmax * load.heads + first


def _messages(c, load):
    """Messages of q, k and v that a tile takes in: one a head and tile that holds rows of it."""
    rows = load.qkv.mean.amax(1, keepdim=True).clamp(min=1e-9)
    return (load.heads + 2 * load.units) * (c.head_dim / rows).clamp(min=1)


def _qkv_flits(c, load, form, nodes):
    taken = (load.heads + 2 * load.units) * words(c.head_dim, form.per_flit) + _messages(c, load) * form.header
    return (taken * _share(c, load) * nodes).sum(1)


def _embedding(c, knobs, load, form, o):
    """The owner of the token's row reads it element by element and sends every tile's piece twice."""
    senders = (knobs.nodes * (load.hidden.mean > 0)).sum(1)
    piece = c.hidden / senders.clamp(min=1)
    copies = torch.where(knobs.multicast[:, 0] > 0, torch.ones_like(senders), knobs.tiles[:, 0])
    flits = form.flits(piece[:, None], True)[:, 0] * copies + form.flits(piece[:, None], False)[:, 0]
    return torch.maximum(c.hidden + o.message * senders, senders * flits)


def _head(c, knobs, load, width, vector, norm, slowest, output):
    """(cycles of the head and of collecting one answer a tile, vector cycles of a tile)."""
    answers = 4 * knobs.tiles[:, 0]
    if not output:
        return answers, torch.zeros_like(knobs.vlen)
    vectors = norm + (vector(c.hidden) + vector(c.hidden, 2) if c.tied else 0)
    vectors = vectors + vector(load.vocabulary.most)
    has = (load.vocabulary.mean > 0).double()
    return slowest(has * (vectors + load.vocabulary.most * width)) + answers, vectors * has
