"""Proofs made before anything is emitted: routes reach, channels cannot deadlock, buffers are free when overwritten."""

from graphlib import CycleError, TopologicalSorter

from hwgen.compiler.place import Placement
from hwgen.compiler.route import DIRECTIONS, OPPOSITE, branches, tree
from hwgen.design import Design
from hwgen.errors import HwgenError


def channel_dependencies(design: Design):
    """{(x, y, output): channels it waits for}: every turn that some rectangle can ask of a router, forks included.

    A multicast packet takes all its outputs at once and holds none while it waits: siblings never wait for one another.
    """
    width, height = design.width, design.height
    graph = {}
    for y in range(height):
        for x in range(width):
            for side, (dx, dy) in DIRECTIONS.items():
                if 0 <= x - dx < width and 0 <= y - dy < height:
                    wanted = set()
                    for x0 in {0, x, min(x + 1, width - 1)}:
                        for y0 in {0, y, min(y + 1, height - 1)}:
                            for x1 in {max(x - 1, 0), x, width - 1}:
                                for y1 in {max(y - 1, 0), y, height - 1}:
                                    if x0 <= x1 and y0 <= y1:
                                        wanted |= branches(x, y, OPPOSITE[side], (x0, y0, x1, y1))
                    graph[x - dx, y - dy, side] = {(x, y, out) for out in wanted if _leads(design, x, y, out)}
    return graph


def _leads(design, x, y, out):
    if out == "local":
        return False  # tiles always sink arrivals
    dx, dy = DIRECTIONS[out]
    return 0 <= x + dx < design.width and 0 <= y + dy < design.height


def prove_routes(design: Design) -> None:
    """Raise HwgenError with the cycle if channels can wait for each other, or with the pair that a route misses."""
    try:
        TopologicalSorter(channel_dependencies(design)).prepare()
    except CycleError as error:
        cycle = " -> ".join(f"({x},{y}) {out}" for x, y, out in error.args[1])
        raise HwgenError(f"the channel dependency graph must be acyclic, not {cycle}") from None
    everyone = {(x, y) for y in range(design.height) for x in range(design.width)}
    corners = {(x, y) for x in {0, design.width - 1} for y in {0, design.height - 1}}
    whole = (0, 0, design.width - 1, design.height - 1)
    # XY routes are translation-invariant, so corners and one inner node stand for all sources
    for source in sorted(corners | {(design.width // 2, design.height // 2)}):
        reached = {router for router, _, out in tree(source, whole) if "local" in out}
        if reached != everyone:
            raise HwgenError(f"every tile must be reachable from {source}, not all but {sorted(everyone - reached)[0]}")
        for x, y in everyone:
            if (x, y) not in {router for router, _, out in tree(source, (x, y, x, y)) if "local" in out}:
                raise HwgenError(f"tile {x},{y} must be reachable from {source}")


def phases(placement: Placement):
    """The gathers of one token as (name, senders, receivers): a receiver waits for the words of all senders."""
    tiles = range(len(placement.qkv))
    everyone = frozenset(tiles)

    def owners(spans):
        return frozenset(t for t in tiles if spans[t][1] > spans[t][0])

    for units in placement.units:
        attention = frozenset(u.tile for u in units)
        yield "qkv", owners(placement.qkv), attention
        yield "attention", attention, everyone
        yield "x", owners(placement.hidden), everyone
        yield "h", owners(placement.ffn), everyone
        yield "x", owners(placement.hidden), everyone


def prove_order(design: Design, placement: Placement) -> None:
    """Between two writes of a message buffer, every second writer must have waited for every reader of the first.

    A tile reads a buffer in order to send in the next phase; it is safe to overwrite once every writer has, directly or
    through others, received something that the reader sent after reading. Only tiles that read are followed: those that
    compute rows of the next phase.
    """
    sequence = list(phases(placement))
    for position, (name, _, _) in enumerate(sequence):
        later = next((p for p in range(position + 1, len(sequence)) if sequence[p][0] == name), None)
        if later is None or position + 1 >= len(sequence):
            continue
        readers = sequence[position + 1][1]
        writers = sequence[later][1]
        for reader in readers:
            informed = frozenset((reader,))
            for _, senders, receivers in sequence[position + 1 : later]:
                if writers <= informed:
                    break
                if informed & senders:
                    informed |= receivers
            if not writers <= informed:
                tile = min(writers - informed)
                raise HwgenError(
                    f"tile {tile % design.width},{tile // design.width} must wait for tile "
                    f"{reader % design.width},{reader // design.width} before it overwrites {name} there")
