"""Workloads from config.json alone."""

import json

import pytest
from random_model import random_model

from explore.command import explore
from explore.program_shape import program_shape
from explore.workload import read_workload, shipped_workloads
from hwgen.errors import HwgenError
from hwgen.quantize import quantize

PARAMETERS = {
    "llama-3.1-8b": 8_030_261_248, "llama-3.2-1b": 1_235_814_400, "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120, "smolvlm-256m": 256_484_928, "smolvlm-500m": 507_482_304, "stories260k": 260_032,
}


def test_the_shipped_workloads_are_the_named_ones():
    assert set(shipped_workloads()) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exact(name):
    assert read_workload(name).parameters == PARAMETERS[name]


def test_weights_and_gains_make_up_the_parameters():
    w = read_workload("llama-3.1-8b")
    assert w.weight_elements + (2 * w.layers + 1) * w.hidden == w.parameters


def test_macs_grow_with_the_position_by_scores_and_values():
    w = read_workload("smollm2-135m")
    assert w.macs_per_token(0) - 2 * w.layers * w.heads * w.head_dim == w.weight_elements
    assert w.macs_per_token(100) - w.macs_per_token(0) == 100 * 2 * w.layers * w.heads * w.head_dim


def test_cache_and_bytes_of_a_token():
    w = read_workload("llama-3.1-8b")
    assert w.kv_bytes_fp16 == 128 * 1024
    assert w.kv_bytes_per_token == 32 * 8 * 4 * (33 + 36)
    assert w.bytes_per_token(9) - w.bytes_per_token(8) == w.kv_bytes_per_token
    embedding = w.vocab * w.hidden * 33 // 32
    assert w.bytes_per_token(0) == w.weight_bytes - embedding + embedding // w.vocab + w.kv_bytes_per_token


def test_formats_of_weights():
    plain, layers, whole = (read_workload("llama-3.1-8b", weights=w, head=h) for w, h in (
        ("mxint8", "mxint8"), ("mxfp4", "mxint8"), ("mxfp4", "mxfp4")))
    ends = 2 * plain.vocab * plain.hidden
    assert plain.weight_bytes == plain.weight_elements * 33 // 32
    assert layers.weight_bytes == (plain.weight_elements - ends) * 17 // 32 + ends * 33 // 32
    assert whole.weight_bytes == plain.weight_elements * 17 // 32
    assert plain.parameters == whole.parameters and plain.kv_bytes_per_token == whole.kv_bytes_per_token
    assert whole.bytes_per_token(5) < layers.bytes_per_token(5) < plain.bytes_per_token(5)
    with pytest.raises(HwgenError, match="Format of weights must be mxint8 or mxfp4, not 'int4'"):
        read_workload("llama-3.1-8b", weights="int4")


def test_the_vision_tower_is_counted_with_shuffle_and_connector():
    w = read_workload("smolvlm-256m")
    assert (w.vision.patches, w.image_tokens, w.vision.parameters) == (1024, 64, 93_510_912)
    connector = w.vision.operators[-1]
    assert (connector.rows, connector.columns, connector.count) == (576, 768 * 16, 64)
    assert w.parameters == w.config.parameters() + w.vision.parameters


def test_operators_name_only_operators():
    w = read_workload("smolvlm-256m")
    for operators in (w.operators + w.cached_operators(3), w.vision.operators):
        names = {o.name for o in operators}
        assert all(set(o.after) <= names for o in operators)


def test_the_outline_of_a_long_model_repeats_its_layers():
    steps = [program_shape(n, 4, 2) for n in (6, 7, 8)]
    first, second = ([getattr(b, f) - getattr(a, f) for f in ("instructions", "depth", "raw", "war", "waw")]
                     for a, b in zip(steps, steps[1:], strict=False))
    assert first == second and all(d > 0 for d in first)


def test_a_folder_with_only_its_config_is_enough(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 128}))
    w = read_workload(tmp_path)
    assert (w.kv_heads, w.head_dim, w.layers) == (4, 16, 2)
    assert read_workload(tmp_path / "config.json") == w


@pytest.mark.parametrize("change, message", [
    ({"hidden_size": None}, "lacks hidden_size"),
    ({"model_type": "gpt2"}, "model_type must be"),
    ({"vision_config": {"patch_size": 0}}, "patch_size must be a whole number from 1 to 65536, not 0"),
    ({"vision_config": {"image_size": 160, "patch_size": 32}}, "scale_factor must divide the 5 patches"),
    ({"num_hidden_layers": -1}, "num_hidden_layers must be 1 to 4096, not -1"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps must be a finite number, not 1000"),
    ({"model_type": "llava", "text_config": {"model_type": "llama"}}, "model_type must be .*, not 'llava'"),
    ({"model_type": "idefics3", "text_config": 3}, "text_config must be an object, not 3"),
])
def test_bad_configs_are_refused(tmp_path, change, message):
    good = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 128}
    (tmp_path / "config.json").write_text(json.dumps(good | change))
    with pytest.raises(HwgenError, match=message):
        read_workload(tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(HwgenError, match="or one of llama-3.1-8b, .*, not 'gpt-5'"):
        read_workload("gpt-5")


def test_formats_and_context_of_a_q_file_are_facts_of_it(tmp_path):
    for name, formats in (("wide", {}), ("narrow", {"weights": "mxfp4"}), ("head", {"head": "mxfp4"})):
        quantize(random_model("odd sizes"), context=16, **formats).save(tmp_path / name)
        own = {"weights": "mxint8", "head": "mxint8"} | formats
        workload = read_workload(tmp_path / name)
        assert (read_workload(tmp_path / name, **own), workload.context) == (workload, 16)
        for part, other in (("weights", "head"), ("head", "weights")):
            asked = {"mxint8": "mxfp4", "mxfp4": "mxint8"}[own[part]]
            sentence = f"^--{part} must be {own[part]}, as .*{name} was quantised with, not {asked}$"
            for also in ({}, {other: own[other]}):
                with pytest.raises(HwgenError, match=sentence):
                    read_workload(tmp_path / name, **{part: asked}, **also)
        for context in (8, 17):
            with pytest.raises(HwgenError, match=f"^Context must be 16, as .*{name} was quantised for, not {context}$"):
                explore(str(tmp_path / name), nm=28, goal="low-power", context=context)
