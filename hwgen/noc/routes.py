"""Routing rules: which outputs a packet may take at a router, for one destination and for a rectangle of them.

x grows east, y grows south. A rule is a function (x, arrived, dx, dy) -> directions, in order of preference: `x` is the
router's column, `arrived` the input port (`local`, or the side it came in from), (dx, dy) the way that is left, not
(0, 0). Every rule is minimal: it returns directions that lead nearer. It returns none for states that its own packets
never get into.
"""

DIRECTIONS = {"east": (1, 0), "west": (-1, 0), "north": (0, -1), "south": (0, 1)}
OPPOSITE = {"east": "west", "west": "east", "north": "south", "south": "north"}
ALONG_ROW, ALONG_COLUMN = ("east", "west"), ("north", "south")
HOST = (-1, 0)
"""Where the host port hangs, as a destination or a source: west of router (0, 0)."""


def _row(dx):
    return ("east",) if dx > 0 else ("west",) if dx else ()


def _column(dy):
    return ("south",) if dy > 0 else ("north",) if dy else ()


def xy(x: int, arrived: str, dx: int, dy: int) -> tuple[str, ...]:
    """Along the row first, then along the column."""
    if dx and arrived in ALONG_COLUMN:
        return ()
    return _row(dx) or _column(dy)


def yx(x: int, arrived: str, dx: int, dy: int) -> tuple[str, ...]:
    """Along the column first, then along the row."""
    if dy and arrived in ALONG_ROW:
        return ()
    return _column(dy) or _row(dx)


def west_first(x: int, arrived: str, dx: int, dy: int) -> tuple[str, ...]:
    """All of the way west first; then any direction that leads nearer."""
    if dx < 0:
        return () if arrived in ALONG_COLUMN else ("west",)
    return _row(dx) + _column(dy)


def odd_even(x: int, arrived: str, dx: int, dy: int) -> tuple[str, ...]:
    """Chiu 2000: no turn from east to a column in even columns, none from a column to west in odd columns."""
    odd = x % 2 == 1
    if dx < 0:
        if odd:  # a packet that leaves the row here could not turn west again
            return () if arrived in ALONG_COLUMN else ("west",)
        return ("west", *_column(dy))
    column = _column(dy) if odd or arrived != "west" else ()
    if dx == 1 and odd and dy:
        return column  # it could not leave the row in the next, even, column, which is its last
    return _row(dx) + column


def branches(x: int, y: int, arrived: str, rectangle) -> tuple[str, ...]:
    """Outputs that a multicast packet takes at router (x, y), all of them, in the order of `DIRECTIONS`, then local.

    `rectangle` is (x0, y0, x1, y1), inclusive.
    """
    x0, y0, x1, y1 = rectangle
    inside = x0 <= x <= x1
    out = []
    if arrived not in ALONG_COLUMN:
        if arrived != "east" and x < x1:
            out.append("east")
        if arrived != "west" and x > x0:
            out.append("west")
    elif not inside:
        return ()
    if inside:
        if arrived != "north" and y > y0:
            out.append("north")
        if arrived != "south" and y < y1:
            out.append("south")
        if y0 <= y <= y1:
            out.append("local")
    return tuple(out)


def tree(source, rectangle):
    """Walk of a multicast packet from node `source` or HOST: yields (router, arrived, outputs) for every router."""
    pending = [((0, 0), "west") if source == HOST else (source, "local")]
    while pending:
        (x, y), arrived = pending.pop()
        out = branches(x, y, arrived, rectangle)
        yield (x, y), arrived, out
        for direction in out:
            if direction != "local":
                dx, dy = DIRECTIONS[direction]
                pending.append(((x + dx, y + dy), OPPOSITE[direction]))
