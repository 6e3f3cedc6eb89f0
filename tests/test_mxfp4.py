"""MXFP4 against gfloat's, and its place among the MXINT8 blocks."""

import gfloat
import numpy as np
import pytest
from gfloat.formats import format_info_mxfp4_e2m1

from hwgen.arithmetic.mx import BLOCK
from hwgen.arithmetic.mxfp4 import ELEMENTS, SCALE_STEP, decode, encode, is_mxfp4, quantize_mxfp4


def gfloat_block(block):
    """(OCP scale code, codes of the elements) of 32 values by gfloat, negative zeros made positive."""
    scale = gfloat.compute_scale_amax(format_info_mxfp4_e2m1.etype.emax, block)
    codes = list(gfloat.encode_block(format_info_mxfp4_e2m1, scale, block / scale))
    return codes[0], [0 if code == 8 else code for code in codes[1:]]


def blocks():
    random = np.random.default_rng(6)
    normal = random.standard_normal(BLOCK)
    # every tie between two codes, and a little to both sides of it
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    ties = np.concatenate([ties, -ties, ties + 2.0**-20, ties - 2.0**-20, [4, 6, 0, -6]])
    yield from (normal, normal * 1e-30, normal * 1e30, -np.abs(normal), ties, ties * 2.0**-90, np.zeros(BLOCK))
    # 7 and all below 8 saturate at 6
    yield from (np.full(BLOCK, 8 - 2.0**-20), np.full(BLOCK, -7.0), np.linspace(-7.99, 7.99, BLOCK))
    # scales at their lower end: subnormal numbers, and blocks that vanish
    yield normal.astype(np.float32) * np.float32(2.0**-124)
    yield normal.astype(np.float32) * np.float32(2.0**-126)
    yield np.where(np.arange(BLOCK) == 3, 2.0**-149, 0)
    for top in range(-130, -122):
        yield ties * 2.0**top
    # and at their upper end
    yield np.where(np.arange(BLOCK) == 3, float(np.finfo(np.float32).max), normal * 2.0**124)
    for _ in range(60):
        yield (random.standard_normal(BLOCK) * np.exp2(random.integers(-4, 4, BLOCK))).astype(np.float32)
        yield random.integers(-64, 65, BLOCK) / 8 * 2.0 ** random.integers(-20, 20)


@pytest.mark.parametrize("block", list(blocks()))
def test_quantiser_equals_gfloat(block):
    block = np.asarray(block, np.float64)
    ours = quantize_mxfp4(block)
    code, codes = gfloat_block(block)
    assert max(0, int(ours.scales[0]) - SCALE_STEP) == code
    assert encode(ours.elements[0]).tolist() == codes
    worth = list(gfloat.decode_block(format_info_mxfp4_e2m1, [code, *codes]))
    np.testing.assert_array_equal(ours.to_float(), worth)


def test_many_blocks_and_a_tail():
    values = np.random.default_rng(0).standard_normal((5, 3, 70)).astype(np.float32)
    ours = quantize_mxfp4(values)
    assert (ours.elements.shape, ours.scales.shape, ours.length) == ((5, 3, 3, BLOCK), (5, 3, 3), 70)
    for row, elements, scales in zip(values.reshape(15, 70), ours.elements.reshape(15, 3, BLOCK),
                                     ours.scales.reshape(15, 3), strict=True):
        code, codes = gfloat_block(np.pad(row[64:].astype(np.float64), (0, 26)))
        assert (scales[2] - SCALE_STEP, encode(elements[2]).tolist()) == (code, codes)


def test_codes():
    codes = np.arange(16, dtype=np.uint8)
    elements = decode(codes)
    assert elements.tolist() == [*ELEMENTS, *(-e for e in ELEMENTS)]
    numbers = [gfloat.decode_float(format_info_mxfp4_e2m1.etype, int(code)).fval for code in codes]
    assert elements.tolist() == [16 * number for number in numbers]
    assert np.delete(encode(elements), 8).tolist() == np.delete(codes, 8).tolist() and encode(elements)[8] == 0


def test_is_mxfp4():
    for element in range(-127, 128):
        assert is_mxfp4(np.array([[0, element, 96]], np.int8)) == (abs(element) in ELEMENTS)
