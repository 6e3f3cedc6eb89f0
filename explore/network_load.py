"""Flits and cycles of the messages between tiles, in closed form per kind of message.

A gather ends when every tile has taken in the words of all others: with the multicast tree every local output carries
all flits once, which no link of the mesh exceeds (`tile_map.py` adds up the links). Without multicast every sender
repeats its message for each tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.space import Knobs
from explore.straight import ceil, neighbours, words
from hwgen.isa import STREAM_COUNTERS, VMEM_BITS, counter_numbers
from hwgen.noc.network import ROUTE_BITS
from hwgen.rtl.packet import MAX_UNICAST_FLITS

WORD_BITS = 32
FORK_LEAST, FORK_FULL = 0.02, 0.36
"""Loss of a gather at empty buffers, and what is added where packets fill them: `noc-bench`, see `_fork_loss`."""


@dataclass(frozen=True)
class Packets:
    """Packet format of every design of a batch [B, 1], as `hwgen.rtl.packet.PacketFormat` has it.

    `several`: payload flits of the packets of a gather, below 1 where a buffer is too short for any.
    """

    per_flit: Tensor
    header: Tensor
    several: Tensor
    routing: Tensor
    """Bits that routers read, which the first flit has to hold."""

    def flits(self, count: Tensor, gathered: bool) -> Tensor:
        """Flits of a message of `count` words, headers included; 0 words are no message."""
        payload = words(count, self.per_flit)
        limit = self.several.clamp(min=1) if gathered else torch.full_like(self.per_flit, MAX_UNICAST_FLITS)
        return payload + self.header * words(payload, limit)


def _bits(largest: Tensor) -> Tensor:
    """Width of a field that holds 0..largest; a logarithm would hang on its last bit."""
    return torch.frexp(largest.detach().ceil()).exponent.to(largest.dtype)


def packets(knobs: Knobs, reach: Tensor) -> Packets:
    """The format for message buffers that end at word `reach` [B, K]."""
    per_flit = knobs.flit_bits / WORD_BITS
    address = _bits(reach.amax(1, keepdim=True) - 1).clamp(3, VMEM_BITS)
    bits = 2 * _bits(knobs.width - 1) + 2 * _bits(knobs.height - 1) + 1 + _bits(knobs.buffer_flits - 1)
    bits = bits + ROUTE_BITS * (knobs.multicast > 0)
    counter = _bits(STREAM_COUNTERS * knobs.streams + 2).clamp(min=counter_numbers(1).bits)
    header = ceil((bits + counter + _bits(per_flit - 1) + address) / knobs.flit_bits)
    joined = (knobs.multicast > 0) & (knobs.tiles > 1)
    room = knobs.buffer_flits - header
    room = torch.where(room.detach() >= 3, room - 1, room)  # `hwgen.noc.gather.multicast_flits`
    several = torch.where(joined, room, torch.full_like(room, MAX_UNICAST_FLITS))
    return Packets(per_flit, header, several, bits)


def receive_cycles(per_flit: Tensor, lanes: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cycles that the network interface takes for a payload flit: rows of vector memory that it touches, on average.

    `rows`: words of the messages, one after the other from a row start; None where they start anywhere.
    """
    step = torch.ones_like(per_flit)
    for power in (2, 4, 8, 16) if rows is not None else ():
        step = torch.where(rows.detach() % power == 0, float(power), step)
    return (per_flit + lanes - torch.minimum(step, torch.minimum(per_flit, lanes))) / lanes


def gather_cycles(knobs: Knobs, form: Packets, rows: Tensor, chunk: float | Tensor | None = None,
                  often: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """(cycles [B], flits that a tile sends [B, K]) of a gather to which a tile sends `rows` words on average [B, K].

    `chunk`: words of the messages in which a tile sends them; one message where it is None. `often`: how often it does
    so, on average. With the multicast knob every message goes once; that the compiler sends a copy to each tile where
    packets of so short a buffer take longer (`multicast_pays`: 3x3 and smaller) is left out.
    """
    def message(count):
        """(flits, payload flits) [B, K] of `count` words."""
        if chunk is None:
            return form.flits(count, True), words(count, form.per_flit)
        whole, full = torch.floor(count.detach() / chunk), torch.zeros_like(count) + chunk
        rest = count - whole * chunk
        return (whole * form.flits(full, True) + form.flits(rest, True),
                whole * words(full, form.per_flit) + words(rest, form.per_flit))

    most, least, share = neighbours(rows)
    (longest, fullest), others = message(most), message(least)
    sent, payload = (often * (share * more + (1 - share) * less)
                     for more, less in zip((longest, fullest), others, strict=True))
    every, carried = ((figure * knobs.nodes).sum(1) for figure in (sent, payload))
    aligned = torch.where(most - rows < 1e-6, most, most + 0.5)  # one with a row more shifts all behind it
    slowest = (receive_cycles(form.per_flit, knobs.lanes, aligned) * (knobs.nodes > 0)).amax(1).clamp(min=1)
    taken = (every + carried * (slowest - 1)) * _fork_loss(knobs, form, fullest)
    repeats = torch.where(knobs.multicast[:, 0] > 0, torch.ones_like(every), knobs.tiles[:, 0])
    slowest_sender = (often * longest * (knobs.nodes > 0)).amax(1) * repeats
    return torch.maximum(taken, slowest_sender), sent


def _fork_loss(knobs: Knobs, form: Packets, payload: Tensor) -> Tensor:
    """Factor [B] on a gather by multicast: a fork waits until every output has room for the whole packet.

    Measured on emitted routers with the bench of `hwgen noc-bench` (all-gather, messages of 12 flits, 3x3 to 16x8,
    buffers of 3, 4 and 8 flits; cycles over flits through a local output, one's own included): 1.03 to 1.05 where
    packets fill half of a buffer, 1.07 to 1.10 at three quarters, 1.35 to 1.43 where they fill it; 2x2 1.02 to 1.25.
    """
    longest = (payload * (knobs.nodes > 0)).amax(1)
    filled = (longest.minimum(form.several[:, 0].clamp(min=1)) + form.header[:, 0]) / knobs.buffer_flits[:, 0]
    crowd = (1 - (4 / knobs.tiles[:, 0]) ** 2).clamp(min=0)  # chips of 2x2 show no loss in RTL simulation
    loss = (FORK_LEAST + FORK_FULL * filled.clamp(max=1) ** 6) * crowd
    return torch.where(knobs.multicast[:, 0] > 0, 1 + loss, torch.ones_like(loss))
