"""The order in which a tile works on its streams.

A part of a stream's program ends with what the next phase does before its matrix product, so that one stream's gather
and vector work go on while another's matrix product does. Streams in one stage take turns part by part. Behind each
other, through several stages, go groups of streams: in slot t a tile of stage s has the layers of group t - s, the
embedding of group t and the head of the group that has left the last stage.

Every tile takes parts in the order of (slot, segment, part, stream), and what a part waits for comes before it in that
order on whatever tile, so streams never wait for each other in a circle.
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
    """What a stream does in one turn."""

    segment: Segment
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
    chosen = [[(stream, part) for part in programs[stream] if part.segment in segments] for stream in streams]
    for turn in zip(*chosen, strict=True):
        yield from turn
