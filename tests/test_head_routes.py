"""Routes in logic are those of `hwgen.noc`, at every place of a mesh, and no turn that a packet needs is left out."""

from itertools import product

import pytest
from amaranth.hdl import Const, Module, Signal, Value
from amaranth.sim import Simulator

from hwgen.noc.network import Network
from hwgen.noc.routes import DIRECTIONS, HOST, OPPOSITE, branches
from hwgen.noc.turns import PORTS, sides_of, turns
from hwgen.rtl.head_routes import HeadRoutes
from hwgen.rtl.packet import routing_fields

WIDTH, HEIGHT = 4, 3
FIELDS = routing_fields(width=WIDTH, height=HEIGHT, flit_bits=32, buffer_flits=4, multicast=True)


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


def _route(network, x, y, arrived, goal):
    """The field `route` of a packet that came to router (x, y), to HOST, then as to (0, 0), or a rectangle."""
    if not network.has(x, y):
        return 0
    ways = branches(x, y, arrived, (0, 0, 0, 0) if goal == HOST else goal)
    assert set(ways) <= set(turns(network.classes[0], sides_of(WIDTH, HEIGHT, x, y), (x, y) == (0, 0)).get(arrived, ()))
    return sum(1 << PORTS.index(way) for way in ways)


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("arrived", PORTS)
def test_multicast_goes_along_the_xy_tree(arrived, host):
    """Where it enters the route is found from its destination, and at each output the one for the router behind."""
    network = Network(WIDTH, HEIGHT, "xy", 1, True, 4, 32)
    m, flit, x, y = Module(), Signal(32), Signal(2), Signal(2)
    logic, enters = HeadRoutes(flit, FIELDS, x, y, arrived, host), Signal(len(PORTS))
    onward = {port: Signal(len(PORTS), name=port) for port in PORTS}
    m.d.comb += [enters.eq(logic.first()), *(bits.eq(logic.onward(port)) for port, bits in onward.items())]
    spans = [[(a, b) for a, b in product(range(size), repeat=2) if a <= b] for size in (WIDTH, HEIGHT)]
    goals = [(x0, y0, x1, y1) for (x0, x1), (y0, y1) in product(*spans)] + [HOST] * host

    async def bench(ctx):
        for (at_x, at_y), goal in product(product(range(WIDTH), range(HEIGHT)), goals):
            here = _route(network, at_x, at_y, arrived, goal) if arrived in network.inputs(at_x, at_y) else 0
            if not here or (not host and arrived == "west" and at_x == 0):
                continue
            values = zip(("x0", "y0", "x1", "y1"), (0, 0, 0, 0) if goal == HOST else goal, strict=True)
            ctx.set(flit, _header(host=int(goal == HOST), **dict(values))), ctx.set(x, at_x), ctx.set(y, at_y)
            if arrived == "local" or (arrived == "west" and at_x == 0):
                assert ctx.get(enters) == here, f"at {at_x},{at_y} from {arrived} to {goal}"
            for n, port in enumerate(PORTS):
                if here >> n & 1:
                    dx, dy = DIRECTIONS.get(port, (WIDTH, 0))
                    there = _route(network, at_x + dx, at_y + dy, OPPOSITE.get(port, port), goal)
                    assert ctx.get(onward[port]) == there, f"at {at_x},{at_y} by {port} to {goal}"

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
