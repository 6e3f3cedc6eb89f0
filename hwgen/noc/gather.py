"""How messages are cut into packets, and what an all-gather takes by multicast and by unicast."""

from hwgen.noc.network import Network

MAX_UNICAST_FLITS = 16
"""Payload flits of a packet from tile to tile that is not a multicast."""


def multicast_flits(buffer_flits: int, header_flits: int) -> int:
    """Payload flits of the multicast packets that tiles send.

    From three on one flit of a buffer is left free: credits then come back in time, which saves more than the headers
    cost (in a buffer of 4 flits on 4x4 an all-gather takes 1.10 x its bound instead of 1.39 x; `hwgen noc-bench`).
    """
    room = buffer_flits - header_flits
    return room - 1 if room >= 3 else room


def cut(flits: int, longest: int, header_flits: int = 1) -> list[int]:
    """Flits, header included, of the packets of a message of `flits` payload flits, each with `longest` at most."""
    return [min(longest, flits - at) + header_flits for at in range(0, flits, longest)]


def multicast_cycles(network: Network, packets: list[int], senders: int) -> int:
    """Cycles until all nodes have the packets, given by their flits, of each of so many senders.

    Every node takes them all, a flit a cycle; a packet as long as a buffer waits a cycle more for credits.
    """
    return senders * sum(flits + (flits >= network.buffer_flits) for flits in packets)


def unicast_cycles(network: Network, packets: list[int], senders: int) -> float:
    """The same with a copy of every packet for every node: senders send as much as there are nodes."""
    return max(network.width * network.height, senders * _contention(network)) * sum(packets)


def _contention(network):
    """Cycles that all-to-all unicast takes for each flit that a node receives.

    A line through what noc-bench measures (messages of 10 to 60 flits, one channel) over the load of the links across
    the middle of the longer side: 1.0 on 2x2 and 3x3, 1.5 to 2.4 on 4x4, 4.0 to 4.9 on 8x8.
    """
    side = max(network.width, network.height)
    load = (side // 2) * ((side + 1) // 2) / side
    return max(1.0, 3.3 * load - 1.2)


def multicast_pays(network: Network, words: int, senders: int) -> bool:
    """Whether a gather of `words` from each of so many senders, to all nodes, is as fast by multicast.

    Headers count as one flit: they take two only in large meshes of narrow flits, where multicast is far ahead.
    """
    payload = -(-words * 32 // network.flit_bits)
    few = cut(payload, multicast_flits(network.buffer_flits, 1))
    return multicast_cycles(network, few, senders) <= unicast_cycles(network, cut(payload, MAX_UNICAST_FLITS), senders)
