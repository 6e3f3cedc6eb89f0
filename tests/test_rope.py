"""RoPE's tables of every type, against those that transformers makes of the same config.json."""

import json
from dataclasses import replace

import numpy as np
import pytest
from random_pairs import random_model
from tiny_llama import LLAMA3, SIZES, some_tokens, tiny, torch_logits
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from explore.scenario import Scenario
from explore.workload import read_workload
from hwgen.arithmetic.mx import LIMBS_MAX
from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, TileClass
from hwgen.emulate import Emulator
from hwgen.errors import HwgenError
from hwgen.float_model import logits
from hwgen.fold import gain_factor
from hwgen.hf_config import parse_config
from hwgen.load import load
from hwgen.model_config import ModelConfig
from hwgen.quantize import check_context, quantize, rope_table
from hwgen.reference import Reference
from hwgen.rope import inverse_frequencies

ORIGINAL = {"original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 2.0], "long_factor": [1.0, 2.0, 4.0, 9.0]}
TYPES = {
    "default": {"rope_type": "default"},
    "theta": {"rope_type": "default", "rope_theta": 123.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "linear below 1": {"rope_type": "linear", "factor": 0.5},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": YARN | ORIGINAL,
    "yarn without an original length": YARN,
    "yarn, theta": YARN | {"rope_theta": 1e6},
    "yarn, attention": YARN | ORIGINAL | {"attention_factor": 0.75},
    "yarn, one mscale": YARN | ORIGINAL | {"mscale": 0.707},
    "yarn, both mscales": YARN | ORIGINAL | {"mscale": 2.0, "mscale_all_dim": 0.5},
    "yarn, factor below 1": YARN | ORIGINAL | {"factor": 0.5},
    "yarn, betas": YARN | ORIGINAL | {"beta_fast": 3, "beta_slow": 0.5},
    "yarn, null": YARN | ORIGINAL | {"beta_fast": None, "attention_factor": None, "mscale": None},
    "yarn, not truncated": YARN | ORIGINAL | {"truncate": False, "beta_fast": 2.0},
    "yarn, a step": YARN | ORIGINAL | {"beta_fast": 1e-3, "beta_slow": 1e-3},
    "longrope": LONG | ORIGINAL,
    "longrope, factor": LONG | ORIGINAL | {"factor": 8.0},
    "longrope, attention": LONG | ORIGINAL | {"attention_factor": 1.5},
    "longrope without an original length": LONG,
    "llama3": LLAMA3,
    "llama3 without an original length": {k: v for k, v in LLAMA3.items() if not k.startswith("original")},
}


def config_json(**values) -> dict:
    return SIZES | {"model_type": "llama"} | values


@pytest.mark.parametrize("rope", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("spelling", ["new", "old"])
def test_tables_are_those_of_transformers(rope, spelling):
    if spelling == "new":
        raw = config_json(rope_parameters=rope)
    else:
        older = {"type" if key == "rope_type" else key: value for key, value in rope.items()}
        raw = config_json(rope_theta=older.pop("rope_theta", 10000.0), rope_scaling=older)
    theirs, ours = LlamaConfig(**json.loads(json.dumps(raw))), parse_config(json.loads(json.dumps(raw)), "tiny")
    kind = theirs.rope_parameters["rope_type"]
    if kind == "default":
        inverse, attention = theirs.rope_parameters["rope_theta"] ** (-np.arange(0, 8, 2) / 8), 1.0
    else:
        inverse, attention = ROPE_INIT_FUNCTIONS[kind](theirs, None)
    np.testing.assert_allclose(inverse_frequencies(ours), inverse, rtol=1e-6)
    assert ours.rope_attention == pytest.approx(attention, rel=1e-12)
    assert ModelConfig.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours


def test_a_top_level_original_length_counts_first():
    rope = YARN | ORIGINAL
    raw = config_json(rope_parameters=rope, original_max_position_embeddings=16)
    inverse, _ = ROPE_INIT_FUNCTIONS["yarn"](LlamaConfig(**json.loads(json.dumps(raw))), None)
    np.testing.assert_allclose(inverse_frequencies(parse_config(raw, "tiny")), inverse, rtol=1e-6)


@pytest.mark.parametrize(("name", "length"), [
    ("linear", 64), ("dynamic", 64), ("yarn", 64), ("yarn, both mscales", 64), ("longrope", 32),
    ("longrope, factor", 32), ("longrope without an original length", 64)])
def test_logits_are_those_of_transformers(tmp_path, name, length):
    model = tiny(rope_parameters={"rope_theta": 50.0} | TYPES[name])
    model.save_pretrained(tmp_path)
    tokens, loaded = some_tokens(model, 2, length), load(tmp_path)
    wanted = torch_logits(model, tokens)
    np.testing.assert_allclose(logits(loaded, tokens), wanted, atol=1e-4, rtol=0)
    assert check_context(loaded.config, None) == length
    plain = tiny(rope_parameters={"rope_type": "default", "rope_theta": 50.0})
    assert (np.abs(torch_logits(plain, tokens) - wanted).max() > 0.01) == (name != "dynamic")


@pytest.mark.parametrize(("rope", "longest"), [
    (LONG | ORIGINAL, 32), (LONG, 64), (LONG | ORIGINAL | {"long_factor": LONG["short_factor"]}, 64),
    (TYPES["dynamic"], 64), (TYPES["yarn"], 64)], ids=["longrope", "one length", "one list", "dynamic", "yarn"])
def test_a_context_that_takes_other_factors_is_refused(tmp_path, rope, longest):
    (tmp_path / "config.json").write_text(json.dumps(config_json(rope_parameters=rope)))
    config, workload = load(tmp_path, weights=False).config, read_workload(tmp_path)
    assert check_context(config, None) == check_context(config, longest) == workload.max_context == longest
    assert Scenario(workload, 7, context=longest, prompt=1)
    why = r" \(beyond it the model turns by other RoPE factors\)" if longest == 32 else r"( \(the model's maximum\))?"
    for build in (lambda: check_context(config, longest + 1),
                  lambda: Scenario(workload, 7, context=longest + 1, prompt=1)):
        with pytest.raises(HwgenError, match=rf"Context must be 1 to {longest}{why}, not {longest + 1}"):
            build()


def test_the_attention_factor_is_in_the_table():
    wide = config_json(rope_parameters=TYPES["yarn, attention"])
    one = config_json(rope_parameters=TYPES["yarn, attention"] | {"attention_factor": 1.0})
    table, plain = (rope_table(parse_config(raw, "tiny"), 64) for raw in (wide, one))
    assert table[0].tolist() == [12288, 0] * 4
    np.testing.assert_allclose(table, plain * 0.75, atol=1)


@pytest.mark.parametrize(("factor", "fits"), [(1.99, True), (32639 / 16384, True), (1.9925, False), (2.0, False)])
def test_the_table_holds_attention_factors_below_two(factor, fits):
    raw = config_json(rope_parameters=YARN | {"attention_factor": factor})
    if fits:
        table = rope_table(parse_config(raw, "tiny"), 64).astype(int)
        assert table[0, 0] == round(factor * 16384) and np.abs(table).max() <= 32639
    else:
        with pytest.raises(HwgenError, match="RoPE's attention factor must be above 0 and at most 1.9921 .* not "):
            parse_config(raw, "tiny")


def test_an_inferred_attention_factor_has_the_same_limit():
    with pytest.raises(HwgenError, match="at most 1.9921 .*, not 2.1512"):
        parse_config(config_json(rope_parameters=YARN | {"factor": 1e5}), "tiny")


@pytest.mark.parametrize(("rope", "message"), [
    ({"rope_type": "linear"}, "rope parameters must hold the numbers factor"),
    ({"rope_type": "dynamic", "factor": None}, "rope parameters must hold the numbers factor"),
    ({"rope_type": "yarn", "factor": "2"}, "factor must be a finite number, not '2'"),
    ({"rope_type": "linear", "factor": 0}, "factor must be 1e-09 to 1e\\+09, not 0"),
    ({"rope_type": "linear", "factor": -2.0}, "factor must be 1e-09 to 1e\\+09, not -2.0"),
    ({"rope_type": "linear", "factor": 1e-320}, "factor must be 1e-09 to 1e\\+09, not 1e-320"),
    (YARN | {"beta_fast": 1e300}, "beta_fast must be 1e-09 to 1e\\+09, not 1e\\+300"),
    (YARN | {"beta_slow": True}, "beta_slow must be a finite number, not True"),
    (YARN | {"mscale": 1.0, "mscale_all_dim": -30.0}, "mscale_all_dim must be at least 0, not -30.0"),
    (YARN | {"attention_factor": 0.0}, "attention_factor must be 1e-09 to 1e\\+09, not 0.0"),
    (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings must be 1 to 1073741824, not 0"),
    (YARN | {"rope_theta": 1.0}, "rope_theta must be above 1 for yarn, not 1.0"),
    (YARN | {"rope_theta": None}, "rope parameters must hold the numbers rope_theta"),
    (LONG | {"short_factor": None}, "short_factor must be a list of 4 numbers, one for each frequency, not None"),
    (LONG | {"long_factor": [1.0] * 5000}, r"long_factor must be a list of 4 numbers, .*, not \[1.0, 1.0, .*\.\.\.\]"),
    (LONG | {"short_factor": [1, 2, 3, "4"]}, "short_factor must be a list of 4 numbers"),
    (LONG | {"short_factor": [1, 2, 3, 0]}, "rope factors must be 4 positive numbers, not 4 numbers from 0.0"),
    (LONG | {"original_max_position_embeddings": 1}, "original_max_position_embeddings must be 2 to 1073741824, not 1"),
    ({"rope_type": None}, "rope_type must be 'default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope', not None"),
    ({"rope_type": ["yarn"]}, r"rope_type must be .*, not \['yarn'\]"),
    ({"type": "su", "factor": 2.0}, "rope_type must be .*, not 'su'"),
    ([1] * 5000, r"rope parameters must be one object for all layers, not \[1, 1, 1, 1, 1, 1, \.\.\.\]"),
])
def test_parameters_that_are_none(rope, message):
    with pytest.raises(HwgenError, match=message) as error:
        parse_config(config_json(rope_parameters=rope), "tiny")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("head_dim", [7, 1 << 40, -2])
@pytest.mark.parametrize("name", ["linear", "yarn", "longrope"])
def test_a_head_size_that_is_none(name, head_dim):
    with pytest.raises(HwgenError, match="head_dim must be "):
        parse_config(config_json(rope_parameters=TYPES[name], head_dim=head_dim), "tiny")


def test_a_chip_turns_by_the_table_of_the_reference():
    """An attention factor that nearly fills the table, in the memories and programs of a chip."""
    config = parse_config(config_json(rope_parameters=YARN | {"attention_factor": 1.99}, num_hidden_layers=1), "tiny")
    graph = quantize(random_model(config, np.random.default_rng(1)), context=16, allow_wrap=True)
    chip = compile_chip(graph, Design(1, 1, classes=(TileClass("a", vlen=8, lanes=2),)))
    assert graph.rope.max() == round(1.99 * 16384)
    assert Emulator(chip, 0).generate([1, 2, 3], 4) == Reference(graph).generate([1, 2, 3], 4, eos=None)


def test_a_gain_that_two_limbs_cannot_hold_is_cut():
    """A largest gain just below a power of two comes as near to 2^15 as it can."""
    config = parse_config(config_json(tie_word_embeddings=True), "tiny")
    model = random_model(config, np.random.default_rng(1)).in_memory()
    gain = np.full_like(model.tensors["norm"], 0.1)
    gain[3] = np.float32((2 - 2**-10) / gain_factor(config))
    graph = quantize(replace(model, tensors=model.tensors | {"norm": gain}), context=16, allow_wrap=True)
    assert graph.final_gain.max() == LIMBS_MAX == 32639
    chip = compile_chip(graph, Design(1, 1, classes=(TileClass("a", vlen=8, lanes=2),)))
    logits_of_chip = Emulator(chip, 0).token(3, 0, logits=True)
    np.testing.assert_array_equal(logits_of_chip, Reference(graph).step(3, 0))
