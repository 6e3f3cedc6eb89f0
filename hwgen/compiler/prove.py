"""Proofs made before anything is emitted: routes reach, channels cannot deadlock, buffers are free when overwritten."""

from hwgen.compiler.place import Placement
from hwgen.design import Design
from hwgen.errors import HwgenError
from hwgen.noc.prove import prove_network


def prove_routes(design: Design) -> None:
    """Raise HwgenError with the counter-example unless every packet arrives and channels never wait in a circle.

    All pairs of nodes and all rectangles are covered, so those of the programs are.
    """
    prove_network(design.network)


def phases(placement: Placement):
    """The gathers of one token as (name, senders, receivers): a receiver waits for the words of all senders.

    In the first, one of the tiles with rows of the embedding sends.
    """
    everyone = frozenset(range(len(placement.qkv)))
    layers = len(placement.units)
    yield ("x", frozenset(t for t, (a, b) in enumerate(placement.vocabulary) if b > a),
           frozenset(placement.members(0)))
    for layer, units in enumerate(placement.units):
        members = frozenset(placement.members(layer))
        attention = frozenset(u.tile for u in units)
        hidden = placement.owners(placement.hidden, layer)
        yield "qkv", placement.owners(placement.qkv, layer), attention
        yield "attention", attention | placement.bystanders(layer), members
        yield "x", hidden, members
        yield "h", members, members  # bystanders too
        yield "x", hidden, frozenset(placement.members(layer + 1)) if layer + 1 < layers else everyone


def prove_order(design: Design, placement: Placement) -> None:
    """Between two gathers into a tile's buffer, every writer of the second must have heard that it has read the first.

    That is, have received, directly or through others, something that the tile sent after its wait for the first.
    No order of packets is needed then, for no two that write the same words are ever under way at once.
    """
    sequence = list(phases(placement))
    for position, (name, _, receivers) in enumerate(sequence):
        waiting = receivers
        for later in range(position + 1, len(sequence)):
            if sequence[later][0] == name and waiting:
                _prove_overwriting(design, name, waiting & sequence[later][2], sequence[position + 1:later + 1])
                waiting -= sequence[later][2]


def _prove_overwriting(design: Design, name: str, readers: frozenset[int], sequence) -> None:
    """`readers` have what the gather before `sequence` brought; its last gather overwrites that."""
    writers, silent = sequence[-1][1], readers
    for place, (_, senders, _) in enumerate(sequence[:-1]):
        if told := silent & senders:
            _refuse(design, name, told, writers - _informed(sequence[place:]))
            silent -= told
    _refuse(design, name, silent, writers)


def _refuse(design, name, readers, unaware):
    for tile in sorted(readers) if unaware else ():
        if lost := unaware - {tile}:
            raise HwgenError(
                f"tile {min(lost) % design.width},{min(lost) // design.width} must wait for tile "
                f"{tile % design.width},{tile // design.width} before it overwrites {name} there")


def _informed(sequence) -> frozenset[int]:
    """Tiles that have heard of a sender of the first gather when the last one begins."""
    informed = sequence[0][2]
    for _, senders, receivers in sequence[1:-1]:
        if informed & senders:
            informed |= receivers
    return informed
