# amaranth: UnusedElaboratable=no
import numpy as np
import pytest
from tile_bench import TileBench

from hwgen.arithmetic import mx, vector
from hwgen.isa import Dest, Index, Instruction, Unit, When
from hwgen.rtl.performance import COUNTERS
from hwgen.rtl.tile import Tile

M, V, S, C = Unit.MATRIX, Unit.VECTOR, Unit.SEND, Unit.CONTROL
VLEN, TOKENS, ROWS = 8, 6, 5
RNG = np.random.default_rng(5)
TABLE = RNG.integers(-127, 128, (TOKENS, VLEN))
WEIGHTS = RNG.integers(-127, 128, (ROWS, VLEN))
CODE = 127
BASE, ARG_BASE, FRACTION = 16, 70_000, 12


def op(unit, name, pop=(), push=(), when=When.ALWAYS, fence=0, **fields):
    return Instruction(unit, name, fields, when, fence, sum(1 << u for u in pop), sum(1 << u for u in push))


def words(matrix):
    return [[*(int(v) & 255 for v in row), CODE] for row in matrix]


# a row of the table for the token -> operand -> product -> its maximum, and the product doubled by way of the network
PROGRAM = [
    op(C, "RANGE", lo=2, hi=4),
    op(M, "GATHER", push=[V], base=0, rows=VLEN, stride=1, dst=32, index=Index.TOKEN),
    op(V, "COPY", pop=[M], push=[M], a=32, n=VLEN, dst=3, dkind=Dest.X, frac=FRACTION),
    op(M, "MATMUL", pop=[V], push=[S], x=3, base=BASE, rows=ROWS, kwords=1, stride=1, dst=64),
    op(S, "SEND", pop=[M], src=64, n=ROWS, dst=97, ctr=2),
    op(M, "MATMUL", push=[V], when=When.TOKENS, x=3, base=BASE, rows=ROWS, kwords=1, stride=1, dst=64),
    op(V, "ARGMAX", pop=[M], push=[S], a=64, n=ROWS, dst=80, b=ARG_BASE & 0xFFFF, stride=ARG_BASE >> 16,
       when=When.TOKENS),
    op(S, "SEND", pop=[V], src=80, n=2, dst=0, host=1, when=When.TOKENS),
    op(V, "WAIT", ctr=2, count=ROWS),
    op(V, "COPY", a=96, n=ROWS + 1, dst=112, dkind=Dest.VMEM),
    op(V, "ADD", fence=1, push=[S], a=112, b=112, n=ROWS + 1, dst=800, dkind=Dest.VMEM),
    op(V, "COPY", a=800, n=1, dst=160, dkind=Dest.VMEM, when=When.OWNER),
    op(S, "SEND", pop=[V], src=800, n=ROWS + 1, dst=1, host=1),
    op(S, "SEND", src=64, n=1, dst=3, host=1, when=When.NOT_TOKENS),
    op(C, "END"),
]
ROM = words(TABLE) + [[0] * (VLEN + 1)] * (BASE - TOKENS) + words(WEIGHTS)


def expected(token):
    x = mx.quantize_int(TABLE[token] * 64, FRACTION)
    weights = np.pad(WEIGHTS, ((0, 0), (0, mx.BLOCK - VLEN))).astype(np.int8)[:, None]
    product, overflow = mx.matmul(x, mx.Mx(weights, np.full((ROWS, 1), CODE, np.uint8), VLEN))
    assert not overflow.any()
    return product.reshape(-1)


def unsigned(values):
    return [int(v) & 0xFFFFFFFF for v in values]


@pytest.mark.parametrize(("fetch", "stations", "lanes", "flit_bits"), [(1, 1, 1, 32), (2, 4, 2, 64), (4, 8, 4, 128)])
def test_runs_programs(fetch, stations, lanes, flit_bits):
    bench = TileBench(PROGRAM, ROM, fetch=fetch, stations=stations, lanes=lanes, flit_bits=flit_bits)
    before = bench.vmem(160, 1)
    bench.start(5, output=1, clear=1)
    bench.start(3, output=0)  # held until the first has ended
    bench.run(4)
    first, second = expected(5), expected(3)
    headers, contents = zip(*bench.messages, strict=True)
    best = int(first.argmax())
    assert contents[0] == unsigned([first[best], ARG_BASE + best])
    assert contents[1][1:] == unsigned(vector.add(first, first)[0])
    assert contents[2][1:] == unsigned(vector.add(second, second)[0])
    assert contents[3] == unsigned(second[:1])
    assert [h["addr"] for h in headers] == [0, 1, 1, 3] and not any(h["ctr"] & 2 for h in headers)
    assert bench.vmem(160, 1) == [np.int32(np.uint32(contents[2][0]))] != before  # written for token 3 only


def test_counts_and_flags():
    bench = TileBench(PROGRAM, ROM, stations=8)
    bench.send([0x7FFFFFFF], 13, addr=96)  # doubled in the ADD: overflows
    bench.start(1, clear=1)
    bench.run(2)
    bench.report()
    bench.run(3)
    bench.start(1, output=0)
    bench.run(5)
    assert [header["addr"] for header, _ in bench.messages] == [0, 1, 4, 1, 3]
    (result, _), (chunk, doubled), (_, first), _, (later, _) = bench.messages
    assert doubled[0] == 0xFFFFFFFE
    assert result["ctr"] == 0 and chunk["ctr"] == later["ctr"] == 1  # sticky from the overflow on
    first = dict(zip(COUNTERS, first, strict=True))
    assert first["mac_busy"] == VLEN + 2 * ROWS
    assert first["mac_busy"] < first["running"] < bench.cycle
    assert first["vector_waits_message"] > 0 and first["matrix_waits_message"] == first["issue_blocked"] == 0
    bench = TileBench(PROGRAM, ROM)
    bench.start(1, clear=1)
    bench.start(1, clear=1)
    bench.run(4)
    bench.report()
    bench.run(5)
    again = dict(zip(COUNTERS, bench.messages[-1][1], strict=True))
    assert again["mac_busy"] == first["mac_busy"]  # cleared by the second start


def test_missing_token_is_a_fault():
    program = [op(V, "COPY", push=[M], a=0, n=1, dst=0, dkind=Dest.VMEM)] * 64 + [
        op(V, "COPY", fence=1, push=[S], a=0, n=1, dst=0, dkind=Dest.VMEM),
        op(S, "SEND", pop=[V], src=0, n=1, host=1, dst=3), op(C, "END"),
    ]
    bench = TileBench(program, ROM)
    bench.start(0, clear=1)
    bench.run(1)
    assert bench.messages[0][0]["ctr"] & 2  # 64 tokens do not fit a counter


def test_refuses_bad_parameters():
    network = TileBench(PROGRAM, ROM).network
    addresses = {f"{name}_address_bits": 4 for name in ("rom", "imem", "x", "kv")}
    with pytest.raises(ValueError, match="Vector memory address width must be 1 to 18 bits, not 19"):
        Tile(fetch=1, stations=1, vlen=8, lanes=4, vmem_address_bits=19, **addresses, **network)
