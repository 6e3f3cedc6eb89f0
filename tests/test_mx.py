"""MXINT8 against gfloat's, and the product's rules against exact integers."""

from fractions import Fraction

import gfloat
import numpy as np
import pytest
from gfloat.formats import format_info_mxint8

from hwgen.arithmetic.fast import Operand, product
from hwgen.arithmetic.mx import (
    BLOCK,
    Mx,
    accumulate,
    matmul,
    quantize_float,
    quantize_int,
    quantize_weighted,
    shift_block,
)


def gfloat_block(block):
    """(scale code, elements) of 32 values by gfloat, -128 changed to -127."""
    scale = gfloat.compute_scale_amax(format_info_mxint8.etype.emax, block)
    codes = list(gfloat.encode_block(format_info_mxint8, scale, block / scale))
    elements = np.array(codes[1:], np.uint8).view(np.int8)
    return codes[0], np.where(elements == -128, -127, elements)


def blocks():
    random = np.random.default_rng(5)
    normal = random.standard_normal(BLOCK)
    ties = (np.arange(BLOCK) - 16 + 0.5) / 64
    ties[0] = 1.0
    yield from (normal, normal * 1e-30, normal * 1e30, -np.abs(normal), ties, ties * 2.0**-90, np.zeros(BLOCK))
    # Close below a power of two: rounds up to 128, and down to -128
    yield from (np.full(BLOCK, 1 - 2.0**-20), np.full(BLOCK, -1 + 2.0**-20), np.full(BLOCK, -1.0))
    yield normal.astype(np.float32) * np.float32(2.0**-126)
    yield np.where(np.arange(BLOCK) == 3, 2.0**-149, 0)
    yield np.where(np.arange(BLOCK) % 2, 2.0**-127, 3 * 2.0**-134)
    yield np.where(np.arange(BLOCK) == 3, float(np.finfo(np.float32).max), normal)
    for _ in range(40):
        yield (random.standard_normal(BLOCK) * np.exp2(random.integers(-12, 12, BLOCK))).astype(np.float32)
        yield random.integers(-255, 256, BLOCK) / 128 * 2.0 ** random.integers(-20, 20)


@pytest.mark.parametrize("block", list(blocks()))
def test_quantize_float_equals_gfloat(block):
    block = np.asarray(block, np.float64)
    ours = quantize_float(block)
    code, elements = gfloat_block(block)
    assert ours.scales.tolist() == [code]
    assert ours.elements[0].tolist() == elements.tolist()


def test_minus_128_never_occurs():
    ours = quantize_float(np.full(BLOCK, -1 + 2.0**-20))
    assert set(ours.elements.ravel().tolist()) == {-127}


def test_quantize_int_is_quantize_float_of_the_same_values():
    random = np.random.default_rng(1)
    for fraction in (-20, -1, 0, 9, 12, 40):
        values = random.integers(-(1 << 31), 1 << 31, (50, 70)) >> random.integers(0, 31, (50, 1))
        values[3], values[4, :32] = 0, 0
        a, b = quantize_int(values, fraction), quantize_float(np.ldexp(values.astype(np.float64), -fraction))
        np.testing.assert_array_equal(a.elements, b.elements)
        np.testing.assert_array_equal(a.scales, b.scales)
        assert a.length == b.length == 70


def test_quantize_weighted_is_quantize_float_of_the_weighted_values():
    random = np.random.default_rng(2)
    p = random.integers(0, 32769, (40, 75)) >> random.integers(0, 16, (40, 75))
    codes = random.integers(90, 150, (40, 75))
    p[0], p[1, :32], p[2, 0] = 0, 0, 32768
    a = quantize_weighted(p, codes)
    b = quantize_float(np.ldexp(p / 32768.0, codes - 127))
    np.testing.assert_array_equal(a.elements, b.elements)
    np.testing.assert_array_equal(a.scales, b.scales)


def test_quantize_weighted_follows_its_block_code_when_scales_vary_widely():
    p, codes = np.zeros(BLOCK, np.int64), np.zeros(BLOCK, np.int64)
    p[:3], codes[:3] = (32768, 1, 5), (0, 60, 250)
    mx = quantize_weighted(p, codes)
    # reach 3 + 250, so block code 237 and element 5 * 2^(250 - 237 - 9)
    assert mx.scales.tolist() == [237]
    assert mx.elements[0, :3].tolist() == [0, 0, 80]


def test_padding_is_zero_and_dropped_by_to_float():
    mx = quantize_float(np.ones((2, 40)))
    assert mx.blocks == 2
    assert not mx.elements[:, 1, 8:].any()
    np.testing.assert_array_equal(mx.to_float(), np.ones((2, 40)))


@pytest.mark.parametrize(("dot", "shift", "value", "overflow"), [
    (3, -1, 2, False), (-3, -1, -1, False), (1, -1, 1, False), (-1, -1, 0, False), (5, 0, 5, False),
    (5, 3, 40, False), (516128, -32, 0, False), (-516128, -40, 0, False), (1, 30, 1 << 30, False),
    (1, 31, -(1 << 31), True), (-1, 31, -(1 << 31), False), (3, 31, -(1 << 31), True), (1, 32, 0, True),
    (-5, 200, 0, True), (0, 200, 0, False),
])
def test_shift_block(dot, shift, value, overflow):
    got, flag = shift_block(np.array(dot), np.array(shift))
    assert (int(got), bool(flag)) == (value, overflow)


def test_accumulate_wraps_and_sees_the_exact_sum():
    top = (1 << 31) - 1
    value, overflow = accumulate(np.array([[top, 1, 0], [top, 1, -1]]), np.zeros((2, 3), bool))
    assert value.tolist() == [-(1 << 31), top]
    assert overflow.tolist() == [True, False]


def exact_matmul(x, w):
    """Rows of w times x [rows] with Python's fractions: (values, overflow)."""
    values, flags = [], []
    for row in range(len(w.scales)):
        total, over = 0, False
        for block in range(x.blocks):
            dot = sum(int(a) * int(b) for a, b in zip(x.elements[block], w.elements[row, block], strict=True))
            part = (dot * Fraction(2) ** (int(x.scales[block]) + int(w.scales[row, block]) - 254) + Fraction(1, 2)) // 1
            over |= not -(1 << 31) <= part < 1 << 31
            total += (part + (1 << 31)) % (1 << 32) - (1 << 31)
        flags.append(over or not -(1 << 31) <= total < 1 << 31)
        values.append((total + (1 << 31)) % (1 << 32) - (1 << 31))
    return values, flags


@pytest.mark.parametrize("spread", [3, 14, 127])
def test_products_are_exact(spread):
    random = np.random.default_rng(spread)

    def operand(rows):
        elements = random.integers(-127, 128, (rows, 3, BLOCK)).astype(np.int8)
        return Mx(elements, random.integers(127 - spread, 128 + spread, (rows, 3)).astype(np.uint8), 96)

    x, w = operand(6), operand(20)
    wanted = [exact_matmul(x[row], w) for row in range(6)]
    value, overflow = matmul(x, w)
    assert value.tolist() == [values for values, _ in wanted]
    assert overflow.tolist() == [flags for _, flags in wanted]
    assert np.any(overflow) == (spread > 3)
    fast, flags = product(Operand(x), Operand(w))
    np.testing.assert_array_equal(fast, value)
    np.testing.assert_array_equal(np.zeros(value.shape, bool) if flags is None else flags, overflow)


def test_fast_product_of_batches():
    random = np.random.default_rng(0)
    x, w = (quantize_float(random.standard_normal((2, 3, rows, 50)) * 40) for rows in (4, 5))
    value, overflow = product(Operand(x), Operand(w))
    assert overflow is None
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(value[i, j], matmul(x[i, j], w[i, j])[0])


@pytest.mark.filterwarnings("error")
def test_fast_product_of_numbers_that_leave_float32():
    """A scale of 2^127 makes values that float32 cannot hold; the other side's 2^-127 brings their product back."""
    x, w = quantize_float(np.full((1, 40), 3.3e38)), quantize_float(np.full((1, 40), 3e-38))
    value, overflow = product(Operand(x), Operand(w))
    wanted, flags = matmul(x, w)
    np.testing.assert_array_equal(value, wanted)
    assert wanted[0, 0] > 300 and not flags.any()
    assert overflow is None or not overflow.any()
