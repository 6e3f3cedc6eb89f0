"""Turns that packets may take at a router, by where in the mesh it stands."""

from functools import cache
from itertools import product

from hwgen.noc.network import ChannelClass
from hwgen.noc.routes import DIRECTIONS, branches

PORTS = ("local", "north", "east", "south", "west")
SIDES = PORTS[1:]
_PAST = {"west": (-1, 0), "east": (1, 0), "north": (0, -1), "south": (0, 1)}
"""Input port -> the way that no packet from there takes: back."""


@cache
def turns(channel_class: ChannelClass, sides: tuple[str, ...], host: bool) -> dict[str, tuple[str, ...]]:
    """Input port -> outputs that packets of a class may take, in the order of PORTS; ports without any are left out.

    `sides` are those with a neighbour; `host` tells whether the router may be (0, 0), with the host on its west port.
    """
    found = set()
    rows = [dx for dx in range(-2, 3) if dx == 0 or ("west" if dx < 0 else "east") in sides]
    columns = [dy for dy in range(-2, 3) if dy == 0 or ("north" if dy < 0 else "south") in sides]
    arrivals = ("local", *sides)
    if channel_class.unicast:
        for x, dx, dy, arrived in product((2, 3), rows, columns, arrivals):
            found |= {(arrived, out) for out in _outputs(channel_class, x, arrived, dx, dy)}
        if host:
            for dx, dy in product((d for d in rows if d >= 0), (d for d in columns if d >= 0)):
                found |= {("west", out) for out in _outputs(channel_class, 0, "local", dx, dy)}
            # whoever may end in (0, 0) may also leave it
            found |= {(i, "west") for i, out in found if out == "local" and i not in ("west", "north")}
    if channel_class.multicast:
        spans = [[(low, high) for low, high in product(ways, ways) if low <= high] for ways in (rows, columns)]
        for (x0, x1), (y0, y1), arrived in product(*spans, {*arrivals, *(["west"] if host else [])}):
            found |= {(arrived, out) for out in branches(0, 0, arrived, (x0, y0, x1, y1))}
    table = {i: tuple(o for o in PORTS if (i, o) in found) for i in PORTS}
    return {arrived: outputs for arrived, outputs in table.items() if outputs}


def _outputs(channel_class, x, arrived, dx, dy):
    if arrived in _PAST and dx * _PAST[arrived][0] + dy * _PAST[arrived][1] > 0:
        return ()
    return channel_class.rule(x, arrived, dx, dy) if dx or dy else ("local",)


def sides_of(width: int, height: int, x: int, y: int) -> tuple[str, ...]:
    """Sides of router (x, y) with a neighbour, in the order of PORTS."""
    return tuple(side for side in SIDES
                 if 0 <= x + DIRECTIONS[side][0] < width and 0 <= y + DIRECTIONS[side][1] < height)
