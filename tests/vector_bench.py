"""Bench of the vector unit: memories, their model (hwgen.arithmetic on NumPy arrays), random programs, a simulation."""

import copy
import random
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from hwgen.arithmetic import mx, tables, vector
from hwgen.isa import VMEM_BITS, Dest
from hwgen.rtl.quantiser import mx_word_bytes
from hwgen.rtl.vector_command import REDUCTIONS, Op

VMEM, XMEM, KVMEM = 2048, 64, 4096
CLOCK = 1e-6


@dataclass
class State:
    """Memories and registers; MX words are rows of bytes."""

    vlen: int
    vmem: np.ndarray
    x: np.ndarray
    kv: np.ndarray
    registers: list = field(default_factory=lambda: [(0, 0)] * 8)
    overflow: bool = False

    @classmethod
    def random(cls, vlen, rng):
        size = mx_word_bytes(vlen)
        return cls(vlen, rng.integers(-(1 << 31), 1 << 31, VMEM), rng.integers(0, 256, (XMEM, size), np.uint8),
                   rng.integers(0, 256, (KVMEM, size), np.uint8))

    def differs(self, other):
        """Name of a memory that differs, or None."""
        names = ("vmem", "x", "kv")
        return next((n for n in names if not np.array_equal(getattr(self, n), getattr(other, n))), None)

    def execute(self, i, position):
        """Effect of instruction `i` (dict of command fields)."""
        op, n = Op(i["op"]), i["n"]
        a, b = self.vmem[i["a"] : i["a"] + n].copy(), self.vmem[i["b"] : i["b"] + n].copy()
        wide = i["b"] + (i["stride"] << 16)
        if op == Op.MAX:
            self.registers[i["sout"]] = (int(a.max()), 0)
        elif op == Op.MAXABS:
            self.registers[i["sout"]] = (0, int(vector.norm_shift(a)))
        elif op == Op.SUMSQ:
            mantissa, exponent = vector.norm_register(a, self.registers[i["sin"]][1], wide)
            self.registers[i["sout"]] = (int(mantissa), int(exponent))
        elif op == Op.ARGMAX:
            value, index = vector.argmax(a)
            self.vmem[i["dst"] : i["dst"] + 2] = value, index + wide
        elif op == Op.EXP:
            p = vector.softmax_numerators(a, self.registers[i["sin"]][0])
            self.store(self.x, i["dst"], mx.quantize_weighted(p, b))
            mantissa, exponent = tables.reciprocal(p.sum())
            self.registers[i["sout"]] = (int(mantissa), int(exponent))
        else:
            self._store(i, self._elementwise(op, i, a, b), position)

    def _elementwise(self, op, i, a, b):
        if op == Op.ADD:
            total, overflow = vector.add(a, b)
            self.overflow |= overflow
            return total
        return {
            Op.COPY: lambda: a, Op.MUL: lambda: vector.mul(a, b, i["shift"]),
            Op.ROPE: lambda: vector.rope(a, b, i["shift"]), Op.SILU: lambda: vector.silu(a, i["shift"]),
            Op.SCALE: lambda: vector.scale(a, self.registers[i["sin"]], i["shift"]),
        }[op]()

    def _store(self, i, values, position):
        if i["dkind"] == Dest.VMEM:
            self.vmem[i["dst"] : i["dst"] + i["n"]] = values
        elif i["dkind"] != Dest.NONE:
            quantised = mx.quantize_int(values, i["frac"])
            if i["dkind"] == Dest.X:
                self.store(self.x, i["dst"], quantised)
            elif i["dkind"] == Dest.KROW:
                self.store(self.kv, i["dst"] + position * i["stride"], quantised)
            else:
                for c in range(i["n"]):
                    word = i["dst"] + c * i["stride"] + position // self.vlen
                    self.kv[word, position % self.vlen] = quantised.elements[0, c].astype(np.uint8)
                self.vmem[i["b"] + position] = int(quantised.scales[0])

    def store(self, memory, at, quantised):
        """Whole words: elements, zeros, scale codes."""
        vlen, flat = self.vlen, quantised.elements.reshape(-1)[: quantised.length].astype(np.uint8)
        for word in range(-(-len(flat) // vlen)):
            row = np.zeros(memory.shape[1], np.uint8)
            part = flat[word * vlen : (word + 1) * vlen]
            row[: len(part)] = part
            first = word * vlen // 32
            codes = quantised.scales[first : first + max(1, vlen // 32)]
            row[vlen : vlen + len(codes)] = codes
            memory[at + word] = row


def command(op, **fields):
    """Fields of a command; what is not given is 0, `dkind` VMEM, `push` 1."""
    names = ("a", "b", "n", "dst", "sin", "sout", "shift", "frac", "stride", "fence")
    return dict.fromkeys(names, 0) | {"op": int(op), "dkind": int(Dest.VMEM), "push": 1} | fields


def simulate(unit, state, program, position, *, idle=0.0, seed=0):
    """Run `program` on `unit` from `state`, comparing with the model; returns (cycle taken, cycle of done) of each.

    Memories are compared at every `done` after which a fence (or nothing) follows. `idle`: probability of a cycle
    without a command. The state's words lie somewhere in vector memory.
    """
    rng = random.Random(seed)
    origin = rng.randrange(0, (1 << VMEM_BITS) - VMEM + 1, 16)
    model, memory = copy.deepcopy(state), state
    expected = []
    for i in program:
        model.execute(i, position)
        expected.append(copy.deepcopy(model))
    taken, finished = [], []

    async def bench(ctx):
        ctx.set(unit.position, position)
        cycle, overflow, offered = 0, False, False
        while len(finished) < len(program):
            if not offered and len(taken) < len(program) and rng.random() >= idle:
                ctx.set(unit.cmd.payload, _moved(program[len(taken)], origin))
                offered = True
            ctx.set(unit.cmd.valid, offered)
            row = _serve(ctx, unit, memory, origin)
            if offered and ctx.get(unit.cmd.ready):
                taken.append(cycle)
                offered = False
            overflow |= bool(ctx.get(unit.overflow))
            if push := ctx.get(unit.done):
                _finish(program, expected, memory, finished, push, cycle)
            await ctx.tick()
            # data is promised for the cycle after the read only
            ctx.set(unit.r_data, rng.getrandbits(32 * unit.lanes) if row is None else row)
            cycle += 1
            assert cycle < 600 + max([0, *finished]), f"hangs: {program[len(finished) : len(taken)]}"
        assert overflow == model.overflow
        for _ in range(40):
            assert not any(ctx.get(s) for s in (unit.busy, unit.done, unit.w_en, unit.x_en, unit.kv_en))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(CLOCK)
    simulator.add_testbench(bench)
    simulator.run()
    return list(zip(taken, finished, strict=True))


def _moved(i, origin):
    """The command for words that lie `origin` further."""
    op, fields = Op(i["op"]), ["a"]
    if op not in REDUCTIONS:
        fields.append("b")
    if op == Op.ARGMAX or (op not in REDUCTIONS and op != Op.EXP and i["dkind"] == Dest.VMEM):
        fields.append("dst")
    return i | {name: i[name] + origin for name in fields}


def _serve(ctx, unit, memory, origin):
    """Do this cycle's writes; returns the row read (before them), or None."""
    row = None
    if ctx.get(unit.r_en):
        at = ctx.get(unit.r_addr) * unit.lanes - origin
        assert 0 <= at <= VMEM - unit.lanes, f"reads word {at + origin} outside {origin} and {VMEM} more"
        row = _packed(memory.vmem[at : at + unit.lanes])
    if ctx.get(unit.w_en):
        _write_words(ctx, unit, memory.vmem, origin)
    if ctx.get(unit.x_en):
        _write_bytes(memory.x[ctx.get(unit.x_addr)], ctx.get(unit.x_data), ctx.get(unit.x_mask))
    if ctx.get(unit.kv_en):
        _write_bytes(memory.kv[ctx.get(unit.kv_addr)], ctx.get(unit.kv_data), ctx.get(unit.kv_mask))
    return row


def _finish(program, expected, memory, finished, push, cycle):
    index = len(finished)
    assert push == program[index]["push"], f"instruction {index} pushes {program[index]['push']}, not {push}"
    finished.append(cycle)
    if index + 1 == len(program) or program[index + 1]["fence"]:
        differs = expected[index].differs(memory)
        assert differs is None, _difference(differs, expected[index], memory, program, index)


def _difference(name, expected, memory, program, index):
    want, got = getattr(expected, name), getattr(memory, name)
    at = np.argwhere(want != got)[0]
    recent = [f"{Op(i['op']).name} {i}" for i in program[max(0, index - 3) : index + 1]]
    return f"{name}{at.tolist()} = {got[tuple(at)]}, not {want[tuple(at)]}, after {index}: {recent}"


def _packed(words):
    return sum((int(w) & 0xFFFFFFFF) << 32 * i for i, w in enumerate(words))


def _write_words(ctx, unit, vmem, origin):
    at, data, mask = ctx.get(unit.w_addr) * unit.lanes - origin, ctx.get(unit.w_data), ctx.get(unit.w_mask)
    assert 0 <= at <= VMEM - unit.lanes, f"writes word {at + origin} outside {origin} and {VMEM} more"
    for lane in range(unit.lanes):
        if mask >> lane & 1:
            vmem[at + lane] = ((data >> 32 * lane & 0xFFFFFFFF) ^ 1 << 31) - (1 << 31)


def _write_bytes(word, data, mask):
    new = np.frombuffer(data.to_bytes(len(word), "little"), np.uint8)
    selected = np.unpackbits(np.frombuffer(mask.to_bytes(-(-len(word) // 8), "little"), np.uint8), bitorder="little")
    selected = selected[: len(word)].astype(bool)
    word[selected] = new[selected]


SOURCES = 1024
"""Programs read words below and write from here up (and sometimes below)."""


class ProgramMaker:
    """Random legal programs; instructions without `fence` depend on nothing that is still being written."""

    def __init__(self, lanes, vlen, seed, longest=80):
        self.lanes, self.vlen, self.longest = lanes, vlen, longest
        self.rng = np.random.default_rng(seed)
        self.position = int(self.rng.integers(0, 64))
        self.start = State.random(vlen, self.rng)
        self._fill(self.start.vmem)
        self.now = copy.deepcopy(self.start)
        self.codes, self.words, self.registers = set(), set(), set()

    def _fill(self, vmem):
        """Vectors of every magnitude; words 512..767 hold int16, 768..1023 scale codes."""
        for at in range(0, 512, 8):
            bits = int(self.rng.integers(0, 33))
            half = (1 << bits) // 2
            vmem[at : at + 8] = self.rng.integers(-half, half + 1, 8).clip(max=(1 << 31) - 1)
        for at in self.rng.integers(0, 512, 24):
            vmem[at] = self.rng.choice([-(1 << 31), (1 << 31) - 1, 0, 1, -1, 1 << 14, -(1 << 15), 32767 << 6])
        vmem[int(self.rng.integers(0, 8)) * 32 :][:40] = 0
        vmem[512:768] = self.rng.integers(-(1 << 15), 1 << 15, 256)
        vmem[520:524] = -32768, 32767, 0, -1
        for at in range(768, 1024, 32):
            middle = int(self.rng.integers(0, 255))
            vmem[at : at + 32] = self.rng.integers(max(0, middle - 12), min(255, middle + 12), 32)

    def program(self, length, ops=tuple(Op)[1:]):
        """`length` instructions, the first of which give every register a legal value."""
        made = []
        while len(made) < length:
            i = self._instruction(Op(self.rng.choice([int(o) for o in ops])))
            if i is not None:
                self._guard(i)
                self.now.execute(i, self.position)
                made.append(i)
        return made

    def _row(self, low, high):
        return int(self.rng.integers(low, high)) // self.lanes * self.lanes

    def _instruction(self, op):
        """Random fields for `op`, or None where no register suits."""
        rng = self.rng
        n = int(rng.choice([1, 2, 3, int(rng.integers(1, self.longest)), 32, 33]))
        n = n + n % 2 if op == Op.ROPE else n
        i = command(op, n=n, a=self._row(0, 512 - n), b=self._row(512, 768 - n), dst=self._row(SOURCES, VMEM - n - 1),
                    sin=int(rng.integers(8)), sout=int(rng.integers(8)), push=int(rng.integers(1, 8)),
                    frac=int(rng.integers(-64, 64)), fence=int(rng.random() < 0.3),
                    shift=int(rng.choice([rng.integers(-64, 64), rng.integers(0, 40)])))
        if op in REDUCTIONS:
            i["dst"] = self._row(SOURCES, VMEM - 2)
            i["b"], i["stride"] = int(rng.integers(1 << 16)), int(rng.integers(1 << 12))
            return self._norm(i) if op == Op.SUMSQ else i
        if op == Op.EXP:
            return self._exp(i)
        if op == Op.ADD:
            i["b"] = self._row(0, 512 - n)
        if op == Op.SCALE:
            return self._scaled(self._destined(i))
        return self._destined(i)

    def _destined(self, i):
        kind = Dest(self.rng.choice([Dest.VMEM, Dest.VMEM, Dest.X, Dest.KROW, Dest.VCOL, Dest.NONE]))
        i["dkind"] = int(kind)
        if kind == Dest.X:
            i["dst"] = int(self.rng.integers(0, XMEM - i["n"] // self.vlen - 1))
        elif kind in (Dest.KROW, Dest.VCOL):
            i["dst"], i["stride"] = int(self.rng.integers(0, 256)), int(self.rng.integers(1, 40))
        if kind == Dest.VCOL:
            i["n"] = min(i["n"], 32)
            if i["op"] not in (Op.ADD, Op.MUL, Op.ROPE):
                i["b"] = int(self.rng.integers(SOURCES, VMEM - 64))
        return i

    def _norm(self, i):
        values = self.now.vmem[i["a"] : i["a"] + i["n"]]
        least = int(vector.norm_shift(values))
        fitting = [r for r, (_, k) in enumerate(self.now.registers) if least <= k < 32]
        i["sin"] = int(self.rng.choice(fitting)) if fitting else 0
        return i if fitting else None

    def _scaled(self, i):
        fitting = [r for r, (mantissa, _) in enumerate(self.now.registers) if 0 <= mantissa < 65536]
        i["sin"] = int(self.rng.choice(fitting)) if fitting else 0
        i["shift"] = int(self.rng.integers(-64, 64))
        return i if fitting else None

    def _exp(self, i):
        """Scores near or below some register's mantissa, codes of 0..254."""
        i["b"] = self._row(768, 1024 - i["n"])
        i["dst"], i["dkind"] = int(self.rng.integers(0, XMEM - i["n"] // self.vlen - 1)), int(Dest.X)
        values = self.now.vmem[i["a"] : i["a"] + i["n"]]
        sums = {
            r: tables.exp2_negative(mantissa - values).sum()
            for r, (mantissa, _) in enumerate(self.now.registers) if mantissa >= values.max()
        }
        fitting = [r for r, total in sums.items() if total > 0]
        if fitting:
            i["sin"] = int(self.rng.choice(fitting))
        return i if fitting else None

    def _guard(self, i):
        """Set `fence` where `i` touches what may still be written."""
        op, n, words, single = Op(i["op"]), i["n"], set(), set()
        reads = set(range(i["a"], i["a"] + n))
        if op in (Op.ADD, Op.MUL, Op.ROPE, Op.EXP):
            reads |= set(range(i["b"], i["b"] + n))
        if op in (Op.MAX, Op.MAXABS, Op.SUMSQ, Op.EXP):
            single.add(-1 - i["sout"])
        if op in (Op.SUMSQ, Op.EXP, Op.SCALE):
            reads.add(-1 - i["sin"])
        if i["dkind"] == Dest.VCOL and op not in REDUCTIONS:
            single.add(i["b"] + self.position)
        if i["dkind"] == Dest.VMEM and op not in REDUCTIONS:
            words = set(range(i["dst"], i["dst"] + n))
        if op == Op.ARGMAX:
            words = {i["dst"], i["dst"] + 1}
        # results beside the row path are ordered by fences only
        if reads & (self.words | self.codes) or (words | single) & self.codes or single & self.words:
            i["fence"] = 1
        if i["fence"]:
            self.words, self.codes = set(), set()
        self.words |= words
        self.codes |= single
