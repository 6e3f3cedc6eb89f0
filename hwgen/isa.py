"""Instruction set of a tile: one 128-bit format, encoded from the least significant bit.

Sixteen common bits (unit, op, when, fence, pop, push) are followed by the operation's own fields. ARCHITECTURE.md
("Programs") says what each operation does; the emulator and the hardware follow it.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

WIDTH = 128
COMMON = (("unit", 2), ("op", 4), ("when", 3), ("fence", 1), ("pop", 3), ("push", 3))
COMMON_WIDTH = 16
SIGNED = frozenset({"shift", "frac"})
STREAMS = (1, 2, 4, 8)
"""Streams in flight that a chip may have."""
STREAM_COUNTERS = 7
"""Arrival counters of each stream; those of stream s begin with number STREAM_COUNTERS * s."""
SCALAR_REGISTERS = 8
VMEM_BITS = 20
"""Of the address of a word of vector memory, in instructions and messages."""
LONGEST = (1 << 16) - 1
"""Words or rows that one instruction works on, and positions."""
KIND_BITS = 3
"""Of the kind of a message to the host, in its address; the stream is above it."""
ENDS = 8
"""Ids that end a text, as many as a chip looks for."""


class CounterNumbers(NamedTuple):
    """Numbers in a message's field `ctr` of `bits`: arrival counters 0 .. grant, the last for grants; then commands."""

    bits: int
    grant: int
    report: int
    start: int


def counter_numbers(streams: int) -> CounterNumbers:
    """Those of a chip with so many streams."""
    bits = max(4, (STREAM_COUNTERS * streams + 2).bit_length())
    return CounterNumbers(bits, STREAM_COUNTERS * streams, (1 << bits) - 2, (1 << bits) - 1)


class Unit(IntEnum):
    MATRIX, VECTOR, SEND, CONTROL = range(4)


class When(IntEnum):
    """Condition under which an instruction is issued; otherwise it is dropped at issue."""

    ALWAYS, OUTPUT, TOKENS, LOGITS, OWNER, NOT_TOKENS = range(6)


class Dest(IntEnum):
    """Where the vector unit's results go: nowhere, vector memory, operand memory, a key row or a value column."""

    NONE, VMEM, X, KROW, VCOL = range(5)


class Index(IntEnum):
    """What GATHER's row number is: zero, the token id or the position."""

    NONE, TOKEN, POSITION = range(3)


WAIT = (("ctr", 6), ("count", 20))
_MATRIX = (
    ("x", 16), ("base", 24), ("rows", 16), ("kwords", 12), ("stride", 16), ("dst", VMEM_BITS),
    ("kv", 1), ("bare", 1), ("dyn_rows", 1), ("dyn_k", 1), ("index", 2), ("two_limb", 1),
    ("narrow", 1),
)
_VECTOR = (
    ("a", VMEM_BITS), ("b", VMEM_BITS), ("n", 16), ("dst", 20), ("dkind", 3), ("dyn", 1), ("sin", 3), ("sout", 3),
    ("shift", 7), ("frac", 7), ("stride", 12),
)
_SEND = (
    ("src", VMEM_BITS), ("n", 16), ("dst", VMEM_BITS), ("x0", 6), ("y0", 6), ("x1", 6), ("y1", 6), ("ctr", 6),
    ("host", 1),
)
_RANGE = (("lo", 20), ("hi", 20))
_STREAM = (("stream", 3),)

OPERATIONS = {
    Unit.MATRIX: {"WAIT": (0, WAIT), "MATMUL": (1, _MATRIX), "GATHER": (2, _MATRIX)},
    Unit.VECTOR: {
        "WAIT": (0, WAIT), "COPY": (1, _VECTOR), "ADD": (2, _VECTOR), "MUL": (3, _VECTOR), "SCALE": (4, _VECTOR),
        "ROPE": (5, _VECTOR), "SILU": (6, _VECTOR), "MAX": (7, _VECTOR), "SUMSQ": (8, _VECTOR), "EXP": (9, _VECTOR),
        "ARGMAX": (10, _VECTOR), "MAXABS": (11, _VECTOR),
    },
    Unit.SEND: {"WAIT": (0, WAIT), "SEND": (1, _SEND)},
    Unit.CONTROL: {"END": (0, ()), "RANGE": (1, _RANGE), "STREAM": (2, _STREAM)},
}
"""unit -> mnemonic -> (op code, fields)."""

BOUNDS = {
    (unit, op): {name: (-(1 << bits - 1), (1 << bits - 1) - 1) if name in SIGNED else (0, (1 << bits) - 1)
                 for name, bits in fields}
    for unit, ops in OPERATIONS.items() for op, (_, fields) in ops.items()}
"""(unit, mnemonic) -> field -> its least and its largest value."""
ROW_WORDS = BOUNDS[Unit.MATRIX, "MATMUL"]["kwords"][1]
"""Words of a matrix row at most."""
CACHE_STRIDE = BOUNDS[Unit.VECTOR, "COPY"]["stride"][1]
"""Words of a key of one head at most, and of a value element of all positions."""
TOKENS = BOUNDS[Unit.CONTROL, "RANGE"]["hi"][1]
"""Of a vocabulary at most."""

_NAMES = {unit: {code: name for name, (code, _) in ops.items()} for unit, ops in OPERATIONS.items()}


@dataclass(slots=True)
class Instruction:
    """One instruction; `pop` and `push` are bit masks over Unit (tokens from and to other units)."""

    unit: Unit
    op: str
    fields: dict[str, int] = field(default_factory=dict)
    when: When = When.ALWAYS
    fence: int = 0
    pop: int = 0
    push: int = 0


def check(instruction: Instruction) -> None:
    """Raises ValueError naming a field that the operation lacks or that does not fit."""
    bounds = BOUNDS[instruction.unit, instruction.op]
    for name, value in instruction.fields.items():
        if name not in bounds:
            raise ValueError(f"{instruction.op} has no field {name}")
        low, high = bounds[name]
        if not low <= value <= high:
            raise ValueError(f"{instruction.op} {name} must be {low} to {high}, not {value}")


def encode(instruction: Instruction) -> int:
    """The 128-bit word. Raises ValueError as `check`."""
    check(instruction)
    code, layout = OPERATIONS[instruction.unit][instruction.op]
    common = (instruction.unit, code, instruction.when, instruction.fence, instruction.pop, instruction.push)
    word, at = 0, 0
    for (_, width), value in zip(COMMON, common, strict=True):
        word |= value << at
        at += width
    for name, width in layout:
        word |= (instruction.fields.get(name, 0) & ((1 << width) - 1)) << at
        at += width
    return word


def decode(word: int) -> Instruction:
    """Inverse of `encode`; every field of the operation is present in the result."""
    values, at = [], 0
    for _, width in COMMON:
        values.append(word >> at & ((1 << width) - 1))
        at += width
    unit = Unit(values[0])
    op = _NAMES[unit][values[1]]
    fields = {}
    for name, width in OPERATIONS[unit][op][1]:
        value = word >> at & ((1 << width) - 1)
        if name in SIGNED and value >> width - 1:
            value -= 1 << width
        fields[name] = value
        at += width
    return Instruction(unit, op, fields, When(values[2]), *values[3:])


def layout(unit: Unit, op: str) -> dict[str, tuple[int, int]]:
    """Field name -> (least significant bit in the 128-bit word, width) of an operation."""
    at, places = COMMON_WIDTH, {}
    for name, width in OPERATIONS[unit][op][1]:
        places[name] = (at, width)
        at += width
    return places


def disassemble(instruction: Instruction) -> str:
    """One line of text, e.g. `V.ADD     a=64 b=128 n=64 dst=64 | pop=M push=S`."""
    shown = [f"{name}={value}" for name, value in instruction.fields.items() if value]
    marks = []
    if instruction.when:
        marks.append(f"when={instruction.when.name.lower()}")
    if instruction.fence:
        marks.append("fence")
    for mark in ("pop", "push"):
        mask = getattr(instruction, mark)
        if mask:
            marks.append(f"{mark}=" + "".join(u.name[0] for u in Unit if mask >> u & 1))
    head = f"{instruction.unit.name[0]}.{instruction.op}"
    return f"{head:<10}{' '.join(shown)}" + (f" | {' '.join(marks)}" if marks else "")
