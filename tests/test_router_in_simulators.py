# amaranth: UnusedElaboratable=no
"""The emitted routers in Verilator and Icarus: a cycle for a hop, no bubble, and everything arrives."""

import pytest
from router_mesh import HOST
from router_traffic import Traffic

KINDS = [("xy", 1, True), ("xy", 1, False), ("xy", 2, True), ("yx", 1, False), ("yx", 2, True), ("o1turn", 2, False),
         ("o1turn", 4, True), ("west-first", 1, False), ("west-first", 2, True), ("odd-even", 1, False),
         ("odd-even", 4, True)]
"""Routing, virtual channels, multicast; `make test` looks at the first of them in Icarus, at the third in Verilator."""
QUICK = {("icarus", 0), ("verilator", 2)}


@pytest.fixture(scope="module", params=[
    pytest.param((simulator, kind), id=f"{simulator}-{'-'.join(map(str, kind))}",
                 marks=[] if (simulator, number) in QUICK else pytest.mark.full)
    for number, kind in enumerate(KINDS) for simulator in ("icarus", "verilator")
])
def traffic(request):
    """Makes traffic for one 3x3 mesh, which is emitted and compiled once."""
    simulator, (routing, channels, multicast) = request.param

    def make(**pattern):
        return Traffic(width=3, height=3, fitted=True, simulator=simulator, routing=routing,
                       virtual_channels=channels, multicast=multicast, **pattern)
    return make


def arrivals(traffic, end):
    """Cycles since the first flit came to an end."""
    cycles = [cycle for cycle, _, _ in traffic.ends[end].got]
    return [cycle - cycles[0] for cycle in cycles]


def test_one_cycle_per_hop(traffic):
    run = traffic()
    ways = [((0, 0), (1, 0), 2), ((1, 1), (2, 2), 3), ((2, 0), (2, 0), 1), ((0, 2), HOST, 3), (HOST, (0, 1), 2)]
    for source, target, _ in ways:
        run.add(source, target if target == HOST else (*target, *target), 5)
    run.run(60)
    for source, target, hops in ways:
        assert run.ends[target].got[0][0] - run.ends[source].sent[0][0] == hops
        assert arrivals(run, target) == list(range(5))


@pytest.mark.parametrize("flits", [1, 2, 5])
def test_no_bubble_between_packets_of_one_source(traffic, flits):
    run = traffic()
    for _ in range(12):
        run.add((0, 1), (2, 1, 2, 1), flits)
    run.run(200)
    assert arrivals(run, (2, 1)) == list(range(12 * flits))


@pytest.mark.parametrize("flits", [1, 3])
def test_no_bubble_between_packets_of_different_inputs(traffic, flits):
    """To one local port: a tail from west is followed at once by packets of one flit from north and south."""
    run = traffic()
    for _ in range(10):
        for source, size in [((0, 1), flits), ((1, 0), 1), ((1, 2), 1)]:
            run.add(source, (1, 1, 1, 1), size)
    run.run(200)
    assert arrivals(run, (1, 1)) == list(range(10 * (flits + 2)))


PATTERNS = [{}, {"send": 0.2}, {"take": 0.35}, {"send": 0.7, "take": 0.6, "spell": 7}]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_random_traffic_arrives_whole_and_in_order(traffic, pattern):
    run = traffic(seed=3, **pattern)
    several = run.bench.mesh.multicast
    run.add_random(250, longest=9, several=0.3 * several)
    run.run(8000)
