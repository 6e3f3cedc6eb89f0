"""Logic of a tile, a router and the host port in gate equivalents, as Yosys maps what the generator emits.

A gate equivalent (GE) is the smallest NAND2 of the library. The coefficients are least-squares fits to the modules of
five designs, and to 40 routers of 3 to 5 ports, synthesised as `hwgen synth` does with osu018 (errors of the fit: below
1 % for units of a tile, at most 3.1 % for routers); `python -m bench.calibration area` prints the error on others.
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
TURN = (55.9, 0.81)
"""GE of a router for each pair of an input and another output: fixed, per flit bit."""
FLIT = (33.4, 7.24)
"""GE for each flit that a port's buffers hold: fixed, per flit bit."""
STREAM = 4617.0
"""GE for each stream after the first: arrival and token counters, starts. A third of what one tile with four streams
has more than with one (4 stations, VLEN 16, 4 lanes)."""
HOST = 25503.0
"""GE of the host port of a 2x2 chip with one stream (IHP SG13G2): `hwgen synth`, area over that of sg13g2_nand2_1."""
FLIP_FLOPS = {"matrix": 0.041, "lane": 0.036, "vector": 0.088, "control": 0.096, "router": 0.109}
"""Flip-flops per GE of each unit, counted by the same runs; `vector` without its lanes."""


@dataclass(frozen=True)
class Gates:
    """GE of one tile's units [B, K], of the mean router [B, 1] and of the host port.

    `lanes` is that part of `vector`; `ports`: of the mean router.
    """

    matrix: Tensor
    vector: Tensor
    control: Tensor
    router: Tensor
    lanes: Tensor
    ports: Tensor
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
    control = control + STREAM * (knobs.streams - 1)
    ports, turns = _ports(knobs.width, knobs.height)
    router = router_gates(ports, turns, knobs.flit_bits, knobs.buffer_flits * knobs.virtual_channels)
    return Gates(matrix, vector, control + lane * knobs.lanes, router, LANE * knobs.lanes, ports)


def router_gates(ports: Tensor, turns: Tensor, flit_bits: Tensor, flits: Tensor) -> Tensor:
    """GE of a router; `turns` pairs of an input and another output; `flits` of all channels of a port."""
    return turns * (TURN[0] + TURN[1] * flit_bits) + ports * flits * (FLIT[0] + FLIT[1] * flit_bits)


def _ports(width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """(ports, turns) of the mean router of a mesh: the sides of a node along one axis do not depend on the other's."""
    tiles = width * height
    (x, x_squared), (y, y_squared) = ((2 - 2 / n, (4 - 6 / n).clamp(min=0)) for n in (width, height))
    ports, squared = 1 + x + y, 1 + x_squared + y_squared + 2 * (x + y + x * y)
    # the router in the corner (0, 0) has one more, to the host
    corner = width.clamp(max=2) + height.clamp(max=2) - 1
    ports, squared = ports + 1 / tiles, squared + (2 * corner + 1) / tiles
    return ports, squared - ports
