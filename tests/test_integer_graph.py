"""The Q file: round trip, same bytes, damage; and graphs of sizes alone."""

import os
from dataclasses import replace

import numpy as np
import pytest
from random_model import SHAPES, random_model

from hwgen.errors import HwgenError
from hwgen.integer_graph import MATRICES, IntegerGraph, check_graph_output, is_graph_file, shape_only
from hwgen.quantize import quantize


@pytest.fixture(scope="module", params=[*SHAPES, "in MXFP4"])
def graph(request):
    shape, weights = (request.param, "mxint8") if request.param in SHAPES else ("odd sizes", "mxfp4")
    return quantize(random_model(shape), weights=weights, context=20, allow_wrap=True)


def test_round_trip(graph, tmp_path):
    path = tmp_path / "q"
    graph.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["q"]
    back = IntegerGraph.load(path)
    assert back.config == graph.config
    assert back.arrays().keys() == graph.arrays().keys()
    for name, array in graph.arrays().items():
        np.testing.assert_array_equal(back.arrays()[name], array)
        assert back.arrays()[name].dtype == array.dtype
    for ours, theirs in zip(graph.layers, back.layers, strict=True):
        fracs = {name: value for name, value in vars(ours).items() if name not in MATRICES}
        assert fracs == {name: value for name, value in vars(theirs).items() if name not in MATRICES}
        assert [getattr(ours, m).length for m in MATRICES] == [getattr(theirs, m).length for m in MATRICES]
    assert (back.signature(), back.mxfp4, back.weights) == (graph.signature(), graph.mxfp4, graph.weights)
    assert is_graph_file(path)


def test_same_graph_same_bytes(graph, tmp_path):
    for name in ("a", "b"):
        graph.save(tmp_path / name)
        graph = IntegerGraph.load(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_signature_depends_on_weights_and_exponents(graph):
    embed = replace(graph.embed, elements=graph.embed.elements ^ 1)
    layers = (replace(graph.layers[0], q_frac=graph.layers[0].q_frac + 1), *graph.layers[1:])
    others = (replace(graph, embed=embed), replace(graph, layers=layers), replace(graph, mxfp4=graph.mxfp4 | {"head"}))
    assert len({g.signature() for g in (graph, *others)}) == 4


def test_bias_blocks(graph):
    for matrix in MATRICES:
        assert graph.has_bias(matrix) == graph.config.mlp_bias


def test_shape_only_has_the_same_shapes(graph):
    empty = shape_only(graph.config, graph.context)
    assert {n: a.shape for n, a in empty.arrays().items()} == {n: a.shape for n, a in graph.arrays().items()}
    assert {n: a.dtype for n, a in empty.arrays().items()} == {n: a.dtype for n, a in graph.arrays().items()}
    assert empty.signature() == shape_only(graph.config, graph.context).signature()


def test_shape_only_of_a_large_model_takes_no_memory():
    config = replace(random_model("odd sizes").config, vocab=1 << 20, hidden=1 << 14, ffn=1 << 16, layers=80)
    graph = shape_only(config, 512)
    assert graph.embed.elements.shape == (1 << 20, 512, 32)
    assert graph.signature() > 0


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b[: len(b) // 2], lambda b: b"GGUF" + b[4:],
                                    lambda b: b.replace(b"hwgen-integer-graph-1", b"hwgen-integer-graph-0")])
def test_damaged_files_are_refused(graph, tmp_path, damage):
    graph.save(tmp_path / "q")
    data = (tmp_path / "q").read_bytes()
    (tmp_path / "bad").write_bytes(damage(data))
    with pytest.raises(HwgenError, match="Integer graph must be a file that `hwgen quantize` wrote, not .*bad"):
        IntegerGraph.load(tmp_path / "bad")
    with pytest.raises(HwgenError, match="not .*missing"):
        IntegerGraph.load(tmp_path / "missing")


@pytest.mark.parametrize(("named", "message"), [("qkv", "0.qkv holds more than MXFP4"), ("k", "unknown")])
def test_what_is_no_mxfp4_is_refused(named, message, tmp_path):
    graph = replace(quantize(random_model("odd sizes"), context=20), mxfp4=frozenset({named}))
    graph.save(tmp_path / "q")
    with pytest.raises(HwgenError, match=message):
        IntegerGraph.load(tmp_path / "q")


def test_a_failed_save_leaves_nothing(graph, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("hwgen.integer_graph.save_file", fail)
    with pytest.raises(HwgenError, match="^Output must be writable, not .*q': disk full$"):
        graph.save(tmp_path / "q")
    assert list(tmp_path.iterdir()) == []


def test_where_a_graph_can_be_written_is_found_out_before_the_work(tmp_path):
    with pytest.raises(HwgenError, match="^Output must be in a writable folder, not '/proc/a.q': "):
        check_graph_output("/proc/a.q")
    graph = quantize(random_model("odd sizes"), context=16)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/a.q")
    for _ in range(2):  # new, then there
        check_graph_output(tmp_path / "link")
        graph.save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and IntegerGraph.load(tmp_path / "disk/a.q").context == 16
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"] and os.listdir(tmp_path / "disk") == ["a.q"]
