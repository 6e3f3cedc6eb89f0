"""Routes of the network as the routers take them: XY, multicast along the XY tree."""

DIRECTIONS = {"east": (1, 0), "west": (-1, 0), "north": (0, -1), "south": (0, 1)}
OPPOSITE = {"east": "west", "west": "east", "north": "south", "south": "north"}


def branches(x: int, y: int, arrived: str, rectangle) -> set[str]:
    """Outputs (`local` and directions) that a packet takes at router (x, y).

    `arrived` is the input port (`local`, or the side it came in from); `rectangle` is (x0, y0, x1, y1), inclusive.
    """
    x0, y0, x1, y1 = rectangle
    out = set()
    if arrived in ("north", "south"):
        if arrived == "south" and y > y0:
            out.add("north")
        if arrived == "north" and y < y1:
            out.add("south")
    else:
        if arrived in ("local", "west") and x < x1:
            out.add("east")
        if arrived in ("local", "east") and x > x0:
            out.add("west")
        if x0 <= x <= x1:
            out |= {d for d, beyond in (("north", y > y0), ("south", y < y1)) if beyond}
    if x0 <= x <= x1 and y0 <= y <= y1:
        out.add("local")
    return out


def tree(source, rectangle):
    """Walk of a packet: yields (router, arrived, outputs) for every router it visits, source (x, y) first."""
    pending = [(source, "local")]
    while pending:
        (x, y), arrived = pending.pop()
        out = branches(x, y, arrived, rectangle)
        yield (x, y), arrived, out
        for d in sorted(out - {"local"}):
            dx, dy = DIRECTIONS[d]
            pending.append(((x + dx, y + dy), OPPOSITE[d]))
