"""The routers of a mesh: one module for each way to stand in it."""

from hwgen.noc.turns import sides_of
from hwgen.rtl.router import Router


def router_name(width: int, height: int, x: int, y: int) -> str:
    """Module of router (x, y): `router`, the initials of its sides with a neighbour, `host` where the host port is."""
    sides = "".join(side[0] for side in sides_of(width, height, x, y))
    return "_".join(["router", *([sides] if sides else []), *(["host"] if (x, y) == (0, 0) else [])])


def routers(*, width: int, height: int, **knobs) -> dict[str, Router]:
    """Module name -> router, at most 9 for any mesh; `knobs` are the other parameters of `Router`."""
    # the first three columns and rows, and the last, stand in every way there is
    columns, rows = ({*range(min(3, size)), size - 1} for size in (width, height))
    return {
        router_name(width, height, x, y): Router(
            width=width, height=height, sides=sides_of(width, height, x, y), host=(x, y) == (0, 0), **knobs)
        for y in sorted(rows) for x in sorted(columns)
    }
