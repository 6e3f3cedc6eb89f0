"""What travels through the vector unit (command, context, step), and classes of operations."""

from enum import IntEnum

from amaranth.hdl import Const, Mux, signed
from amaranth.lib import data

from hwgen.isa import OPERATIONS, VMEM_BITS, Dest, Unit
from hwgen.rtl.starts import push_bits

LANE_COUNTS = (1, 2, 4, 8, 16)
BLOCK = 32
CONTEXTS = 4
"""Vector instructions in flight."""

Op = IntEnum("Op", {name: code for name, (code, _) in OPERATIONS[Unit.VECTOR].items()})



def command_layout(streams: int) -> data.StructLayout:
    """One vector instruction; `n` >= 1 is final. EXP goes to X and reductions go nowhere, whatever `dkind` says."""
    return data.StructLayout({
        "op": 4, "a": VMEM_BITS, "b": VMEM_BITS, "n": 16, "dst": 20, "dkind": 3, "sin": 3, "sout": 3,
        "shift": signed(7), "frac": signed(7), "stride": 12, "fence": 1, "push": push_bits(streams),
    })


def context_layout(streams: int) -> data.StructLayout:
    """Fields needed after issue. `base`: first destination word; `tail`: live lanes of the last row, 1..lanes."""
    return data.StructLayout({
        "base": 20, "dkind": 3, "b": VMEM_BITS, "stride": 12, "frac": signed(7), "sout": 3, "tail": 5,
        "push": push_bits(streams),
    })


STEP = data.StructLayout({
    "id": 2, "op": 4, "first": 1, "last": 1, "block_last": 1, "accumulate": 1, "final": 1, "amount": 6,
})
"""One row in the lanes: context number, first and last row of its instruction, last row of its 32-block; add to the
previous product; result complete; right shift 0..55."""

DIRECT = (Op.COPY, Op.ADD, Op.MAX, Op.MAXABS, Op.ARGMAX)
TABLE = (Op.SILU, Op.EXP)
TWO_OPERANDS = (Op.ADD, Op.MUL, Op.ROPE, Op.EXP)
REDUCTIONS = (Op.MAX, Op.MAXABS, Op.SUMSQ, Op.ARGMAX)
MAXIMA = (Op.MAX, Op.ARGMAX)
SOLO = (Op.SUMSQ, Op.ARGMAX)
"""The next instruction waits for these as if it had `fence`: their finish uses registers that exist once."""


def depth(op):
    """Cycles a row spends in the lanes beyond those of a DIRECT operation (ROPE: with its second product)."""
    return Mux(op.matches(*DIRECT), 0, Mux(op.matches(*TABLE), 5, Mux(op == Op.ROPE, 4, Const(3, 3))))


def destination(op, dkind):
    """Destination kind that counts for `op`."""
    return Mux(op == Op.EXP, Dest.X, Mux(op.matches(*REDUCTIONS), Dest.NONE, dkind))


def is_quantised(dkind):
    return dkind.matches(Dest.X, Dest.KROW, Dest.VCOL)


def check_lanes(lanes):
    if lanes not in LANE_COUNTS:
        raise ValueError(f"Lanes must be 1, 2, 4, 8 or 16, not {lanes!r}")


def check_vlen(vlen):
    if vlen not in (8, 16, 32, 64, 128, 256):
        raise ValueError(f"VLEN must be 8, 16, 32, 64, 128 or 256, not {vlen!r}")
