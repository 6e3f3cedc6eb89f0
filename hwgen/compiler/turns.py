"""The order in which a tile works on its streams.

A phase is a front, which waits for what was gathered and quantises it, and a back: matrix rows, what becomes of them,
the next gather. A turn is a back with the front of the phase after it. Streams in one stage take turns, so that one's
gather and vector work go on while another's matrix product does; four and more put off each front until after the next
stream's back, for by then its words are there and the vector unit need not wait. Behind each other, through several
stages, go groups of streams: in slot t a tile of stage s has the layers of group t - s, the embedding of group t and
the head of the group that has left the last stage.

Every tile keeps this order, and what a part waits for comes before it on whatever tile, so streams never wait for each
other in a circle.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from hwgen.compiler.dependencies import Step
from hwgen.isa import Instruction, Unit


class Segment(IntEnum):
    """Stretches of a program in the order of a slot; those of one stream follow as embedding, layers, head."""

    HEAD, EMBEDDING, LAYERS = range(3)


class Part(NamedTuple):
    """What a stream does at once: the front of a phase or a back."""

    segment: Segment
    front: bool
    steps: list[Step]


def groups(streams: int, stages: int) -> list[range]:
    """Streams that take turns in a stage: all of them where there is one, else pairs, if enough to fill the stages."""
    size = streams if stages == 1 else 2 if streams >= 2 * stages else 1
    return [range(first, first + size) for first in range(0, streams, size)]


def take_turns(programs: Sequence[Sequence[Part]], stages: int, stage: int) -> list[Instruction]:
    """The program of a tile from those of its streams, with a STREAM wherever another one follows."""
    program, current = [], 0
    for stream, part in _turns(programs, stages, stage):
        if stream != current and part.steps:
            program.append(Instruction(Unit.CONTROL, "STREAM", {"stream": stream}))
            current = stream
        program += [step.instruction for step in part.steps]
    return [*program, Instruction(Unit.CONTROL, "END")]


def _turns(programs, stages: int, stage: int) -> Iterator[tuple[int, Part]]:
    order = groups(len(programs), stages)
    if stages == 1:
        yield from _by_turns(programs, order[0], Segment)
        return
    for slot in range(len(order) + stages):
        for segment, late in ((Segment.HEAD, stages), (Segment.EMBEDDING, 0), (Segment.LAYERS, stage)):
            if 0 <= slot - late < len(order):
                yield from _by_turns(programs, order[slot - late], [segment])


def _by_turns(programs, streams, segments):
    """(stream, part): turn by turn of all, a front `late` turns behind its back."""
    rounds = zip(*(_pairs(programs[s], s, segments) for s in streams), strict=True)
    turns = [turn for turns in rounds for turn in turns]
    late = 1 if len(streams) > 2 else 0
    for number, (back, _) in enumerate(turns):
        yield back
        if number >= late:
            yield turns[number - late][1]
    yield from (front for _, front in turns[len(turns) - late:])


def _pairs(program, stream, segments):
    """Backs, each with the front that follows it."""
    parts = [part for part in program if part.segment in segments]
    nothing = Part(parts[0].segment, False, [])
    pairs, rest = [], parts if not parts[0].front else [nothing, *parts]
    while rest:
        back, rest = rest[0], rest[1:]
        front, rest = (rest[0], rest[1:]) if rest and rest[0].front else (nothing, rest)
        pairs.append(((stream, back), (stream, front)))
    return pairs
