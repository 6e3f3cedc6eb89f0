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
    tiles = range(len(placement.qkv))
    everyone = frozenset(tiles)

    def owners(spans):
        return frozenset(t for t in tiles if spans[t][1] > spans[t][0])

    yield "x", owners(placement.vocabulary), everyone
    for layer, units in enumerate(placement.units):
        attention = frozenset(u.tile for u in units)
        yield "qkv", owners(placement.qkv), attention
        yield "attention", attention | placement.bystanders(layer), everyone
        yield "x", owners(placement.hidden), everyone
        yield "h", everyone, everyone  # bystanders too
        yield "x", owners(placement.hidden), everyone


def prove_order(design: Design, placement: Placement) -> None:
    """Between two gathers into a buffer, every writer of the second must have heard of every receiver of the first.

    That is, have received, directly or through others, something that the receiver sent after its wait for the first.
    No order of packets is needed then, for no two that write the same words are ever under way at once.
    """
    sequence = list(phases(placement))
    for position, (name, _, receivers) in enumerate(sequence):
        later = next((p for p in range(position + 1, len(sequence)) if sequence[p][0] == name), None)
        if later is None:
            continue
        writers = sequence[later][1]
        unaware = {p: writers - _informed(sequence[p:later]) for p in range(position + 1, later)}
        for tile in sorted(receivers):
            lost = next((unaware[p] for p in unaware if tile in sequence[p][1]), writers) - {tile}
            if lost:
                raise HwgenError(
                    f"tile {min(lost) % design.width},{min(lost) // design.width} must wait for tile "
                    f"{tile % design.width},{tile // design.width} before it overwrites {name} there")


def _informed(sequence) -> frozenset[int]:
    """Tiles that have heard of a sender of the first gather when the last one has ended."""
    informed = sequence[0][2]
    for _, senders, receivers in sequence[1:]:
        if informed & senders:
            informed |= receivers
    return informed
