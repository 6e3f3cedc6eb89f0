"""Where the tiles of each class lie on the mesh: classes follow each other along an order of the nodes."""

from functools import cache

ARRANGEMENTS = ("rows", "columns", "centre")
"""Row by row, column by column, or outwards from the middle of the mesh."""


@cache
def node_order(width: int, height: int, arrangement: str) -> tuple[int, ...]:
    """Node numbers (y * width + x) in the order in which classes take them."""
    nodes = range(width * height)
    if arrangement == "rows":
        return tuple(nodes)
    if arrangement == "columns":
        return tuple(y * width + x for x in range(width) for y in range(height))
    return tuple(sorted(nodes, key=lambda n: abs(2 * (n % width) - width + 1) + abs(2 * (n // width) - height + 1)))


def node_classes(width: int, height: int, counts: list[int], arrangement: str) -> tuple[int, ...]:
    """Class of every node, the first `counts[0]` nodes of the order being of class 0."""
    classes = [k for k, count in enumerate(counts) for _ in range(count)]
    result = [0] * (width * height)
    for place, k in zip(node_order(width, height, arrangement), classes, strict=True):
        result[place] = k
    return tuple(result)
