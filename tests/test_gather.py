"""Packets of a message, and the choice between multicast and unicast, against what the emitted routers take."""

import pytest

from hwgen.design import Design
from hwgen.noc.gather import cut, multicast_cycles, multicast_flits, multicast_pays, unicast_cycles
from hwgen.noc.network import Network
from hwgen.noc_bench import MeshBench


@pytest.mark.parametrize("depth, header, payload", [(2, 1, 1), (3, 1, 2), (4, 1, 2), (8, 1, 6), (4, 2, 2), (5, 2, 2)])
def test_multicast_packets_leave_a_flit_of_a_buffer_free_from_three_of_payload_on(depth, header, payload):
    assert multicast_flits(depth, header) == payload


def test_a_message_is_cut_into_packets_of_the_longest_length():
    assert cut(7, 3) == [4, 4, 2] and cut(3, 3, 2) == [5] and cut(1, 16) == [2]


@pytest.mark.parametrize("network, words, senders, pays", [
    (Network(2, 2, buffer_flits=2, flit_bits=32), 64, 4, False),
    (Network(2, 2, buffer_flits=2, flit_bits=32), 64, 1, True),
    (Network(2, 1, buffer_flits=4, flit_bits=64), 64, 2, False),
    (Network(2, 2, buffer_flits=8, flit_bits=256), 16, 4, True),
    (Network(4, 4, buffer_flits=4, flit_bits=128), 64, 16, True),
    (Network(8, 8, buffer_flits=2, flit_bits=128), 64, 64, True),
], ids=str)
def test_multicast_is_chosen_where_it_pays(network, words, senders, pays):
    assert multicast_pays(network, words, senders) == pays


@pytest.mark.parametrize("width, height, depth", [
    (2, 2, 3),
    *(pytest.param(*shape, marks=pytest.mark.full) for shape in ((3, 3, 2), (4, 4, 4), (4, 4, 2), (8, 8, 4)))])
def test_model_agrees_with_the_routers(width, height, depth, tmp_path):
    """The bench's messages have no headers, and by unicast none for the sender itself."""
    bench = MeshBench(Design(width, height, flit_bits=64, buffer_flits=depth), tmp_path, quick=True)
    network, nodes, flits = bench.design.network, width * height, 24
    for piece in sorted({depth - 1, depth}):
        found = bench.run("gather-multicast", flits=flits, piece=piece, seed=1)["completion"]
        assert multicast_cycles(network, cut(flits, piece, 0), nodes) == pytest.approx(found, rel=0.12)
    found = bench.run("gather-unicast", flits=flits, seed=1)["completion"] * nodes / (nodes - 1)
    assert unicast_cycles(network, [flits], nodes) == pytest.approx(found, rel=0.25)
