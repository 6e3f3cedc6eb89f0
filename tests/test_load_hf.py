import json
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_llama import CASES, LLAMA3, SIZES, some_tokens, tiny, torch_logits
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import hwgen.safetensors_file
from explore.workload import read_workload
from hwgen.errors import HwgenError
from hwgen.float_model import logits
from hwgen.hf_config import parse_config
from hwgen.load import load
from hwgen.model_config import Llama3Scaling, ModelConfig
from hwgen.quantize import check_context
from hwgen.tokenizer import readable

HUGE = 10**400
"""A whole number that no float holds."""


@pytest.fixture
def folder(tmp_path):
    """A checkpoint whose config.json alone says how answers end."""
    tiny().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    return tmp_path


def edit(folder, **values):
    """Sets keys of config.json; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_tensors(folder, change):
    file = folder / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def refused(path, **options) -> str:
    with pytest.raises(HwgenError) as error:
        load(path, **options)
    return str(error.value)


def assert_agrees(model, folder):
    tokens = some_tokens(model)
    loaded = load(folder)
    np.testing.assert_allclose(logits(loaded, tokens), torch_logits(model, tokens), atol=1e-4, rtol=0)
    assert loaded.config.parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_agrees_with_transformers(tmp_path, options):
    model = tiny(**options)
    model.save_pretrained(tmp_path)
    assert_agrees(model, tmp_path)


@pytest.mark.parametrize("kind,options", [
    ("mistral", {"sliding_window": None}), ("mistral", {"sliding_window": 64}), ("qwen2", {"head_dim": 8}),
])
def test_other_members_of_the_family_agree(tmp_path, kind, options):
    model = tiny(kind, **options)
    model.save_pretrained(tmp_path)
    assert_agrees(model, tmp_path)


def test_several_files(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_agrees(model, tmp_path)
    next(tmp_path.glob("model-00002*")).unlink()
    assert "must hold model-00002" in refused(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tmp_path, dtype):
    tiny().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    stored, loaded = model.state_dict(), load(tmp_path)
    np.testing.assert_array_equal(loaded.tensors["1.down"], stored["model.layers.1.mlp.down_proj.weight"].numpy())
    assert loaded.tensors["embed"].dtype == np.float32
    assert_agrees(model, tmp_path)


def test_config_fields(folder):
    edit(folder, rope_parameters=LLAMA3, eos_token_id=[5, 7, 5], bos_token_id=3)
    config = load(folder, weights=False).config
    assert config == ModelConfig(
        vocab=67, hidden=48, layers=2, heads=6, kv_heads=2, head_dim=8, ffn=76, norm_eps=1e-6, max_context=64,
        tied=False, bos=3, eos_ids=(5, 7), rope_theta=500000.0,
        rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 32))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_end_that_is_named_again_counts_once(folder):
    edit(folder, eos_token_id=[*range(8), *[7] * 9])
    assert set(load(folder, weights=False).config.eos_ids) == {*range(8)}


def test_older_rope_fields_mean_the_same(folder):
    edit(folder, rope_parameters=LLAMA3)
    newer = load(folder, weights=False).config
    scaling = {key: value for key, value in LLAMA3.items() if key not in ("rope_theta", "rope_type")}
    edit(folder, rope_parameters=None, rope_theta=500000.0, rope_scaling=scaling | {"type": "llama3"})
    assert load(folder, weights=False).config == newer


def test_config_alone_is_enough_without_weights(folder):
    (folder / "model.safetensors").unlink()
    for path in (folder, folder / "config.json"):
        model = load(path, weights=False)
        assert model.config.hidden == 48 and not model.tensors and model.tokenizer is None
    assert "must hold model.safetensors" in refused(folder)


def test_missing_path(tmp_path):
    assert "must be a Hugging Face folder, a GGUF file or" in refused(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("hello")
    assert "must be a Hugging Face folder, a GGUF file or" in refused(tmp_path / "notes.txt")
    assert "must hold a config.json" in refused(tmp_path)


def test_config_that_is_no_config(folder):
    (folder / "config.json").write_text('{"model_type": "lla')
    assert "config.json" in refused(folder) and "must be JSON" in refused(folder)
    (folder / "config.json").write_text("[]")
    assert "must be a JSON object, not []" in refused(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    assert "must be JSON" in refused(folder)


def test_lacking_fields_are_all_named(folder):
    edit(folder, hidden_size=None, vocab_size=None)
    assert "config.json lacks hidden_size, vocab_size" in refused(folder)


@pytest.mark.parametrize("values,message", [
    ({"model_type": "gemma2"}, "model_type must be llama, mistral, qwen2, idefics3, smolvlm, not 'gemma2'"),
    ({"model_type": ["llama"]}, "model_type must be llama"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "architectures must be ['LlamaForCausalLM']"),
    ({"hidden_act": "gelu"}, "hidden_act must be 'silu', not 'gelu'"),
    ({"quantization_config": {"bits": 4}}, "quantization_config must be absent"),
    ({"num_local_experts": 8}, "num_local_experts must be absent"),
    ({"rope_parameters": {"rope_type": "mrope", "factor": 2.0}}, "rope_type must be 'default', 'linear', 'dynamic', "),
    ({"rope_parameters": {"rope_type": "llama3"}}, "must hold the numbers factor, low_freq_factor"),
    ({"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor < high_freq_factor"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor must be 1, not 0.5"),
    ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types must all be 'full_attention'"),
    ({"head_dim": 7}, "head_dim must be even, not 7"),
    ({"num_key_value_heads": 4}, "num_attention_heads must be a multiple of num_key_value_heads (4), not 6"),
    ({"head_dim": None, "num_attention_heads": 5}, "head_dim must be given"),
    ({"intermediate_size": 0}, "intermediate_size must be 1 to 1048576, not 0"),
    ({"hidden_size": 10**30}, "hidden_size must be 1 to 1048576, not 1000000000"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers must be 1 to 4096, not 1000000000"),
    ({"bos_token_id": 67}, "bos_token_id must be 0 to 66, not 67"),
    ({"eos_token_id": [5, -1]}, "eos_token_id must be 0 to 66, not -1"),
    ({"eos_token_id": [*range(9)]}, "eos_token_id must be at most 8 ids, not 9"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "must be equal where both are given"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "must be one object for all layers"),
    ({"hidden_size": "48"}, "hidden_size must be a whole number, not '48'"),
    ({"attention_bias": "no"}, "attention_bias must be true or false, not 'no'"),
    ({"rms_norm_eps": -1.0}, "rms_norm_eps must be 0 to 15 / 48, not -1.0"),
    ({"rms_norm_eps": 1e308}, "rms_norm_eps must be 0 to 15 / 48, not 1e+308"),
    ({"hidden_size": -1}, "hidden_size must be 1 to 1048576, not -1"),
    ({"vocab_size": 0}, "vocab_size must be 1 to 16777216, not 0"),
    ({"num_attention_heads": 10**400}, "num_attention_heads must be 1 to 4096, not 1000"),
    ({"rms_norm_eps": HUGE}, "rms_norm_eps must be a finite number, not 1000"),
    ({"rms_norm_eps": math.nan}, "rms_norm_eps must be a finite number, not nan"),
    ({"rope_parameters": None, "rope_theta": HUGE}, "rope_theta must be a finite number, not 1000"),
    ({"rope_parameters": {"rope_theta": math.inf}}, "rope_theta must be a finite number, not inf"),
    ({"eos_token_id": ["a"]}, "eos_token_id must be a whole number or a list of them"),
])
def test_unsupported(folder, values, message):
    edit(folder, **values)
    assert message in refused(folder, weights=False)


@pytest.mark.parametrize("name", [name for name in LLAMA3 if name != "rope_type"])
@pytest.mark.parametrize("value", [HUGE, math.inf, -math.inf, math.nan, "1"], ids=lambda value: str(value)[:4])
def test_rope_scaling_that_is_no_number(folder, name, value):
    edit(folder, rope_parameters=LLAMA3 | {name: value})
    sentence = f"{name} must be a finite number, not "
    for read in (load, read_workload):
        with pytest.raises(HwgenError, match=sentence) as error:
            read(folder)
        assert len(str(error.value)) < 200 + len(str(folder))


@pytest.mark.parametrize("value", [0, 10**300])
def test_a_rope_scaling_from_no_context(folder, value):
    edit(folder, rope_parameters=LLAMA3 | {"original_max_position_embeddings": value})
    assert "original_max_position_embeddings must be 1 to 1073741824, not " in refused(folder)


def test_every_reason_in_one_error(folder):
    edit(folder, model_type="opt", hidden_act="relu", head_dim=5, quantization_config={}, vocab_size=None)
    message = refused(folder)
    for part in ("model_type", "hidden_act", "quantization_config", "lacks vocab_size"):
        assert part in message


def test_missing_and_unknown_tensors(folder):
    def change(tensors):
        del tensors["model.layers.1.self_attn.k_proj.weight"], tensors["lm_head.weight"]
        tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(8, np.float32)

    edit_tensors(folder, change)
    message = refused(folder)
    assert "tensors model.layers.1.self_attn.k_proj.weight, lm_head.weight must be present" in message
    assert "tensor model.layers.0.self_attn.q_norm.weight must be absent in a Llama model" in message


def test_wrong_shape_and_type(folder):
    def change(tensors):
        tensors["model.norm.weight"] = np.ones(47, np.float32)
        tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((76, 48), np.int8)

    edit_tensors(folder, change)
    message = refused(folder)
    assert "tensor model.norm.weight must have shape [48], not [47]" in message
    assert "tensor model.layers.0.mlp.up_proj.weight must be F32, F16, BF16, not I8" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(folder, value):
    edit_tensors(folder, lambda tensors: tensors["model.layers.1.mlp.gate_proj.weight"].__setitem__((3, 4), value))
    model = load(folder)
    model.tensors["0.gate"]
    with pytest.raises(HwgenError, match="Tensor 1.gate of .* must be finite, not NaN or infinite in 1 of 3648"):
        model.tensors["1.gate"]


def test_truncated_file(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 5, 300, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert "is truncated" in refused(folder), size


def test_damaged_header_is_always_one_error(folder):
    """Random bytes in the header either leave a readable model or give the one error class."""
    file, random = folder / "model.safetensors", np.random.default_rng(2)
    whole = bytearray(file.read_bytes())
    seen = 0
    for _ in range(300):
        damaged = whole.copy()
        for place in random.integers(0, 1500, size=3):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            load(folder)
        except HwgenError:
            seen += 1
    assert seen > 200


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "", 3])
def test_shards_lie_in_the_folder(folder, shard):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    assert "must have a weight_map of names to files of the folder" in refused(folder)


def test_damaged_index_and_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "Tokenizer must be a tokenizer.json" in load(folder).tokenizer.problem
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert "must have a weight_map" in refused(folder)


def test_what_the_system_refuses(tmp_path):
    assert "cannot be read: File name too long" in refused(tmp_path / ("x" * 300))


# which file holds the weights

def stale(folder, *, shards: bool = True):
    """An index of an earlier, sharded save beside model.safetensors, with its shards or without."""
    old = tiny(rms_norm_eps=1e-3)
    with torch.no_grad():
        for weight in old.parameters():
            weight.mul_(1.5)
    old.save_pretrained(folder / "old", max_shard_size="20KB")
    for file in (folder / "old").glob("model*" if shards else "*.index.json"):
        file.rename(folder / file.name)


@pytest.mark.parametrize("shards", [True, False])
def test_the_one_file_counts_before_an_index(folder, shards):
    stale(folder, shards=shards)
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_agrees(theirs, folder)
    assert load(folder).notes == (
        "left out, as in transformers: model.safetensors.index.json, as there is a model.safetensors",)


def test_the_file_that_config_json_names_counts_first(folder):
    stale(folder)
    edit(folder, transformers_weights="model.safetensors.index.json")
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_agrees(theirs, folder)
    left = load_file(folder / "model.safetensors")["model.norm.weight"]
    assert not np.array_equal(load(folder).tensors["norm"], left) and not load(folder).notes
    for wrong in ("../model.safetensors", "pytorch_model.bin", 3):
        edit(folder, transformers_weights=wrong)
        assert "transformers_weights in config.json of" in refused(folder)


def test_of_a_tensor_in_two_shards_the_later_counts(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    second = {"model.norm.weight": tensors["model.norm.weight"] * 2}
    save_file(tensors, folder / "a.safetensors")
    save_file(second, folder / "b.safetensors")
    files = dict.fromkeys(tensors, "a.safetensors") | {"lm_head.weight": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert_agrees(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), folder)


@pytest.mark.parametrize(("files", "sentence"), [
    (["pytorch_model.bin"], "not only pytorch_model.bin: convert it with AutoModelForCausalLM.from_pretrained('"),
    ([f"pytorch_model-0000{i}-of-00005.bin" for i in range(5)],
     "pytorch_model-00002-of-00005.bin and 2 more: convert it with"),
    (["model.fp16.safetensors"], "not only model.fp16.safetensors"),
    (["consolidated.00.pth", "training_args.bin"], "not only consolidated.00.pth: convert it to the layout of tr"),
    (["tiny.gguf"], "not only tiny.gguf: give that file as the model"),
    (["optimizer.bin"], "must hold model.safetensors"),
])
def test_other_files_of_weights(folder, files, sentence):
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).touch()
    message = refused(folder)
    assert "must hold model.safetensors" in message and sentence in message
    assert load(folder, weights=False).config.hidden == 48


# an adapter beside the model

@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", None])
def test_an_adapter_must_be_merged(folder, weights):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base", "peft_type": "LORA"}')
    if weights:
        (folder / weights).touch()
    message = refused(folder)
    assert "must hold no adapter (adapter_config.json) beside the model: merge it with PeftModel" in message
    assert "merge_and_unload() of the package peft" in message and "move adapter_config.json away" in message
    assert load(folder, weights=False).config.hidden == 48
    (folder / "model.safetensors").unlink()
    assert "must hold a model, not only an adapter of 'someone/base': merge it" in refused(folder)
    (folder / "config.json").unlink()
    for options in ({}, {"weights": False}):
        assert "must hold a model, not only an adapter of 'someone/base': merge it" in refused(folder, **options)


def test_weights_of_an_adapter_without_its_configuration_change_nothing(folder):
    (folder / "adapter_model.safetensors").touch()
    assert load(folder).notes == (
        "left out, as in transformers: adapter_model.safetensors (an adapter without an adapter_config.json)",)


# tied or not

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(("change", "tied"), [
    (lambda t: None, False),
    (lambda t: t.update({HEAD: t[EMBED]}), True),
    (lambda t: t.pop(HEAD), True),
    (lambda t: t.update({EMBED: t.pop(HEAD)}), True),
    (lambda t: t.update({HEAD: t.pop(EMBED)}), True),
    (lambda t: t.update({HEAD: np.where(np.arange(67)[:, None] == 66, -t[EMBED], t[EMBED])}), False),
], ids=["both", "equal", "no head", "head as embedding", "no embedding", "last row"])
def test_tied_or_not_is_what_the_weights_say(tmp_path, change, tied):
    """The head of a model whose config.json says tied, as transformers takes it."""
    tiny().save_pretrained(tmp_path)
    edit_tensors(tmp_path, change)
    edit(tmp_path, tie_word_embeddings=True)
    theirs, loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32), load(tmp_path)
    assert_agrees(theirs, tmp_path)
    assert loaded.config.tied == tied and ("head" in loaded.tensors) == (not tied)
    assert [n.split(":")[0] for n in loaded.notes] == ([] if tied else [
        "tie_word_embeddings is true, but the stored head differs from the embedding"])
    assert load(tmp_path, weights=False).config.tied


def test_equal_numbers_of_two_types_are_tied(folder):
    def change(tensors):
        tensors[EMBED] = tensors[EMBED].astype(np.float16)
        tensors[HEAD] = tensors[EMBED].astype(np.float32)

    edit_tensors(folder, change)
    edit(folder, tie_word_embeddings=True)
    assert load(folder).config.tied


def test_heads_are_compared_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(hwgen.safetensors_file, "PIECE", 1000)
    for place, tied in ((None, True), (0, False), (67 * 48 - 1, False)):
        def change(tensors, place=place):
            tensors[HEAD] = tensors[EMBED].copy()
            if place is not None:
                tensors[HEAD].flat[place] += 1

        edit_tensors(folder, change)
        edit(folder, tie_word_embeddings=True)
        assert load(folder).config.tied == tied


def test_a_stored_head_of_another_shape_is_refused(folder):
    edit_tensors(folder, lambda tensors: tensors.update({HEAD: np.ones((60, 48), np.float32)}))
    edit(folder, tie_word_embeddings=True)
    assert "tensor lm_head.weight must have shape [67, 48], not [60, 48]" in refused(folder)
    edit_tensors(folder, lambda tensors: [tensors.pop(name) for name in (HEAD, EMBED)])
    assert "tensor model.embed_tokens.weight must be present" in refused(folder)


# how answers end

def ends(folder, **generation):
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return load(folder, weights=False)


@pytest.mark.parametrize("ids", [5, [5], [7, 5, 66], [7, 7, 5]])
def test_generation_config_says_how_answers_end(folder, ids):
    edit(folder, eos_token_id=2)
    loaded = ends(folder, eos_token_id=ids)
    theirs = LlamaForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert loaded.config.eos_ids == tuple(dict.fromkeys(theirs if isinstance(theirs, list) else [theirs]))
    assert not loaded.notes


def test_without_a_generation_config_config_json_says_it(folder):
    edit(folder, eos_token_id=[9, 3, 9])
    config = load(folder, weights=False).config
    assert config.eos_ids == (9, 3)


def test_a_generation_config_that_names_no_end(folder):
    loaded = ends(folder, do_sample=False)
    assert LlamaForCausalLM.from_pretrained(folder).generation_config.eos_token_id is None
    assert loaded.config.eos_ids == ()
    assert loaded.notes == (
        "no token ends a text: generation_config.json, which counts before config.json, names none",)


def test_ends_that_are_no_tokens(folder):
    loaded = ends(folder, eos_token_id=[100, 5, 67])
    assert loaded.config.eos_ids == (5,)
    assert loaded.notes == ("left out of generation_config.json: ends of text that are no tokens of the model, 100, "
                            "67",)


@pytest.mark.parametrize("text", ["[]", "{", '{"eos_token_id": "x"}', '{"eos_token_id": [1, 2.5]}',
                                  '{"eos_token_id": [-1]}', '{"eos_token_id": [0, 1, 2, 3, 4, 5, 6, 7, 8]}',
                                  '{"eos_token_id": true}', '{"eos_token_id": [[1]]}'])
def test_damaged_generation_config(folder, text):
    (folder / "generation_config.json").write_text(text)
    message = refused(folder, weights=False)
    assert "generation_config.json" in message and " must be " in message


def test_options_that_change_the_likeliest_token_are_named(folder):
    loaded = ends(folder, eos_token_id=2, repetition_penalty=1.1, do_sample=True, temperature=0.6, num_beams=1,
                  suppress_tokens=[3], min_length=0)
    assert loaded.notes == ("left out of generation_config.json: repetition_penalty, suppress_tokens (the likeliest "
                            "token is taken as it is)",)


def test_a_tokenizer_that_must_be_converted(folder):
    (folder / "tokenizer.model").touch()
    loaded = load(folder)
    assert "must be a tokenizer.json, not only tokenizer.model: make it with AutoTokenizer." in loaded.tokenizer.problem
    with pytest.raises(HwgenError, match="must be a tokenizer.json, not only tokenizer.model"):
        loaded.tokenizer.encode("Once")
    assert not loaded.notes and readable(loaded.tokenizer) is None


# sliding windows

SLIDING = ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(("kind", "options", "longest"), [
    ("mistral", {"sliding_window": 20}, 20),
    ("mistral", {"sliding_window": 20, "layer_types": SLIDING}, 20),
    ("mistral", {"sliding_window": 20, "layer_types": ["full_attention"] * 2}, 64),
    ("mistral", {"sliding_window": 64}, 64),
    ("mistral", {"sliding_window": None}, 64),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 1}, 20),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 2}, 64),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True}, 64),
    ("qwen2", {"sliding_window": 20, "max_window_layers": 0}, 64),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "layer_types": SLIDING}, 20),
    ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 0,
               "layer_types": ["full_attention"] * 2}, 64),
])
def test_a_window_limits_the_context_and_nothing_else(tmp_path, kind, options, longest):
    """Up to the longest context the logits are those of transformers, and beyond they would not be."""
    tiny(kind, head_dim=8).save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(raw | options))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    loaded, tokens = load(tmp_path), some_tokens(theirs, 1, 64)
    wanted, ours = torch_logits(theirs, tokens), logits(loaded, tokens)
    np.testing.assert_allclose(ours[:, :longest], wanted[:, :longest], atol=1e-4, rtol=0)
    assert check_context(loaded.config, None) == check_context(loaded.config, longest) == longest
    assert read_workload(tmp_path).max_context == longest
    if longest < 64:
        assert np.abs(ours[:, longest:] - wanted[:, longest:]).max() > 0.01
        with pytest.raises(HwgenError, match=r"Context must be 1 to 20 \(the model's sliding window\), not 21"):
            check_context(loaded.config, 21)


@pytest.mark.parametrize(("values", "window"), [
    ({"model_type": "mistral"}, 4096), ({"model_type": "qwen2"}, None),
    ({"model_type": "qwen2", "use_sliding_window": True, "num_hidden_layers": 28}, None),
    ({"model_type": "qwen2", "use_sliding_window": True, "num_hidden_layers": 29}, 4096), ({}, None),
    ({"sliding_window": 4}, None), ({"sliding_window": 40, "layer_types": SLIDING}, 40),
    ({"model_type": "mistral", "sliding_window": 8192}, None)])
def test_windows_of_a_config_that_says_nothing(folder, values, window):
    edit(folder, architectures=None, max_position_embeddings=8192, **values)
    assert load(folder, weights=False).config.window == window


@pytest.mark.parametrize(("values", "message"), [
    ({"sliding_window": 0}, "sliding_window must be null or a whole number from 1, not 0"),
    ({"sliding_window": "all"}, "sliding_window must be null or a whole number from 1, not 'all'"),
    ({"layer_types": "full_attention"}, "layer_types must be a list of 'full_attention' and 'sliding_attention', not"),
    ({"layer_types": ["chunked_attention"] * 2}, "layer_types must be a list of .*, not 'chunked_attention'"),
    ({"layer_types": SLIDING * 500}, "layer_types must be a list of num_hidden_layers 2, not 1000"),
    ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": "2"}, "max_window_layers must be a"),
    ({"model_type": "qwen2", "layer_types": SLIDING, "sliding_window": 20},
     "layer_types must all be 'full_attention' without a sliding window, not "),
])
def test_windows_that_are_none(folder, values, message):
    edit(folder, **{"model_type": "mistral", "architectures": None} | values)
    with pytest.raises(HwgenError, match=message) as error:
        load(folder, weights=False)
    assert len(str(error.value)) < 200 + len(str(folder))


def test_a_window_of_a_language_part_may_be_null():
    text = SIZES | {"model_type": "mistral", "sliding_window": None}
    assert parse_config({"model_type": "idefics3", "text_config": text}, "tiny").window is None


# sentences stay short

def test_many_tensors_make_one_sentence_of_a_kind(tmp_path):
    tiny(num_hidden_layers=12).save_pretrained(tmp_path)
    for change, kinds in (
            (lambda name, array: array.astype(np.int8), ["be F32, F16, BF16, not I8"]),
            (lambda name, array: array[..., :-1],
             ["have shape [67, 48], [48], [48, 48], not [67, 47], [47], [48, 47]"]),
            (lambda name, array: array[:-1].astype(np.int64 if "mlp" in name else np.float64),
             ["have shape ", "be F32, F16, BF16, not F64, I64"])):
        tensors = load_file(tmp_path / "model.safetensors")
        save_file({name: np.ascontiguousarray(change(name, a)) for name, a in tensors.items()},
                  tmp_path / "model.safetensors")
        message = refused(tmp_path)
        assert message.count(" and 108 more must ") == len(kinds) and all(f"must {kind}" in message for kind in kinds)
        assert len(message) < 700 + len(str(tmp_path))
        save_file(tensors, tmp_path / "model.safetensors")


@pytest.mark.parametrize("values", [
    {"model_type": "x" * 9999}, {"architectures": ["LlamaForCausalLM"] * 999}, {"hidden_act": list(range(999))},
    {"num_experts": [[1] * 999] * 999}, {"eos_token_id": [1.5] * 999}, {"eos_token_id": list(range(-999, 0))},
    {"layer_types": ["x" * 9999] * 2}, {"partial_rotary_factor": "1" * 9999},
    {"hidden_size": {"a" * 99: ["b" * 99] * 99}}, {"model_type": "idefics3", "text_config": "x" * 9999},
    {"transformers_weights": "x" * 9999},
], ids=lambda values: next(iter(values)))
def test_long_values_are_cut(folder, values):
    edit(folder, **values)
    assert len(refused(folder)) < 400 + len(str(folder))
