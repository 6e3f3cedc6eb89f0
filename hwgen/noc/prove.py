"""Proofs of a network: every packet arrives, and channels cannot wait for each other in a circle.

They go over every router, but not over every destination: a rule sees no more of a destination than on which sides it
lies and whether it is in the next column, so those nearby stand for all.
"""

from collections import deque
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain, combinations, product

from hwgen.errors import HwgenError
from hwgen.noc.network import ChannelClass, Network
from hwgen.noc.routes import DIRECTIONS, HOST, OPPOSITE, branches

SPANS = ((-1, -1), (-1, 0), (-1, 1), (0, 0), (0, 1), (1, 1))
"""Ends of a rectangle along one axis, relative to a router: all ways to lie around it."""


def prove_network(network: Network) -> None:
    """Raise HwgenError with the counter-example unless the network delivers every packet and cannot deadlock.

    Classes share no channel, and links pass flits of any channel that has credits, so each class is proven by itself.
    """
    for channel_class in network.classes:
        prove_delivery(network, channel_class)
        prove_acyclic(network, channel_class)


def prove_delivery(network: Network, channel_class: ChannelClass) -> None:
    """Raise HwgenError unless every packet of a class arrives by a shortest way, whatever outputs routers choose.

    By induction over the distance: a packet may start anywhere, every output it may take leads one hop nearer, and
    there again it may take one.
    """
    if channel_class.multicast:
        _prove_trees()
    if not channel_class.unicast:
        return
    for x, y in product(range(network.width), range(network.height)):
        # one column and row more than a rule sees: those that it sees after a hop
        for destination in _destinations(network, x, y, range(-2, 4), range(-2, 3)):
            for arrived in network.inputs(x, y):
                outputs = network.outputs(channel_class, x, y, arrived, destination)
                starts = arrived == "local" or (arrived == "west" and x == 0 and destination != HOST)
                if not outputs and not starts:
                    continue  # no packet comes here
                for out in outputs or ("none",):
                    if not _leads_on(network, channel_class, x, y, out, destination):
                        raise HwgenError(
                            f"{channel_class}: a packet to {_node(destination)} that came to {_node((x, y))} from "
                            f"{arrived} must have outputs that lead nearer and on, not {out}")


def _destinations(network, x, y, near_x, near_y):
    columns = [x + dx for dx in near_x if 0 <= x + dx < network.width]
    rows = [y + dy for dy in near_y if 0 <= y + dy < network.height]
    return [HOST, *product(columns, rows)]


def _leads_on(network, channel_class, x, y, out, destination):
    goal_x, goal_y = (0, 0) if destination == HOST else destination
    if (x, y) == (goal_x, goal_y):
        return out == ("west" if destination == HOST else "local")
    dx, dy = DIRECTIONS.get(out, (0, 0))
    nearer = dx * (goal_x - x) + dy * (goal_y - y) > 0
    return nearer and network.outputs(channel_class, x + dx, y + dy, OPPOSITE[out], destination) != ()


def _node(at):
    return "the host" if at == HOST else f"({at[0]},{at[1]})"


def _prove_trees():
    """The outputs of a fork share out what is left of the rectangle: each takes some, together all, none twice.

    `branches` sees only how a rectangle lies around the router, so router (0, 0) of a boundless mesh stands for all.
    """
    for arrived, (x0, x1), (y0, y1) in product(("local", *DIRECTIONS), SPANS, SPANS):
        nodes = set(product(range(x0, x1 + 1), range(y0, y1 + 1)))
        parts = []
        for out in branches(0, 0, arrived, (x0, y0, x1, y1)):
            dx, dy = DIRECTIONS.get(out, (0, 0))
            parts.append(_left(nodes, dx, dy, OPPOSITE[out]) if out in DIRECTIONS else nodes & {(0, 0)})
        if not all(parts) or sorted(chain(*parts)) != sorted(_left(nodes, 0, 0, arrived)):
            raise HwgenError(f"a multicast that came to (0,0) from {arrived} must reach each node that is left of "
                             f"columns {x0} to {x1}, rows {y0} to {y1} once")


def _left(nodes, x, y, arrived):
    """Those of `nodes` that a packet has yet to reach when it comes to router (x, y)."""
    ahead = {
        "local": lambda a, b: True, "west": lambda a, b: a >= x, "east": lambda a, b: a <= x,
        "north": lambda a, b: a == x and b >= y, "south": lambda a, b: a == x and b <= y,
    }[arrived]
    return {node for node in nodes if ahead(*node)}


def prove_acyclic(network: Network, channel_class: ChannelClass, *, wormhole_forks: bool = False) -> None:
    """Raise HwgenError with a cycle if channels of a class may wait for each other, whatever outputs routers choose."""
    graph = channel_dependencies(network, channel_class, wormhole_forks=wormhole_forks)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = _shortest_cycle(graph, error.args[1][0])
        waits = " -> ".join(f"({x},{y}) {out}" for x, y, out in cycle)
        raise HwgenError(f"{channel_class}: the channel dependency graph must be acyclic, not {waits}") from None


def channel_dependencies(network: Network, channel_class: ChannelClass, *, wormhole_forks: bool = False):
    """{channel: channels that a packet which holds it may wait for}; a channel is (x, y, output of the router there).

    It stands for all virtual channels of the class: a packet may take any of them at each hop, so each waits for all of
    the next router, and a cycle among virtual channels is one among these. Channels out of the host ((-1, 0) east) and
    to it ((0, 0) west) are included; local outputs are not, for tiles always sink what arrives.

    A cut-through fork takes all its outputs at once. Yet the later ones, in the order of DIRECTIONS, count as waited
    for by the earlier ones, so the proof also holds for routers that take them one after the other in that order. With
    `wormhole_forks` each waits for each: a fork that passes flits on one by one needs room in all at any time.
    """
    graph = {}
    for x, y in product(range(network.width), range(network.height)):
        # what a rule sees: on either side or not, and whether the last column is the next one
        destinations = _destinations(network, x, y, range(-1, 3), range(-1, 2)) if channel_class.unicast else ()
        around = tuple(network.has(x + dx, y + dy) for dx, dy in DIRECTIONS.values())
        for arrived in network.inputs(x, y):
            ways = {network.outputs(channel_class, x, y, arrived, d) for d in destinations}
            trees = _forks(arrived, around) if channel_class.multicast else ()
            waits = {(x, y, out) for outputs in (*ways, *trees) for out in outputs if out in DIRECTIONS}
            for channel in waits:
                graph.setdefault(channel, set())
            if arrived in DIRECTIONS:
                dx, dy = DIRECTIONS[arrived]
                graph.setdefault((x + dx, y + dy, OPPOSITE[arrived]), set()).update(waits)
            for outputs in trees:
                for first, later in combinations([out for out in outputs if out in DIRECTIONS], 2):
                    graph[x, y, first].add((x, y, later))
                    if wormhole_forks:
                        graph[x, y, later].add((x, y, first))
    return graph


@cache
def _forks(arrived, around):
    """Output sets of multicast packets at a router; `around` tells on which sides it has neighbours."""
    east, west, north, south = around
    return frozenset(
        branches(0, 0, arrived, (x0, y0, x1, y1)) for (x0, x1), (y0, y1) in product(SPANS, SPANS)
        if -west <= x0 and x1 <= east and -north <= y0 and y1 <= south)


def _shortest_cycle(graph, start):
    """The channels of a shortest cycle through `start`, which is first and last; there must be one."""
    before, pending = {}, deque([start])
    while start not in before:
        channel = pending.popleft()
        for follower in sorted(graph[channel]):
            if follower not in before:
                before[follower] = channel
                pending.append(follower)
    cycle = [start, before[start]]
    while cycle[-1] != start:
        cycle.append(before[cycle[-1]])
    return cycle[::-1]
