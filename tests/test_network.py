"""Routing of the network against rules written another way, and its proofs against packets that really walk."""

import itertools

import pytest

from hwgen.errors import HwgenError
from hwgen.noc import routes
from hwgen.noc.network import FLIT_BITS, ROUTINGS, RULES, ChannelClass, Network, channel_classes
from hwgen.noc.prove import channel_dependencies, prove_acyclic, prove_delivery, prove_network
from hwgen.noc.routes import DIRECTIONS, HOST, OPPOSITE, branches, tree
from hwgen.rtl.packet import PacketFormat

MESHES = [(1, 1), (1, 4), (5, 1), (2, 2), (3, 4), (5, 4)]
UNICAST = {name: ChannelClass(name, rule, (0,)) for name, rule in RULES.items()}
MULTICAST = ChannelClass("multicast", routes.xy, (0,), unicast=False, multicast=True)
BOTH = ChannelClass("xy", routes.xy, (0, 1), multicast=True)


def fully_adaptive(x, arrived, dx, dy):
    return (("east",) if dx > 0 else ("west",) if dx else ()) + (("south",) if dy > 0 else ("north",) if dy else ())


def xy_or_yx(x, arrived, dx, dy):
    return tuple(dict.fromkeys(routes.xy(x, arrived, dx, dy) + routes.yx(x, arrived, dx, dy)))


def nodes_of(network):
    return list(itertools.product(range(network.width), range(network.height)))


def forbidden(routing, x, heading, turn):
    """Whether a routing forbids a packet that moves in direction `heading` to turn to `turn` in column x."""
    to_column = heading in ("east", "west") and turn in ("north", "south")
    from_column = heading in ("north", "south") and turn in ("east", "west")
    return {
        "xy": from_column,
        "yx": to_column,
        "west-first": from_column and turn == "west",
        "odd-even": (to_column and heading == "east" and x % 2 == 0) or (from_column and turn == "west" and x % 2 == 1),
    }[routing]


def ways(routing, at, heading, goal):
    """First steps of all shortest paths from `at` to another node that make no forbidden turn."""
    found = set()
    for step, (dx, dy) in DIRECTIONS.items():
        nearer = dx * (goal[0] - at[0]) + dy * (goal[1] - at[1]) > 0
        if nearer and not (heading and (forbidden(routing, at[0], heading, step) or step == OPPOSITE[heading])):
            there = at[0] + dx, at[1] + dy
            if there == goal or ways(routing, there, step, goal):
                found.add(step)
    return found


def walk(network, channel_class):
    """All (x, y, arrived, destination) that packets get into, with their outputs."""
    nodes = nodes_of(network)
    pending = [(*at, "local", to) for at in nodes for to in [*nodes, HOST]] + [(0, 0, "west", to) for to in nodes]
    states = {}
    while pending:
        x, y, arrived, to = state = pending.pop()
        if state not in states:
            states[state] = network.outputs(channel_class, x, y, arrived, to)
            for out in states[state]:
                dx, dy = DIRECTIONS.get(out, (0, 0))
                if network.has(x + dx, y + dy) and out != "local":
                    pending.append((x + dx, y + dy, OPPOSITE[out], to))
    return states


def rectangles(network):
    nodes = nodes_of(network)
    return [(*low, *high) for low in nodes for high in nodes if low[0] <= high[0] and low[1] <= high[1]]


@pytest.mark.parametrize("routing", RULES)
@pytest.mark.parametrize("mesh", MESHES)
def test_outputs_are_the_first_steps_of_all_allowed_shortest_paths(routing, mesh):
    network = Network(*mesh)
    for x, y in nodes_of(network):
        for goal, arrived in itertools.product([*nodes_of(network), HOST], network.inputs(x, y)):
            outputs = network.outputs(UNICAST[routing], x, y, arrived, goal)
            target, last = ((0, 0), "west") if goal == HOST else (goal, "local")
            host_input = arrived == "west" and x == 0
            heading = None if arrived == "local" or host_input else OPPOSITE[arrived]
            came_so = True
            if heading:
                dx, dy = DIRECTIONS[arrived]
                came_so = heading in ways(routing, (x + dx, y + dy), None, target)
            if not came_so or (host_input and goal == HOST):
                assert outputs == ()
            elif (x, y) == target:
                assert outputs == (last,)
            else:
                assert set(outputs) == ways(routing, (x, y), heading, target) and len(set(outputs)) == len(outputs)


@pytest.mark.parametrize("routing", RULES)
@pytest.mark.parametrize("mesh", MESHES)
def test_states_without_an_output_are_never_reached_and_the_others_are(routing, mesh):
    network = Network(*mesh)
    reached = walk(network, UNICAST[routing])
    assert all(reached.values())
    for x, y in nodes_of(network):
        for goal, arrived in itertools.product([*nodes_of(network), HOST], network.inputs(x, y)):
            assert bool(network.outputs(UNICAST[routing], x, y, arrived, goal)) == ((x, y, arrived, goal) in reached)


@pytest.mark.parametrize("routing", RULES)
def test_every_choice_leads_to_the_destination_and_turns_as_allowed(routing):
    network = Network(5, 4)
    states = walk(network, UNICAST[routing])
    for (x, y, arrived, to), outputs in states.items():
        goal = (0, 0) if to == HOST else to
        distance = abs(goal[0] - x) + abs(goal[1] - y)
        for out in outputs:
            if out == "local" or (out == "west" and x == 0):
                assert distance == 0
                continue
            dx, dy = DIRECTIONS[out]
            assert abs(goal[0] - x - dx) + abs(goal[1] - y - dy) == distance - 1
            if arrived != "local" and not (arrived == "west" and x == 0):
                assert not forbidden(routing, x, OPPOSITE[arrived], out)


@pytest.mark.parametrize("routing", ["west-first", "odd-even"])
def test_adaptive_routings_offer_a_choice(routing):
    assert any(len(outputs) == 2 for outputs in walk(Network(4, 3), UNICAST[routing]).values())


@pytest.mark.parametrize("routing", RULES)
def test_far_destinations_look_like_near_ones(routing):
    """The proofs look at destinations up to three columns and two rows away."""
    network = Network(12, 7)

    def near(offset, low, high):
        return min(max(offset, low), high)

    for (x, y), (a, b) in itertools.product(nodes_of(network), repeat=2):
        like = x + near(a - x, -1, 2), y + near(b - y, -1, 1)
        for arrived in network.inputs(x, y):
            assert network.outputs(UNICAST[routing], x, y, arrived, (a, b)) == \
                network.outputs(UNICAST[routing], x, y, arrived, like)


@pytest.mark.parametrize("mesh", [(1, 1), (5, 1), (3, 4)])
def test_multicast_reaches_each_node_of_any_rectangle_once(mesh):
    network = Network(*mesh)
    for source in [*nodes_of(network), HOST]:
        for x0, y0, x1, y1 in rectangles(network):
            reached = [at for at, _, out in tree(source, (x0, y0, x1, y1)) if "local" in out]
            assert sorted(reached) == sorted(itertools.product(range(x0, x1 + 1), range(y0, y1 + 1)))


def test_multicast_to_one_node_goes_as_xy_unicast():
    network = Network(4, 3)
    for (x, y, arrived, to), outputs in walk(network, UNICAST["xy"]).items():
        if to != HOST:
            assert branches(x, y, arrived, (*to, *to)) == outputs


def walked_dependencies(network, channel_class):
    """What `channel_dependencies` gives, from the ways of all packets from everywhere to everywhere."""
    graph = {}
    takes = {(x, y, arrived, out) for (x, y, arrived, _), out in walk(network, channel_class).items()} \
        if channel_class.unicast else set()
    if channel_class.multicast:
        for source, rectangle in itertools.product([*nodes_of(network), HOST], rectangles(network)):
            for (x, y), arrived, out in tree(source, rectangle):
                takes.add((x, y, arrived, out))
                away = [o for o in DIRECTIONS if o in out]
                for i, first in enumerate(away):
                    graph.setdefault((x, y, first), set()).update((x, y, later) for later in away[i + 1:])
    for x, y, arrived, outputs in takes:
        waits = {(x, y, out) for out in outputs if out != "local"}
        for channel in waits:
            graph.setdefault(channel, set())
        if arrived != "local":
            dx, dy = DIRECTIONS[arrived]
            graph.setdefault((x + dx, y + dy, OPPOSITE[arrived]), set()).update(waits)
    return graph


@pytest.mark.parametrize("channel_class", [*UNICAST.values(), MULTICAST, BOTH], ids=lambda c: f"{c.name}{c.multicast}")
@pytest.mark.parametrize("mesh", MESHES)
def test_dependencies_are_those_of_packets_that_walk(channel_class, mesh):
    network = Network(*mesh)
    assert channel_dependencies(network, channel_class) == walked_dependencies(network, channel_class)


def test_dependencies_include_the_host_and_no_local_output():
    graph = channel_dependencies(Network(3, 3), BOTH)
    assert graph[-1, 0, "east"] == {(0, 0, "east"), (0, 0, "south")} and graph[0, 0, "west"] == set()
    assert (0, 0, "west") in graph[0, 1, "north"] and (0, 0, "west") in graph[1, 0, "west"]
    assert all(out != "local" for *_, out in graph)


@pytest.mark.parametrize(("routing", "virtual_channels", "multicast"), [
    *itertools.product(["xy"], [1, 2, 4], [False, True]),
    *itertools.product(["yx", "west-first", "odd-even"], [1, 2, 4], [False]),
    *itertools.product(["yx", "west-first", "odd-even"], [2, 4], [True]),
    ("o1turn", 2, False), ("o1turn", 4, False), ("o1turn", 4, True),
])
def test_every_accepted_network_is_proven(routing, virtual_channels, multicast):
    for width, height in [*MESHES, (8, 7), (64, 1)]:
        network = Network(width, height, routing, virtual_channels, multicast)
        prove_network(network)
        channels = [channel for c in network.classes for channel in c.channels]
        assert channels == list(range(virtual_channels)) and any(c.unicast for c in network.classes)
        assert any(c.multicast for c in network.classes) == multicast


def test_a_large_mesh_is_proven():
    prove_network(Network(41, 42, "odd-even", 4))


def check_cycle(message, graph):
    """The printed cycle is one of the graph, and short enough to read."""
    steps = [part.strip("()").replace(") ", ",").split(",") for part in message.split("acyclic, not ")[1].split(" -> ")]
    cycle = [(int(x), int(y), out) for x, y, out in steps]
    assert cycle[0] == cycle[-1] and 3 <= len(cycle) <= 10
    assert all(later in graph[first] for first, later in itertools.pairwise(cycle))


@pytest.mark.parametrize("broken", [
    ChannelClass("free", fully_adaptive, (0,)), ChannelClass("mixed", xy_or_yx, (0, 1)),
    *(ChannelClass(name, RULES[name], (0,), multicast=True) for name in ("yx", "west-first", "odd-even")),
], ids=lambda c: c.name)
@pytest.mark.parametrize("mesh", [(3, 3), (9, 8)])
def test_a_class_that_can_deadlock_is_refused_with_the_cycle(broken, mesh):
    network = Network(*mesh)
    with pytest.raises(HwgenError, match=rf"class {broken.name} \(virtual.* must be acyclic, not") as caught:
        prove_acyclic(network, broken)
    check_cycle(str(caught.value), channel_dependencies(network, broken))


def test_a_fork_that_holds_outputs_while_it_waits_is_refused():
    with pytest.raises(HwgenError, match=r"not \(0,0\) (\w+) -> \(0,0\) (\w+) -> \(0,0\) \1") as caught:
        prove_acyclic(Network(2, 2), MULTICAST, wormhole_forks=True)
    check_cycle(str(caught.value), channel_dependencies(Network(2, 2), MULTICAST, wormhole_forks=True))


def turn_back(x, y, arrived, rectangle):
    return (("east", "west") if arrived in ("north", "south") else ()) + branches(x, y, arrived, rectangle)


def leave_out_a_node(x, y, arrived, rectangle):
    return tuple(out for out in branches(x, y, arrived, rectangle) if (arrived, out) != ("south", "local"))


def leave_out_what_lies_beside(x, y, arrived, rectangle):
    return branches(x, y, arrived, rectangle) if rectangle[2] >= x else ()


def deliver_twice(x, y, arrived, rectangle):
    out = branches(x, y, arrived, rectangle)
    return (*out, "local") if "local" in out else out


def overshoot(x, y, arrived, rectangle):
    return tuple(dict.fromkeys((*branches(x, y, arrived, rectangle), *(("east",) if arrived == "west" else ()))))


@pytest.mark.parametrize("broken", [turn_back, leave_out_a_node, leave_out_what_lies_beside, deliver_twice, overshoot])
def test_a_tree_that_does_not_reach_each_node_once_is_refused(monkeypatch, broken):
    monkeypatch.setattr("hwgen.noc.prove.branches", broken)
    with pytest.raises(HwgenError, match="a multicast that came to .* must reach each node .* once"):
        prove_delivery(Network(3, 3), MULTICAST)


@pytest.mark.parametrize(("rule", "message"), [
    (fully_adaptive, "acyclic"), (lambda x, arrived, dx, dy: (), "must have outputs that lead nearer and on, not none"),
])
def test_a_network_is_proven_as_a_whole(monkeypatch, rule, message):
    monkeypatch.setitem(RULES, "odd-even", rule)
    with pytest.raises(HwgenError, match=message):
        prove_network(Network(3, 3, "odd-even", 2))


def test_dead_ends_and_detours_are_refused():
    def short_sighted(x, arrived, dx, dy):
        """Odd-even by its turns alone: a packet may run into its last column, an even one, in the wrong row."""
        return tuple(dict.fromkeys(("east",) * (dx > 0) + routes.odd_even(x, arrived, dx, dy)))

    def detour(x, arrived, dx, dy):
        return ("north",) if dy > 0 else routes.xy(x, arrived, dx, dy)

    with pytest.raises(HwgenError, match=r"a packet to \(2,1\) that came to \(1,0\) .* lead nearer and on, not east"):
        prove_delivery(Network(3, 3), ChannelClass("short-sighted", short_sighted, (0,)))
    with pytest.raises(HwgenError, match="a packet to .* must have outputs that lead nearer and on, not north"):
        prove_delivery(Network(3, 3), ChannelClass("detour", detour, (0,)))
    with pytest.raises(HwgenError, match=r"came to \(0,0\) from \w+ must have outputs .* not none"):
        prove_delivery(Network(1, 3), ChannelClass("none", lambda x, arrived, dx, dy: (), (0,)))


def test_classes_share_out_the_virtual_channels():
    def split(*settings):
        return [(c.name, c.channels, c.unicast, c.multicast) for c in channel_classes(*settings)]

    assert split("xy", 4, True) == [("xy", (0, 1, 2, 3), True, True)]
    assert split("yx", 1, False) == [("yx", (0,), True, False)]
    assert split("odd-even", 2, True) == [("odd-even", (0,), True, False), ("multicast", (1,), False, True)]
    assert split("west-first", 4, True) == [("west-first", (0, 1, 2), True, False), ("multicast", (3,), False, True)]
    assert split("o1turn", 4, False) == [("xy", (0, 1), True, False), ("yx", (2, 3), True, False)]
    assert split("o1turn", 4, True) == [("xy", (0,), True, False), ("yx", (1, 2), True, False),
                                        ("multicast", (3,), False, True)]


@pytest.mark.parametrize(("change", "message"), [
    ({"width": 0}, "Mesh width must be 1 to 64, not 0"),
    ({"height": 65}, "Mesh height must be 1 to 64, not 65"),
    ({"buffer_flits": 1}, "Buffer depth must be 2 to 16, not 1"),
    ({"buffer_flits": True}, "Buffer depth must be 2 to 16, not True"),
    ({"flit_bits": 48}, "Flit width must be 32, 64, 128, 256 or 512, not 48"),
    ({"routing": "zigzag"}, "Routing must be xy, yx, o1turn, west-first or odd-even, not 'zigzag'"),
    ({"virtual_channels": 3}, "Virtual channels must be 1, 2 or 4, not 3"),
    ({"multicast": 1}, "Multicast must be True or False, not 1"),
    ({"routing": "yx"}, "Routing yx with multicast must have at least 2 virtual channels, not 1"),
    ({"routing": "west-first"}, "Routing west-first with multicast must have at least 2 virtual channels, not 1"),
    ({"routing": "odd-even"}, "Routing odd-even with multicast must have at least 2 virtual channels, not 1"),
    ({"routing": "o1turn", "multicast": False}, "Routing o1turn must have at least 2 virtual channels, not 1"),
    ({"routing": "o1turn", "virtual_channels": 2},
     "Routing o1turn with multicast must have at least 4 virtual channels, not 2"),
])
def test_settings_are_refused_with_their_rule(change, message):
    with pytest.raises(ValueError) as caught:
        Network(**({"width": 4, "height": 3} | change))
    assert str(caught.value) == message


def test_routings_are_rules_or_made_of_them():
    assert {c.name for r in ROUTINGS for c in channel_classes(r, 4, False)} == set(RULES)


def test_the_largest_header_fits_two_flits():
    largest = PacketFormat(width=64, height=64, flit_bits=32, buffer_flits=4, address_bits=16, multicast=True)
    assert largest.header_flits == 2 and min(FLIT_BITS) == 32
