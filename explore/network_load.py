"""Flits and cycles of the messages between tiles, in closed form per kind of message.

A gather ends when every tile has taken in the words of all others: with the multicast tree every local output carries
all flits once, which no link of the mesh exceeds (`tile_map.py` adds up real routes). Without multicast every sender
repeats its message for each tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.space import Knobs
from explore.straight import ceil, words
from hwgen.rtl.packet import COUNTER_BITS, MAX_UNICAST_FLITS

WORD_BITS = 32


@dataclass(frozen=True)
class Packets:
    """Packet format of every design of a batch [B, 1], as `hwgen.rtl.packet.PacketFormat` has it.

    `several`: payload flits of the longest packet of a gather, below 1 where a buffer is too short for any.
    """

    per_flit: Tensor
    header: Tensor
    several: Tensor

    def flits(self, count: Tensor, gathered: bool) -> Tensor:
        """Flits of a message of `count` words, headers included; 0 words are no message."""
        payload = words(count, self.per_flit)
        limit = self.several.clamp(min=1) if gathered else torch.full_like(self.per_flit, MAX_UNICAST_FLITS)
        return payload + self.header * words(payload, limit)


def _bits(largest: Tensor) -> Tensor:
    """Width of a field that holds 0..largest."""
    return torch.ceil(torch.log2(largest.detach() + 1))


def packets(knobs: Knobs, reach: Tensor) -> Packets:
    """The format for message buffers that end at word `reach` [B, K]."""
    per_flit = knobs.flit_bits / WORD_BITS
    address = _bits(reach.amax(1, keepdim=True) - 1).clamp(3, 16)
    bits = 2 * _bits(knobs.width - 1) + 2 * _bits(knobs.height - 1) + 1 + _bits(knobs.buffer_flits - 1)
    header = ceil((bits + COUNTER_BITS + _bits(per_flit - 1) + address) / knobs.flit_bits)
    joined = (knobs.multicast > 0) & (knobs.tiles > 1)
    several = torch.where(joined, knobs.buffer_flits - header, torch.full_like(header, MAX_UNICAST_FLITS))
    return Packets(per_flit, header, several)


def receive_cycles(per_flit: Tensor, lanes: Tensor) -> Tensor:
    """Cycles that the network interface takes for a payload flit: rows of vector memory that it touches, on average."""
    return (per_flit + lanes - 1) / lanes


def gather_cycles(knobs: Knobs, form: Packets, rows: Tensor, chunk: float | None = None) -> tuple[Tensor, Tensor]:
    """(cycles [B], flits through every local output [B]) of a gather to which tiles send `rows` words each [B, K].

    `chunk`: words of the messages in which a tile sends them; one message where it is None.
    """
    if chunk is None:
        whole, rest = torch.zeros_like(rows), rows
    else:
        whole = torch.floor(rows.detach() / chunk)
        rest = rows - whole * chunk
    full = form.flits(torch.full_like(rows, float(chunk or 0)), True) if chunk else torch.zeros_like(rows)
    sent = whole * full + form.flits(rest, True)
    payload = whole * words(chunk or 0, form.per_flit) + words(rest, form.per_flit)
    flits, carried = (sent * knobs.nodes).sum(1), (payload * knobs.nodes).sum(1)
    slowest = (receive_cycles(form.per_flit, knobs.lanes) * (knobs.nodes > 0)).amax(1).clamp(min=1)
    taken = flits + carried * (slowest - 1)
    repeats = torch.where(knobs.multicast[:, 0] > 0, torch.ones_like(flits), knobs.tiles[:, 0])
    most = (sent * (knobs.nodes > 0)).amax(1) * repeats
    return torch.maximum(taken, most), flits
