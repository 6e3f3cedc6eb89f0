"""Cycles of a step, one token of every stream, phase by phase, in closed form per tile class.

Every phase ends in a gather, so the token of one stream takes the sum over phases of the slowest class and of the
gather (ARCHITECTURE.md, section 8). Streams in one stage take turns between phases, groups of them follow each other
through the stages. Throughputs are those of the hardware: a matrix row ceil(K / VLEN) cycles, a vector row
of LANES words one cycle an operand. What the hardware adds to them is `Overheads`, fitted to RTL simulation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.network_load import Packets, gather_cycles, receive_cycles
from explore.scenario import Scenario
from explore.space import Knobs
from explore.stages import groups
from explore.straight import mixed, words
from explore.tile_load import TileLoad, ffn_chunk, row_words, senders_of
from hwgen.compiler.tile_memory import value_blocks

NORM_FRONT, COPY_FRONT = 4, 2
"""Vector instructions before a matrix product: a wait, and a norm or a copy into operand memory."""
PAIR = 2
"""Streams that take turns back and front together; more put each front off until after the next stream's back."""


@dataclass(frozen=True)
class Overheads:
    """Cycles that the hardware adds to its throughputs, measured in RTL simulation by `python -m bench.calibration`.

    `phase`: per phase, filling and draining of units, network and queues. `hop`: per router and phase. `vector`: per
    vector instruction on the critical path; `issue`: per one that follows another at once. `head`: per attention head
    of a tile. `message`: per message of q, k, v. `token`: per step, from the last answer to the first instruction.
    Of streams that take turns: `turn`: per part of the program; `stall`: share of a gather for which the vector unit,
    which waits for it in the order of its instructions, is lost to other streams.
    """

    phase: float = 14.0
    hop: float = 1.0
    vector: float = 7.0
    issue: float = 2.0
    head: float = 7.0
    message: float = 1.0
    token: float = 17.0
    turn: float = 4.0
    stall: float = 0.6


@dataclass(frozen=True)
class Cycles:
    """Cycles of a step, a token of every stream at one position [B], by what they are spent on; `total` is their sum.

    Of one token by class [B, K], mean of its tiles: `rom_words`, `kv_words` that the matrix unit multiplies,
    `rom_reads` (one for two words of 4-bit codes in a row), `vector_busy`, rows that the vector unit takes in, and
    `sent`, flits that a tile sends to all others of its stage. Of one token on the whole chip [B]: `unicast`, flits of
    q, k and v messages; `link_flits`, flits times links.
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
        """Cycles from one step to the next."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, Tensor]:
        """Cycles by what they are spent on."""
        names = ("embedding", "projections", "attention", "feed_forward", "head", "gathers")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Phase:
    """A phase of a layer for one stream.

    By class [B, K] cycles: `work`, from operand to results, of which the matrix unit is busy `matrix` and the vector
    unit `vector`; `front`: vector instructions before the matrix product. `gather` [B]: cycles in which a tile takes in
    what the phase gives, of which `shown` are not hidden in the work. What q, k and v take to arrive is of the heads.
    """

    work: Tensor
    matrix: Tensor
    vector: Tensor
    front: Tensor
    gather: Tensor
    shown: Tensor


def cycles(knobs: Knobs, load: TileLoad, form: Packets, scenario: Scenario, position: int, *,
           output: bool = True, overheads: Overheads | None = None) -> Cycles:
    """Cycles of the step in which all streams are at `position`; `output`: successors are wanted, so the head runs."""
    o = overheads or Overheads()
    c, stages, band = scenario.workload.config, load.stages, load.stages.band
    length = _Lengths(c, knobs, o)
    together, behind = (t[:, 0] for t in groups(knobs))
    more = (behind - 1)[:, None]  # groups that come when the slowest stage has done the one before
    passes = more * stages.layers + c.layers
    spread = (more * stages.dense + stages.worked) / passes  # a lower band has more rows a tile, and fewer layers
    phases, sent = _phases(c, band, load, form, position + 1, length, o, spread)
    settle = o.phase + o.hop * (band.width + band.height)[:, 0]
    spent = {name: _turns(phase, band, together, settle, o) for name, phase in phases.items()}

    def of(*names):
        return passes[:, 0] * sum(spent[name][0] for name in names)

    first = _embedding(c, band, load, form, o) + settle + (together - 1) * phases["down"].gather
    head = _head(c, knobs, load, length, output, together)
    far = o.phase + o.hop * (knobs.width + knobs.height)[:, 0]
    own = c.layers * stages.part  # layers of a tile if it had the rows of the band's
    kv = load.heads.mean * ((position + 1) * words(c.head_dim, knobs.vlen)
                            + c.head_dim * words(position + 1, knobs.vlen))
    unicast = c.layers * _qkv_flits(c, load, form, band)
    sent = own * sent + gather_cycles(band, form, load.hidden.mean)[1] * stages.part
    rom_words, rom_reads = _rom(scenario, load, length, own, output)
    return Cycles(
        embedding=first * behind, projections=of("qkv", "out"), attention=of("heads"), feed_forward=of("feed", "down"),
        head=(head + 2 * far) * behind + o.token, gathers=passes[:, 0] * sum(gather for _, gather in spent.values()),
        rom_words=rom_words, rom_reads=rom_reads, kv_words=own * kv,
        vector_busy=_vector_busy(c, knobs, load, position + 1, own, output), sent=sent, unicast=unicast,
        link_flits=(sent * knobs.nodes).sum(1) * _links(band) + unicast * ((band.width + band.height)[:, 0] / 3 + 1))


class _Lengths:
    """Words of matrix rows [B, K], and cycles of vector instructions."""

    def __init__(self, c, knobs, o):
        self.lanes, self.latency = knobs.lanes, o.vector
        self.head = row_words(c.hidden, knobs.vlen)
        self.qkv = row_words(c.hidden, knobs.vlen, c.attention_bias)
        self.out = row_words(c.heads * c.head_dim, knobs.vlen, c.output_bias)
        self.up = row_words(c.hidden, knobs.vlen, c.mlp_bias)
        self.down = row_words(c.ffn, knobs.vlen, c.mlp_bias)
        self.norm = 3 * self.vector(c.hidden)

    def vector(self, length, operands=1):
        return words(length, self.lanes) * operands + self.latency


def _phases(c, band, load, form, seen, length, o, spread):
    """(the phases of a layer, flits that a tile sends in it to all others)."""
    vector = length.vector
    has = {name: (getattr(load, name).mean > 0).double() for name in ("qkv", "hidden", "ffn")}
    qkv, up = load.qkv.most * length.qkv * spread, 2 * load.ffn.most * length.up * spread
    out, down = (load.hidden.most * row * spread for row in (length.out, length.down))
    heads, kv, arrivals = _attention(c, band, load, form, seen, o)
    heads, kv, arrivals = (spent * spread for spent in (heads, kv, arrivals))
    out_vector = vector(c.heads * c.head_dim) + vector(load.hidden.most, 2)
    down_vector = vector(c.ffn) + vector(load.hidden.most, 2)
    chunk = ffn_chunk(load.ffn).minimum(load.ffn.most.clamp(min=1))
    pieces = torch.ceil(load.ffn.most.detach() / chunk)
    last = load.ffn.most - (pieces - 1) * chunk
    gating = words(load.ffn.most, band.lanes) * 3 * spread
    feed = (length.norm + torch.maximum(up, gating) + vector(last) + vector(last, 2)) * has["ffn"]
    x_gather, x_sent = gather_cycles(band, form, load.hidden.mean)
    h_gather, h_sent = gather_cycles(band, form, load.ffn.mean, chunk)
    # in time all tiles count as the fullest, which fits RTL better than the mean
    fullest = load.heads.most * load.share
    a_gather, _ = gather_cycles(band, form, torch.full_like(fullest, c.head_dim), often=fullest)
    a_sent = load.heads.mean * form.flits(torch.full_like(fullest, c.head_dim), True)
    arrived = (arrivals * (band.nodes > 0)).amax(1)
    norm, copy = (torch.full_like(has["qkv"], front) for front in (NORM_FRONT, COPY_FRONT))
    caching = 1 + load.units.most * (1 + len(value_blocks(c.head_dim))) + load.heads.most
    phases = {
        "qkv": Phase(length.norm * has["qkv"] + qkv, qkv, length.norm * has["qkv"], norm, 0 * arrived, 0 * arrived),
        "heads": Phase(heads + arrivals, kv, heads, caching, a_gather + arrived, a_gather),
        "out": Phase((out_vector + out) * has["hidden"], out, out_vector * has["hidden"], copy, x_gather, x_gather),
        "feed": Phase(feed, up, (length.norm + gating + pieces * o.vector) * has["ffn"], norm, h_gather,
                      _rest(h_gather, (feed * (band.nodes > 0)).amax(1))),
        "down": Phase((down_vector + down) * has["hidden"], down, down_vector * has["hidden"], copy, x_gather,
                      x_gather)}
    return phases, 2 * x_sent + h_sent + a_sent


def _turns(phase, band, together, settle, o):
    """(cycles of work, of its gather) [B] of a phase in which `together` streams take turns.

    One stream alone goes through work and gather. Of several the longest goes on without a pause: that chain, or for
    all of them the matrix unit, the vector unit with its waits, or what a tile takes in. A front that does not fit
    into a queue keeps the sequencer until its wait is over. Where a front comes after the next stream's back, two
    streams share a wait, and the sequencer.
    """
    present = band.nodes > 0
    work, wait = (phase.work * present).amax(1), phase.shown + settle
    chain = work + wait
    apart = torch.where(together > PAIR, 2.0, 1.0)[:, None]
    stalled = phase.vector + o.stall * wait[:, None]
    free = torch.maximum(phase.matrix, phase.vector).maximum(stalled / apart)
    stuck = torch.where(together > PAIR, work.maximum(chain / PAIR), chain)[:, None]
    each = torch.where(band.stations >= phase.front, free, free.maximum(stuck)).minimum(chain[:, None])
    each = (each * present).amax(1).maximum(phase.gather) + o.turn
    longer = torch.where(together > 1, (together * each / chain).clamp(min=1), torch.ones_like(chain))
    return work * longer, wait * longer


def _rom(scenario, load, length, layers, output):
    """(words of weights that a tile multiplies for a token, reads of the ROM) [B, K], mean of its class."""
    rows = {"qkv": (load.qkv, length.qkv), "o": (load.hidden, length.out), "down": (load.hidden, length.down),
            "gate": (load.ffn, length.up), "up": (load.ffn, length.up)}
    mxfp4, head = scenario.workload.mxfp4, "embed" if scenario.workload.tied else "head"
    vocabulary = load.vocabulary.mean * output
    held = sum(row.mean * each for row, each in rows.values())
    reads = sum(row.mean * _reads(each, name in mxfp4) for name, (row, each) in rows.items())
    return (layers * held + vocabulary * length.head,
            layers * reads + vocabulary * _reads(length.head, head in mxfp4))


def _reads(length, narrow):
    """Reads of the ROM for a row of `length` words."""
    return words(length, torch.full_like(length, 2.0)) if narrow else length


def _links(knobs):
    """Links and local outputs that one message to all tiles crosses."""
    hops = (knobs.width + knobs.height)[:, 0] / 3
    return knobs.tiles[:, 0] * torch.where(knobs.multicast[:, 0] > 0, torch.ones_like(hops), hops.clamp(min=1))


def _rest(gather, compute):
    """What is left of a gather that goes on while its words are being computed, the first part excepted."""
    return torch.maximum(gather - 0.75 * compute, 0.25 * gather)


def _attention(c, knobs, load, form, seen, o):
    """(cycles of a layer's heads on the busiest tile, matrix cycles of it, cycles of what arrives) [B, K].

    Of a head, scores and weighted values (matrix unit) enclose the softmax (vector unit), and two heads are under way:
    the longer unit sets the pace, and the last softmax shows as far as no other product hides it. Rotations and new
    cache entries go before the first head; all but the first are hidden behind its scores.
    """
    blocks, held, units = len(value_blocks(c.head_dim)), load.heads.most, load.units.most
    scores, values = seen * words(c.head_dim, knobs.vlen), c.head_dim * words(seen, knobs.vlen)
    softmax = _softmax(c, seen, knobs.lanes)
    turned = 2 * words(c.head_dim, knobs.lanes) + o.issue
    first = units * (turned + c.head_dim + blocks * o.issue) + held * turned
    work = (softmax + o.head) * held
    shown = torch.where(held > 1, (softmax + o.head - values).clamp(min=0), softmax + o.head)
    by_matrix = held * (scores + values) + shown
    spent = 2 * turned + torch.maximum(by_matrix, first - 2 * turned + scores + work + values) * (held > 0)
    lane = receive_cycles(form.per_flit, knobs.lanes)
    arrivals = words(c.head_dim, form.per_flit) * lane + _messages(c, load) * (o.message + form.header)
    arrivals = arrivals * (held + 2 * units)
    away = (load.stages.band.tiles > c.kv_heads).double()
    return spent, held * (scores + values), arrivals * away


def _softmax(c, seen, lanes):
    """Rows [B, K] that a head's maximum, numerators and scaled values take of the vector unit."""
    return words(seen, lanes) * (1 + 2 * len(value_blocks(c.head_dim))) + words(c.head_dim, lanes)


def _vector_busy(c, knobs, load, seen, own, output):
    """Rows [B, K] that a tile's vector unit takes in for a token, a cycle each: operands of its instructions."""
    has = {name: (getattr(load, name).mean > 0).double() for name in ("qkv", "hidden", "ffn", "vocabulary")}

    def rows(length):
        return words(length, knobs.lanes)

    def slice_rows(held):
        return mixed(held.mean, rows)

    norm, head = 3 * rows(c.hidden), rows(c.head_dim)
    layer = (has["qkv"] + has["ffn"]) * norm + has["hidden"] * (rows(c.heads * c.head_dim) + rows(c.ffn))
    sums = 2 * 2 * slice_rows(load.hidden) + 3 * slice_rows(load.ffn)
    attention = load.heads.mean * (2 * head + _softmax(c, seen, knobs.lanes)) + load.units.mean * 3 * head
    last = has["vocabulary"] * (norm + 2 * rows(c.hidden) * int(c.tied)) + slice_rows(load.vocabulary)
    return load.stages.mean * layer + own * (sums + attention) + last * output


def _messages(c, load):
    """Messages in which the q, k or v of a head comes [B, 1]: one a tile that holds rows of it."""
    rows = load.qkv.mean.amax(1, keepdim=True).clamp(min=1e-9)
    return (c.head_dim / rows).clamp(min=1)


def _qkv_flits(c, load, form, band):
    """Flits [B] of a layer's q, k and v to where its heads and caches are.

    The rows of a key-value group lie on the tiles that hold it, so that of one tile a group nothing goes elsewhere.
    """
    each = words(c.head_dim, form.per_flit) + _messages(c, load) * form.header
    away = 1 - 1 / (band.tiles / c.kv_heads).clamp(min=1)
    return (c.heads + 2 * c.kv_heads * load.parts[:, 0]) * (each * away)[:, 0]


def _embedding(c, band, load, form, o):
    """The token's owner reads its row element by element and sends every tile of the first stage its piece twice."""
    senders = senders_of(band, load.hidden)
    piece = c.hidden / senders.clamp(min=1)
    copies = torch.where(band.multicast[:, 0] > 0, torch.ones_like(senders), band.tiles[:, 0])
    flits = form.flits(piece[:, None], True)[:, 0] * copies + form.flits(piece[:, None], False)[:, 0]
    return torch.maximum(c.hidden + o.message * senders, senders * flits)


def _head(c, knobs, load, length, output, together):
    """Cycles of the head and of collecting one answer a tile, for `together` streams."""
    answers = 4 * knobs.tiles[:, 0]
    if not output:
        return answers * together
    has = (load.vocabulary.mean > 0).double()
    vectors = length.norm + (length.vector(c.hidden) + length.vector(c.hidden, 2) if c.tied else 0)
    vectors = (vectors + length.vector(load.vocabulary.most)) * has
    rows = load.vocabulary.most * length.head * has
    present = knobs.nodes > 0
    each = (torch.maximum(rows, vectors) * present).amax(1).maximum(answers)
    return ((vectors + rows) * present).amax(1) + answers + (together - 1) * each
