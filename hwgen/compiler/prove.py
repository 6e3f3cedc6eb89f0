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
    """The gathers of one token as (name, senders, receivers): a receiver waits for the words of all senders."""
    tiles = range(len(placement.qkv))
    everyone = frozenset(tiles)

    def owners(spans):
        return frozenset(t for t in tiles if spans[t][1] > spans[t][0])

    for units in placement.units:
        attention = frozenset(u.tile for u in units)
        yield "qkv", owners(placement.qkv), attention
        yield "attention", attention, everyone
        yield "x", owners(placement.hidden), everyone
        yield "h", owners(placement.ffn), everyone
        yield "x", owners(placement.hidden), everyone


def prove_order(design: Design, placement: Placement) -> None:
    """Between two writes of a message buffer, every second writer must have waited for every reader of the first.

    A tile reads a buffer in order to send in the next phase; it is safe to overwrite once every writer has, directly or
    through others, received something that the reader sent after reading. Only tiles that read are followed: those that
    compute rows of the next phase.
    """
    sequence = list(phases(placement))
    for position, (name, _, _) in enumerate(sequence):
        later = next((p for p in range(position + 1, len(sequence)) if sequence[p][0] == name), None)
        if later is None or position + 1 >= len(sequence):
            continue
        readers = sequence[position + 1][1]
        writers = sequence[later][1]
        for reader in readers:
            informed = frozenset((reader,))
            for _, senders, receivers in sequence[position + 1 : later]:
                if writers <= informed:
                    break
                if informed & senders:
                    informed |= receivers
            if not writers <= informed:
                tile = min(writers - informed)
                raise HwgenError(
                    f"tile {tile % design.width},{tile // design.width} must wait for tile "
                    f"{reader % design.width},{reader // design.width} before it overwrites {name} there")
