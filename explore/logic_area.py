"""Logic of a tile, a router and the host port in gate equivalents, as Yosys maps what the generator emits.

A gate equivalent (GE) is the smallest NAND2 of the library. The coefficients are least-squares fits to the modules of
five designs, synthesised as `hwgen synth` does with osu018 (errors of the fit: below 1 % for units of a tile, 4 % for
routers); `python -m bench.calibration area` prints the error on other designs.
"""

from dataclasses import dataclass

from torch import Tensor

from explore.space import Knobs
from hwgen.compiler.tile_memory import BLOCK

MATRIX = (5104.0, 605.3, 306.1)
"""GE of a matrix unit: fixed, per VLEN lane, per 32-block after the first."""
MXFP4 = (119.0, 29.4, 0.0)
"""What 4-bit codes in the ROM add to it, likewise; from units of VLEN 8 and 32."""
LANE = 12106.0
"""GE of a vector lane."""
VECTOR = (25675.0, 1471.0 + LANE, 4.0)
"""GE of a vector unit: fixed, per lane, the lane itself included, per VLEN lane (quantiser's word)."""
CONTROL = (11522.0, 1597.0, 1911.0, 8.33, 28.7, 695.6)
"""GE of sequencer, stations, counters and network interface: fixed, per FETCH, per station of a unit, per bit of the
interface's buffer, per flit bit, per lane."""
ROUTER = (866.0, 38.5, 22.2, 250.6)
"""GE of a router: fixed, per bit of one port's buffers, per flit bit, per flit of a buffer."""
HOST = 16664.0
"""GE of the host port of a 2x2 chip (IHP SG13G2)."""
FLIP_FLOPS = {"matrix": 0.041, "lane": 0.036, "vector": 0.088, "control": 0.096, "router": 0.109}
"""Flip-flops per GE of each unit, counted by the same runs; `vector` without its lanes."""


@dataclass(frozen=True)
class Gates:
    """GE of one tile's units [B, K], of a router [B, 1] and of the host port; `lanes` is that part of `vector`."""

    matrix: Tensor
    vector: Tensor
    control: Tensor
    router: Tensor
    lanes: Tensor
    host: float = HOST

    @property
    def tile(self) -> Tensor:
        """A whole tile without its router and memories."""
        return self.matrix + self.vector + self.control

    @property
    def flip_flops(self) -> Tensor:
        """Flip-flops of a tile and its router [B, K]."""
        gates_of = {"matrix": self.matrix, "lane": self.lanes, "vector": self.vector - self.lanes,
                    "control": self.control, "router": self.router}
        return sum(share * gates_of[unit] for unit, share in FLIP_FLOPS.items())


def gates(knobs: Knobs, *, mxfp4: bool = False) -> Gates:
    """Logic of every tile class of a batch; `mxfp4`: the ROM has words of 4-bit codes."""
    buffered = knobs.flit_bits * knobs.buffer_flits
    fixed, lane, block = (a + b * mxfp4 for a, b in zip(MATRIX, MXFP4, strict=True))
    matrix = fixed + lane * knobs.vlen + block * (knobs.vlen / BLOCK - 1).clamp(min=0)
    fixed, lane, word = VECTOR
    vector = fixed + lane * knobs.lanes + word * knobs.vlen
    fixed, fetch, station, bit, wire, lane = CONTROL
    control = fixed + fetch * knobs.fetch + station * knobs.stations + bit * buffered + wire * knobs.flit_bits
    fixed, bit, wire, flit = ROUTER
    router = fixed + bit * buffered * knobs.virtual_channels + wire * knobs.flit_bits + flit * knobs.buffer_flits
    return Gates(matrix, vector, control + lane * knobs.lanes, router, LANE * knobs.lanes)
