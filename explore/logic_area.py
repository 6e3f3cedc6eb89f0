"""Logic of a tile, a router and the host port in gate equivalents, as Yosys maps what the generator emits.

A gate equivalent (GE) is the smallest NAND2 of the library. The coefficients are least-squares fits to
`hwgen synth` with IHP SG13G2; `python -m bench.calibration area` fits them anew and prints their error on other
designs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explore.space import Knobs
from hwgen.compiler.tile_memory import BLOCK

MATRIX = (4200.0, 520.0, 2400.0)
"""GE of a matrix unit: fixed, per VLEN lane, per 32-block."""
VECTOR = (24000.0, 15500.0, 60.0)
"""GE of a vector unit: fixed, per lane, per VLEN lane (the quantiser's word)."""
CONTROL = (9000.0, 1500.0, 2300.0, 6.0, 60.0)
"""GE of sequencer, stations and network interface: fixed, per FETCH, per STATION, per bit of the interface's buffer,
per flit bit."""
ROUTER = (4000.0, 6.4, 95.0)
"""GE of a router: fixed, per buffered bit of one port's virtual channels, per flit bit."""
HOST = 16700.0
"""GE of the host port."""
FLIP_FLOPS = 0.075
"""Flip-flops per GE of a whole chip."""


@dataclass(frozen=True)
class Gates:
    """GE of one tile's units [B, K], of a router [B, 1] and of the host port."""

    matrix: Tensor
    vector: Tensor
    control: Tensor
    router: Tensor
    host: float = HOST

    @property
    def tile(self) -> Tensor:
        """A whole tile without its router and memories."""
        return self.matrix + self.vector + self.control


def gates(knobs: Knobs) -> Gates:
    """Logic of every tile class of a batch."""
    buffered = knobs.flit_bits * knobs.buffer_flits
    fixed, lane, block = MATRIX
    matrix = fixed + lane * knobs.vlen + block * torch.clamp(knobs.vlen / BLOCK, min=1)
    fixed, lane, word = VECTOR
    vector = fixed + lane * knobs.lanes + word * knobs.vlen
    fixed, fetch, station, bit, wire = CONTROL
    control = fixed + fetch * knobs.fetch + station * knobs.stations + bit * buffered + wire * knobs.flit_bits
    fixed, bit, wire = ROUTER
    router = fixed + bit * buffered * knobs.virtual_channels + wire * knobs.flit_bits
    return Gates(matrix, vector, control, router)
