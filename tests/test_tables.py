"""The function tables against the functions."""

import numpy as np
import pytest

from hwgen.arithmetic import tables


def test_shape_of_the_tables():
    for table in (tables.EXP2, tables.SIGMOID, tables.RSQRT, tables.RECIPROCAL):
        assert len(table.base) == len(table.step) == 32
        assert max(map(abs, table.base)) <= 65535


@pytest.mark.parametrize("run", [(tables.EXP2, 32), (tables.SIGMOID, 32), (tables.RECIPROCAL, 32), (tables.RSQRT, 16)])
def test_segments_join(run):
    table, length = run
    for i in range(31):
        if (i + 1) % length:
            assert table.base[i] + table.step[i] == table.base[i + 1]


def test_exp2_is_close_and_falls():
    distance = np.arange(0, 20 << 12)
    p = tables.exp2_negative(distance)
    assert p[0] == 32768
    assert np.all(np.diff(p) <= 0)
    assert np.abs(p - 32768 * np.exp2(-distance / 4096)).max() <= 3.5
    assert tables.exp2_negative(np.array([17 << 12, 1 << 32])).tolist() == [0, 0]


def test_sigmoid_is_close_rises_and_mirrors():
    a = np.arange(-(24 << 12), 24 << 12, 7)
    s = tables.sigmoid(a)
    assert np.all(np.diff(s) >= 0)
    assert np.abs(s - 65536 / (1 + np.exp(-a / 4096.0))).max() <= 52
    assert tables.sigmoid(np.array([0, -(1 << 31), (1 << 31) - 1])).tolist() == [32768, 0, 65535]
    inside = a[(a > 0) & (a < 8 << 12)]
    assert np.all(tables.sigmoid(inside) + tables.sigmoid(-inside) == 65536)


def test_rsqrt():
    s = np.unique(np.concatenate([np.arange(1, 5000), np.exp2(np.linspace(0, 52.9, 20000)).astype(np.int64)]))
    mantissa, exponent = tables.rsqrt(s)
    assert mantissa.min() >= 32768
    assert mantissa.max() <= 65535
    assert np.abs(mantissa * np.exp2(-exponent.astype(float)) * np.sqrt(s.astype(float)) - 1).max() < 5e-4


def test_reciprocal():
    d = np.unique(np.concatenate([np.arange(1, 5000), np.exp2(np.linspace(0, 31.99, 20000)).astype(np.int64)]))
    mantissa, exponent = tables.reciprocal(d)
    assert mantissa.min() >= 32768
    assert mantissa.max() <= 65535
    assert np.abs(mantissa * np.exp2(-exponent.astype(float)) * d - 1).max() < 3e-4
