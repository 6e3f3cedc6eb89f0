"""The routing relation of `hwgen.noc`, whose channel graph is proven acyclic, as logic to hold the router against."""

from functools import reduce
from operator import and_, or_

from amaranth.hdl import C

from hwgen.noc.network import Network
from hwgen.noc.routes import HOST, branches


def permitted_outputs(network: Network, port: str, channel: int, ports, my, fields) -> dict:
    """Output -> whether a packet may (unicast) or must (multicast) take it; no output at all: it can never be here.

    The packet came in by `port` in virtual channel `channel`; `my` is the router's (x, y), `fields` its header by name,
    both as values. A unicast packet is one whose rectangle is one node.
    """
    channel_class = next(c for c in network.classes if channel in c.channels)
    terms = {o: [] for o in ports}
    for x, y, rectangle in _cases(network, port):
        host = rectangle == HOST
        x0, y0, x1, y1 = (0, 0, 0, 0) if host else rectangle
        if (x0, y0) == (x1, y1):
            outputs = network.outputs(channel_class, x, y, port, HOST if host else (x0, y0)) \
                if channel_class.unicast else ()
        else:
            outputs = branches(x, y, port, rectangle) if channel_class.multicast else ()
        if not outputs:
            continue
        wanted = {"x0": x0, "y0": y0, "host": int(host)} | ({"x1": x1, "y1": y1} if network.multicast else {})
        case = [_is(my[0], x), _is(my[1], y), *(_is(fields[name], value) for name, value in wanted.items())]
        for o in outputs:
            terms[o].append(reduce(and_, case))
    return {o: reduce(or_, cases, C(0, 1)) for o, cases in terms.items()}


def _cases(network, port):
    columns, rows = range(network.width), range(network.height)
    rectangles = [HOST] + [
        (x0, y0, x1, y1) for x0 in columns for x1 in columns[x0:] for y0 in rows for y1 in rows[y0:]
        if network.multicast or (x0, y0) == (x1, y1)
    ]
    for y in rows:
        for x in columns:
            if port in network.inputs(x, y) and (port != "west" or x > 0 or y == 0):
                yield from ((x, y, rectangle) for rectangle in rectangles)


def _is(field, value):
    return field == value if len(field) else C(value == 0, 1)
