# amaranth: UnusedElaboratable=no
"""The router in meshes of real routers: timing, integrity and order of packets, freedom from deadlock."""

import pytest
from router_mesh import HOST
from router_traffic import Traffic

from hwgen.rtl.router import Router

KINDS = [{"multicast": False}, {"multicast": True}, {"virtual_channels": 2, "multicast": True},
         {"virtual_channels": 2, "multicast": False, "routing": "odd-even"}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_cycle_per_hop(kind):
    for source, target, hops in [((0, 0), (3, 1), 5), ((3, 1), (0, 0), 5), ((1, 0), (1, 0), 1), ((3, 1), HOST, 5),
                                 (HOST, (3, 0), 4), ((2, 0), (2, 1), 2), ((2, 1), (2, 0), 2)]:
        traffic = Traffic(width=4, height=2, fitted=True, **kind)
        traffic.add(source, target if target == HOST else (*target, *target), 6)
        traffic.run(40)
        first = traffic.ends[source].sent[0][0]
        assert [cycle for cycle, _, _ in traffic.ends[target].got] == [first + hops + i for i in range(6)]


def test_multicast_reaches_every_node_after_one_cycle_per_hop():
    traffic = Traffic(width=3, height=3)
    traffic.add((1, 1), (0, 0, 2, 2), 4)
    traffic.run(40)
    for (x, y) in traffic.mesh.routers:
        assert traffic.ends[x, y].got[0][0] == 1 + abs(x - 1) + abs(y - 1)


@pytest.mark.parametrize("flits", [1, 2, 5])  # first, that one mesh serves all of them
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_bubble_between_packets_of_one_source(kind, depth, flits):
    traffic = Traffic(width=3, height=2, buffer_flits=depth, fitted=True, **kind)
    for _ in range(12):
        traffic.add((0, 0), (2, 1, 2, 1), flits)
    traffic.run(200)
    cycles = [cycle for cycle, _, _ in traffic.ends[2, 1].got]
    assert cycles == list(range(cycles[0], cycles[0] + 12 * flits))


@pytest.mark.parametrize("flits", [(1, 1), (3, 1), (3, 2), (1, 4)])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_bubble_between_packets_of_different_inputs(kind, flits):
    """From west, north and south to one local port: a tail is followed at once by the next packet's head."""
    traffic = Traffic(width=2, height=3, fitted=True, **kind)
    for _ in range(10):
        for source, size in zip([(0, 1), (1, 0), (1, 2)], [*flits, 1], strict=True):
            traffic.add(source, (1, 1, 1, 1), size)
    traffic.run(200)
    cycles = [cycle for cycle, _, _ in traffic.ends[1, 1].got]
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def test_inputs_are_served_in_turn():
    traffic = Traffic(width=2, height=3)
    sources = [(0, 1), (1, 0), (1, 2), (1, 1)]
    for _ in range(10):
        for source in sources:
            traffic.add(source, (1, 1, 1, 1), 2)
    traffic.run(200)
    order = [traffic.packets[flit >> traffic.tag_at][0] for _, flit, last in traffic.ends[1, 1].got if not last]
    assert all(set(order[i:i + 4]) == set(sources) for i in range(4, 32))


def test_disjoint_paths_do_not_disturb_each_other():
    traffic = Traffic(width=3, height=3)
    for _ in range(8):
        traffic.add((0, 1), (2, 1, 2, 1), 3)
        traffic.add((2, 1), (0, 1, 0, 1), 3)
        traffic.add((1, 0), (1, 2, 1, 2), 3)
        traffic.add((1, 2), (1, 0, 1, 0), 3)
        traffic.add((1, 1), (1, 1, 1, 1), 3)
    traffic.run(100)
    for end in [(2, 1), (0, 1), (1, 2), (1, 0), (1, 1)]:
        cycles = [cycle for cycle, _, _ in traffic.ends[end].got]
        assert cycles == list(range(cycles[0], cycles[0] + 24))


def test_multicast_waits_for_room_and_holds_nothing_meanwhile():
    """While the fork's north branch is blocked, packets to its other branches still pass."""
    traffic = Traffic(width=1, height=3)
    traffic.ends[0, 0].take = 0.0
    for _ in range(4):
        traffic.add((0, 1), (0, 0, 0, 0), 2)
    traffic.add((0, 1), (0, 0, 0, 2), 3)
    for _ in range(20):
        traffic.add((0, 2), (0, 1, 0, 1), 2)
    for end in traffic.ends.values():
        end.spell = 50
    traffic.bench.run(traffic.ends, cycles=100)
    assert len(traffic.ends[0, 1].got) == 40 and not traffic.ends[0, 2].got
    assert len(traffic.ends[0, 0].got) == 4


@pytest.mark.parametrize("take", [1.0, 0.5])
@pytest.mark.parametrize("width, height, depth", [(2, 2, 2), (4, 4, 2), (3, 2, 3), (1, 5, 2), (2, 2, 5)])
def test_all_nodes_multicast_to_all(width, height, depth, take):
    """Longest packets, smallest buffers: forks that took their outputs one by one would deadlock here."""
    traffic = Traffic(width=width, height=height, buffer_flits=depth, flit_bits=32, take=take, fitted=True)
    rounds = 1 if width * height > 9 else 5
    for _ in range(rounds):
        for end in traffic.ends:
            traffic.add(end, (0, 0, width - 1, height - 1), depth)
    used = traffic.run(4000)
    assert used < 5 * rounds * depth * len(traffic.ends) / take


def test_fault_tells_a_full_buffer_and_a_stray_credit():
    for credits, held in [(9, 0), (4, 1)]:
        traffic = Traffic(width=1, height=1)
        end = traffic.ends[0, 0]
        end.credits, end.held, end.take = [credits], [held], float(held)
        for _ in range(9 * (not held)):
            traffic.add((0, 0), (0, 0, 0, 0), 1)
        with pytest.raises(AssertionError, match="a router reports a fault"):
            traffic.bench.run(traffic.ends, cycles=30)


PATTERNS = {
    "full speed": {}, "idle sources": {"send": 0.2}, "slow sinks": {"take": 0.35},
    "spells": {"send": 0.7, "take": 0.6, "spell": 7},
}
RANDOM = [
    (2, 2, 64, 4, "full speed"), (2, 2, 32, 2, "slow sinks"), (2, 2, 256, 16, "spells"), (3, 2, 32, 3, "full speed"),
    (3, 2, 128, 2, "idle sources"), (3, 2, 64, 5, "spells"), (1, 5, 64, 2, "full speed"), (1, 5, 128, 7, "slow sinks"),
    (5, 1, 32, 4, "spells"), (4, 4, 64, 2, "full speed"), (4, 4, 256, 4, "spells"), (1, 1, 32, 2, "spells"),
]


@pytest.mark.parametrize("width, height, flit_bits, depth, pattern", RANDOM)
def test_random_traffic_arrives_whole_and_in_order(width, height, flit_bits, depth, pattern):
    traffic = Traffic(width=width, height=height, flit_bits=flit_bits, buffer_flits=depth, seed=depth,
                      **PATTERNS[pattern])
    traffic.add_random(min(20 * len(traffic.ends), 140), longest=9, several=0.3)
    traffic.run(8000)


@pytest.mark.parametrize("width, height, depth, pattern", [(3, 3, 2, "spells"), (2, 2, 4, "full speed")])
def test_random_unicast_without_multicast_hardware(width, height, depth, pattern):
    traffic = Traffic(width=width, height=height, buffer_flits=depth, multicast=False, seed=depth, **PATTERNS[pattern])
    traffic.add_random(10 * len(traffic.ends), longest=17, several=0)
    traffic.run(8000)


OPTIONS = [
    ("xy", 2, True, "full speed"), ("yx", 2, True, "spells"), ("yx", 1, False, "slow sinks"),
    ("o1turn", 2, False, "spells"), ("o1turn", 4, True, "full speed"), ("west-first", 1, False, "full speed"),
    ("west-first", 2, True, "slow sinks"), ("odd-even", 1, False, "spells"), ("odd-even", 2, True, "full speed"),
    pytest.param("odd-even", 4, True, "full speed", marks=pytest.mark.full),
]


@pytest.mark.parametrize("routing, channels, multicast, pattern", OPTIONS)
def test_random_traffic_with_every_routing(routing, channels, multicast, pattern):
    traffic = Traffic(width=3, height=3, routing=routing, virtual_channels=channels, multicast=multicast,
                      buffer_flits=3, seed=channels, fitted=True, **PATTERNS[pattern])
    traffic.add_random(110, longest=6, several=0.3 * multicast)
    traffic.run(4000)


def test_ports_may_have_deeper_buffers():
    """A stalled packet of 9 flits fits in the local buffer of 10."""
    traffic = Traffic(width=2, height=1, buffer_flits=2, port_flits=(("west", 10),))
    traffic.ends[1, 0].take, traffic.ends[1, 0].spell = 0.0, 1000
    traffic.add((0, 0), (1, 0, 1, 0), 13)
    traffic.bench.run(traffic.ends, cycles=60)
    # two flits each in the sink and the first router's local buffer, ten between
    assert len(traffic.ends[1, 0].got) == 2 and len(traffic.ends[0, 0].sent) == 13


@pytest.mark.parametrize("width, height", [(1, 1), (1, 3), (64, 64)])
def test_coordinates_have_the_width_of_the_mesh(width, height):
    router = Router(width=width, height=height, flit_bits=32, buffer_flits=2, multicast=True)
    assert len(router.my_x) == max(1, (width - 1).bit_length())
    assert len(router.my_y) == max(1, (height - 1).bit_length())


@pytest.mark.parametrize("change, message", [
    ({"flit_bits": 48}, "Flit width must be 32, 64, 128, 256 or 512, not 48"),
    ({"buffer_flits": 1}, "Buffer depth must be 2 to 16 flits, not 1"),
    ({"buffer_flits": 17}, "Buffer depth must be 2 to 16 flits, not 17"),
    ({"width": 65}, "Mesh width must be 1 to 64, not 65"),
    ({"height": 0}, "Mesh height must be 1 to 64, not 0"),
    ({"virtual_channels": 3}, "Virtual channels must be 1, 2 or 4, not 3"),
    ({"routing": "o1turn"}, "Routing o1turn with multicast must have at least 4 virtual channels, not 1"),
    ({"routing": "odd-even"}, "Routing odd-even with multicast must have at least 2 virtual channels, not 1"),
    ({"port_flits": {"west": 3}}, "Buffer depth of a port must be 4 to 16 flits, not 3"),
    ({"port_flits": {"up": 4}}, "Port must be local, north, east, south or west, not 'up'"),
])
def test_refuses_bad_parameters(change, message):
    good = {"width": 2, "height": 2, "flit_bits": 64, "buffer_flits": 4, "multicast": True}
    with pytest.raises(ValueError, match=f"^{message}$"):
        Router(**(good | change))
