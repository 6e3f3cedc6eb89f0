"""Routes in logic are those of `hwgen.noc`, at every place of a mesh, and no turn that a packet needs is left out."""

from itertools import product

import pytest
from amaranth.hdl import Const, Module, Signal, Value
from amaranth.sim import Simulator

from hwgen.noc.network import Network
from hwgen.noc.routes import HOST, branches
from hwgen.noc.turns import PORTS, sides_of, turns
from hwgen.rtl.head_routes import HeadRoutes
from hwgen.rtl.packet import routing_fields

WIDTH, HEIGHT = 4, 3
FIELDS = routing_fields(width=WIDTH, height=HEIGHT, buffer_flits=4)


def _header(**values):
    return sum(value << FIELDS[name][0] for name, value in values.items())


def _logic(channel_class, arrived, host):
    """A circuit from header and place to outputs; `second` makes a router that may choose take the second output."""
    m, flit, x, y, second = Module(), Signal(32), Signal(2), Signal(2), Signal()
    outputs = HeadRoutes(flit, FIELDS, x, y, arrived, host).outputs(channel_class, lambda a, b: second)
    out = Signal(len(PORTS))
    for n, port in enumerate(PORTS):
        m.d.comb += out[n].eq(Value.cast(outputs.get(port, Const(0))))
    return m, (flit, x, y, second, out)


def _check(cases, channel_class, arrived, host):
    m, (flit, x, y, second, out) = _logic(channel_class, arrived, host)

    async def bench(ctx):
        for (at_x, at_y), header, choose, expected in cases:
            ctx.set(flit, header), ctx.set(x, at_x), ctx.set(y, at_y), ctx.set(second, choose)
            taken = {port for n, port in enumerate(PORTS) if ctx.get(out) >> n & 1}
            allowed = turns(channel_class, sides_of(WIDTH, HEIGHT, at_x, at_y), host).get(arrived, ())
            assert expected <= set(allowed), f"at {at_x},{at_y} from {arrived} a turn to {expected} is left out"
            assert taken & set(allowed) == expected, f"at {at_x},{at_y} from {arrived}, header {header:x}"

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("routing", ["xy", "yx", "west-first", "odd-even"])
def test_unicast_goes_as_its_rule_says(routing):
    network = Network(WIDTH, HEIGHT, routing, 1, False, 4, 32)
    channel_class, = network.classes
    nodes = [*product(range(WIDTH), range(HEIGHT))]
    for arrived, host in product(PORTS, (False, True)):
        cases = []
        for (x, y), goal in product([(0, 0)] if host else nodes[1:], [*nodes, HOST]):
            ways = network.outputs(channel_class, x, y, arrived, goal) if arrived in network.inputs(x, y) else ()
            header = _header(host=1) if goal == HOST else _header(x0=goal[0], x1=goal[0], y0=goal[1], y1=goal[1])
            cases += [((x, y), header, second, {ways[min(second, len(ways) - 1)]}) for second in (0, 1) if ways]
        if not host and arrived == "west":
            cases = [case for case in cases if case[0][0] > 0]
        if cases:
            _check(cases, channel_class, arrived, host)


def test_multicast_goes_along_the_xy_tree():
    channel_class, = Network(WIDTH, HEIGHT, "xy", 1, True, 4, 32).classes
    spans = [[(a, b) for a, b in product(range(size), repeat=2) if a <= b] for size in (WIDTH, HEIGHT)]
    for arrived in PORTS:
        cases = []
        for (x, y), (x0, x1), (y0, y1) in product(product(range(WIDTH), range(HEIGHT)), *spans):
            ways = branches(x, y, arrived, (x0, y0, x1, y1))
            if ways and (arrived == "local" or arrived in sides_of(WIDTH, HEIGHT, x, y)):
                before_columns = (arrived == "west" and x1 < x) or (arrived == "east" and x0 > x)
                before_rows = (arrived == "north" and y1 < y) or (arrived == "south" and y0 > y)
                if not before_columns and not before_rows:
                    cases.append(((x, y), _header(x0=x0, x1=x1, y0=y0, y1=y1), 0, set(ways)))
        _check(cases, channel_class, arrived, False)
