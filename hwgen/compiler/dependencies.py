"""Order between units, derived from the memory ranges that instructions read and write.

Each unit runs its instructions in order; an instruction that depends on one of another unit takes a token which
that one gives on completion. A dependency already known to hold (through earlier tokens) costs nothing. Between
instructions of the vector unit a `fence` waits for the pipeline; matrix and send units never read what they wrote.

Tokens are only counted, so giver and taker are always issued or dropped together, and takers come in the order of their
givers. Streams touch nothing of each other's and have tokens of their own, so each is connected alone.
"""

from dataclasses import dataclass, field

from hwgen.errors import HwgenError
from hwgen.isa import Instruction, Unit, When

UNITS = (Unit.MATRIX, Unit.VECTOR, Unit.SEND)
TOKEN_LIMIT = 63 - 9
"""Tokens outstanding at most: a counter has 6 bits, and the taker may lag behind by 8 stations and what it works on."""


@dataclass(slots=True)
class Step:
    """An instruction and the spans (region, start, stop) it touches."""

    instruction: Instruction
    reads: tuple = ()
    writes: tuple = ()


def implied(when: When):
    """Conditions that hold whenever `when` holds."""
    if when in (When.TOKENS, When.LOGITS):
        return When.ALWAYS, When.OUTPUT, when
    return (When.ALWAYS,) if when == When.ALWAYS else (When.ALWAYS, when)


@dataclass
class _Knowledge:
    """Per unit and condition: for every unit the last instruction known complete."""

    latest: dict = field(default_factory=dict)

    def before(self, unit, when):
        known = [-1, -1, -1]
        for condition in implied(when):
            for u, index in enumerate(self.latest.get((unit, condition), ())):
                known[u] = max(known[u], index)
        return known


class _History:
    """Accesses of one region that a later access may conflict with."""

    def __init__(self):
        self.accesses = []

    def conflicts(self, start, stop, write):
        for index, a, b, wrote in self.accesses:
            if a < stop and start < b and (write or wrote):
                yield index, wrote

    def add(self, index, unit_of, start, stop, write):
        """Record an access and forget those it stands for."""
        unit = unit_of[index]
        self.accesses = [
            (i, a, b, w) for i, a, b, w in self.accesses
            if not (start <= a and b <= stop and (write or (not w and unit_of[i] == unit)))
        ]
        self.accesses.append((index, start, stop, write))


def _collect(step, index, histories, unit_of):
    """{unit: (last instruction depended on, whether it wrote)} for cross-unit order; own unit: writes only."""
    latest = {}
    for spans, write in ((step.reads, False), (step.writes, True)):
        for region, start, stop in spans:
            for other, wrote in histories.setdefault(region, _History()).conflicts(start, stop, write):
                unit = unit_of[other]
                if unit == unit_of[index] and not wrote:
                    continue
                latest[unit] = max(latest.get(unit, -1), other)
    return latest


def connect(steps: list[Step]) -> None:
    """Set `pop`, `push` and `fence` of every instruction so that all conflicting accesses keep program order.

    Raises ValueError if an instruction depends on one that is issued under another condition or no token can keep the
    order of tokens, HwgenError if more tokens than a counter holds can be outstanding.
    """
    histories, knowledge, fenced = {}, _Knowledge(), {}
    unit_of = [s.instruction.unit for s in steps]
    clocks, taken = [None] * len(steps), {}
    for index, step in enumerate(steps):
        instruction, when = step.instruction, step.instruction.when
        unit = instruction.unit
        if unit == Unit.CONTROL:
            continue
        known = knowledge.before(unit, when)
        for other, last in sorted(_collect(step, index, histories, unit_of).items()):
            if other == unit:
                if "WAIT" in (steps[last].instruction.op, instruction.op):
                    continue  # a wait is over before the next instruction of its unit starts
                since = max(fenced.get(c, -1) for c in implied(when))
                if unit == Unit.VECTOR and last >= since:
                    instruction.fence = 1
            elif last > known[other]:
                giver = _giver(steps, index, other, last, taken.get((other, unit), -1))
                taken[other, unit] = giver
                instruction.pop |= 1 << other
                steps[giver].instruction.push |= 1 << unit
                known = [max(a, b) for a, b in zip(known, clocks[giver], strict=True)]
                known[other] = max(known[other], giver)
        if instruction.fence:
            fenced[when] = index
        clocks[index] = known
        knowledge.latest[unit, when] = known
        for spans, write in ((step.reads, False), (step.writes, True)):
            for region, start, stop in spans:
                histories[region].add(index, unit_of, start, stop, write)
    _check_tokens(steps)


def _giver(steps, index, unit, last, taken):
    """The instruction of `unit`, behind the last `taken`, whose token tells instruction `index` that `last` is over."""
    taker = steps[index].instruction
    for at in range(max(last, taken + 1), index):
        giver = steps[at].instruction
        if (giver.unit, giver.when) == (unit, taker.when):
            return at
    giver = steps[last].instruction
    raise ValueError(f"{taker.op} ({taker.when.name}) depends on {giver.op} ({giver.when.name}), "
                     "which can give it no token")


def _check_tokens(steps):
    """No token counter may overflow however far one unit runs ahead of another."""
    outstanding, most = {}, (0, Unit.MATRIX, Unit.MATRIX)
    for step in steps:
        i = step.instruction
        for unit in UNITS:
            if i.pop >> unit & 1:
                outstanding[unit, i.unit] -= 1
        for unit in UNITS:
            if i.push >> unit & 1:
                outstanding[i.unit, unit] = outstanding.get((i.unit, unit), 0) + 1
                most = max(most, (outstanding[i.unit, unit], i.unit, unit))
    tokens, giver, taker = most
    if tokens > TOKEN_LIMIT:
        raise HwgenError(f"tokens of a tile's {giver.name.lower()} unit that its {taker.name.lower()} unit has yet to "
                         f"take must be at most {TOKEN_LIMIT}, not {tokens}: its heads are too many or too long")
