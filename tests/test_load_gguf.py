from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from tiny_llama import CASES, LLAMA3, some_tokens, tiny, torch_logits, weights, write_gguf

import hwgen.load_gguf
from hwgen.commands import app
from hwgen.commands.terminal import ids_of, read_model
from hwgen.errors import HwgenError
from hwgen.float_model import logits
from hwgen.load import load
from hwgen.load_gguf import TYPES
from hwgen.quantize import check_context
from hwgen.quantize import quantize as quantize_model
from hwgen.rope import inverse_frequencies

# Sizes that blocks of 32 fit into.
BLOCKS = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32,
          "intermediate_size": 160}
# Block bytes, and where in a block its half-precision scales lie.
K_QUANTS = {Type.Q2_K: (84, (80, 82)), Type.Q3_K: (110, (108,)), Type.Q4_K: (144, (0, 2)),
            Type.Q5_K: (176, (0, 2)), Type.Q6_K: (210, (208,))}
# All others that the library makes numbers of, and what it calls them.
OTHERS = [Type.IQ1_S, Type.IQ1_M, Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S, Type.IQ4_NL,
          Type.IQ4_XS, Type.TQ1_0, Type.TQ2_0, Type.MXFP4, Type.NVFP4]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.gguf"


def refused(path) -> str:
    with pytest.raises(HwgenError) as error:
        load(path)
    return str(error.value)


def assert_agrees(model, file):
    tokens = some_tokens(model)
    np.testing.assert_allclose(logits(load(file), tokens), torch_logits(model, tokens), atol=1e-4, rtol=0)


def replaced(model, arrays):
    """`model` with the weights `arrays` by name."""
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model


@pytest.mark.parametrize("options", [case for name, case in CASES.items() if name != "llama3 scaling"],
                         ids=[name for name in CASES if name != "llama3 scaling"])
def test_agrees_with_transformers(file, options):
    model = tiny(**options)
    write_gguf(model, file)
    assert_agrees(model, file)
    assert load(file).config.parameters() == sum(p.numel() for p in model.parameters())


def test_rotation_order_is_undone(file):
    model = tiny(attention_bias=True)
    write_gguf(model, file)
    loaded, stored = load(file), weights(model)
    for name in ("q", "k", "v"):
        prefix = f"model.layers.1.self_attn.{name}_proj."
        np.testing.assert_array_equal(loaded.tensors[f"1.{name}"], stored[prefix + "weight"])
        np.testing.assert_array_equal(loaded.tensors[f"1.{name}_bias"], stored[prefix + "bias"])


def test_llama3_scaling_as_rope_factors(file):
    """Converters store llama3 scaling as one divisor per frequency, computed here from transformers' frequencies."""
    model = tiny(rope_parameters=LLAMA3, head_dim=16)
    plain = 500000.0 ** (-torch.arange(0, 16, 2) / 16)
    factors = (plain / model.model.rotary_emb.inv_freq).float().numpy()
    assert factors.max() > 7.9 and factors.min() < 1.1
    write_gguf(model, file, extra={"rope_freqs.weight": factors})
    assert_agrees(model, file)
    np.testing.assert_allclose(inverse_frequencies(load(file).config), model.model.rotary_emb.inv_freq, rtol=1e-5)
    write_gguf(model, file, extra={"rope_freqs.weight": factors[:-1]})
    assert "rope factors must be 8 positive numbers, not 7 numbers" in refused(file)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1],
                         ids=lambda kind: kind.name)
def test_quantised_types(file, kind):
    model = tiny(**BLOCKS)

    def encode(name, array):
        return (quantize(array, kind), kind) if array.ndim == 2 else (array, Type.F32)

    write_gguf(model, file, encode=encode)
    values = {name: dequantize(*encode(name, array)).astype(np.float32) for name, array in weights(model).items()}
    assert not np.array_equal(values["lm_head.weight"], weights(model)["lm_head.weight"])
    assert_agrees(replaced(model, values), file)


def random_blocks(random, count: int, kind: Type) -> np.ndarray:
    """Blocks of random bits, scaled so that their values spread as the other weights do."""
    size, places = K_QUANTS[kind]
    blocks, scale = random.integers(256, size=(count, size), dtype=np.uint8), 1e-3
    for _ in range(2):
        for place in places:
            blocks[:, place : place + 2] = np.array([scale], np.float16).view(np.uint8)
        scale *= 0.1 / dequantize(blocks, kind).std()
    return blocks


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_k_quants(file, kind):
    """The library cannot write these, so random blocks stand for weights; Q, K and the FFN take them."""
    model = tiny(hidden_size=256, num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_hidden_layers=1)
    random = np.random.default_rng(3)
    stored = {name: random_blocks(random, array.shape[0], kind) for name, array in weights(model).items()
              if array.ndim == 2 and array.shape[1] == 256 and "layers" in name}

    def encode(name, array):
        return (stored[name], kind) if name in stored else (array, Type.F32)

    write_gguf(model, file, encode=encode)
    values = weights(model) | {name: dequantize(blocks, kind) for name, blocks in stored.items()}
    assert len(stored) == 5
    assert_agrees(replaced(model, values), file)


def test_types_that_are_read():
    wanted = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, *K_QUANTS, *OTHERS]
    assert sorted(TYPES) == sorted(kind.name for kind in wanted)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.name)
def test_other_types(file, kind):
    """Random bytes as rows of one matrix: what is read are the library's numbers, or NaN is refused."""
    model = tiny(hidden_size=256, num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_hidden_layers=1)
    name, (block, size) = "model.layers.0.mlp.up_proj.weight", gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(5).integers(128, size=(76, 256 // block * size), dtype=np.uint8)
    # small scales, wherever they lie: bytes below 64 are halves below 2
    blocks %= 64
    write_gguf(model, file, encode=lambda n, array: (blocks, kind) if n == name else (array, Type.F32))
    read = load(file).tensors["0.up"]
    assert read.dtype == np.float32 and read.std() > 0
    np.testing.assert_array_equal(read, dequantize(blocks, kind))


def test_types_that_are_not_read_are_named_once(file):
    model = tiny(hidden_size=256, num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_hidden_layers=9)
    blocks = np.zeros((76, gguf.GGML_QUANT_SIZES[Type.Q8_K][1]), np.uint8)
    up = [name for name in weights(model) if "up_proj" in name]
    write_gguf(model, file, encode=lambda n, array: (blocks, Type.Q8_K) if n in up else (array, Type.F32))
    message = refused(file)
    assert "blk.0.ffn_up.weight" in message and "not Q8_K" in message
    assert message.count("Q8_K") == 1 and "and 6 more must be" in message and len(message) < 600
    contents, name = bytearray(file.read_bytes()), b"blk.0.ffn_up.weight"
    # its type, after the number of dimensions and two of them
    contents[contents.index(name) + len(name) + 4 + 16] = 37
    file.write_bytes(contents)
    assert "must hold tensors of known types, not of number 37" in refused(file)


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 6}], ids=str)
def test_qwen2(file, tmp_path, options):
    """Its rows of q and k are not permuted; q, k and v have biases, the rest has none."""
    model = tiny("qwen2", **options)
    write_gguf(model, file)
    assert_agrees(model, file)
    loaded = load(file)
    assert loaded.config.attention_bias and not loaded.config.output_bias and not loaded.config.mlp_bias
    model.save_pretrained(tmp_path / "folder")
    folder = load(tmp_path / "folder")
    assert folder.tensors.keys() == loaded.tensors.keys()
    for name in folder.tensors:
        np.testing.assert_array_equal(loaded.tensors[name], folder.tensors[name])
    write_gguf(model, file, drop=["model.layers.1.self_attn.k_proj.bias"])
    assert "tensor blk.1.attn_k.bias must be present" in refused(file)


@pytest.mark.parametrize("absent", ["k", "qv", "o", "qkv", "qkvo", "gate", "down"])
def test_llama_with_some_biases(file, absent):
    """A bias that no layer has is zero; one that some layers lack is missing."""
    model = tiny(attention_bias=True, mlp_bias=True)
    names = [name for name in weights(model) if name.endswith(".bias") and any(
        f".{part}_proj." in name for part in ([absent] if len(absent) > 3 or absent == "down" else absent))]
    model = replaced(model, weights(model) | {name: np.zeros_like(weights(model)[name]) for name in names})
    write_gguf(model, file, drop=names)
    assert_agrees(model, file)
    if absent != "qkv":
        write_gguf(model, file, drop=["model.layers.0.mlp.up_proj.bias", *names])
        assert "tensor blk.0.ffn_up.bias must be present" in refused(file)


def swapped_file(model, file, **options):
    write_gguf(model, file, endianess=gguf.GGUFEndian.BIG, **options)
    return refused(file)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0], ids=lambda kind: kind.name)
def test_big_endian_files_are_refused_by_what_they_state(file, kind):
    def encode(name, array):
        return (quantize(array, kind), kind) if array.ndim == 2 else (array, Type.F32)

    message = swapped_file(tiny(**BLOCKS), file, encode=encode)
    assert "must be little-endian, not big-endian; `gguf-convert-endian FILE little`" in message


def test_versions(file):
    write_gguf(tiny(), file)
    whole = file.read_bytes()
    for version in (0, 1, 4, 0x01000000, 0x7FFF0000):
        file.write_bytes(whole[:4] + version.to_bytes(4, "little") + whole[8:])
        assert "must be 2 or 3, not" in refused(file) or "not big-endian" in refused(file)
    file.write_bytes(whole[:4] + (2).to_bytes(4, "little") + whole[8:])
    assert load(file, weights=False).config.hidden == 48
    file.write_bytes(b"")
    assert "truncated or damaged" in refused(file)


def shards(folder) -> list[Path]:
    return sorted(folder.glob("model-*.gguf"))


@pytest.fixture
def split(tmp_path):
    """A model in several files, as the library splits it."""
    model = tiny()
    write_gguf(model, tmp_path / "model.gguf", split_max_tensors=5)
    assert [path.name for path in shards(tmp_path)] == [f"model-{i:05}-of-00005.gguf" for i in range(1, 6)]
    return model


def test_split_files(split, tmp_path):
    for path in shards(tmp_path):
        assert_agrees(split, path)
        assert load(path, weights=False).config == load(shards(tmp_path)[0]).config


def test_split_files_of_which_the_first_holds_no_tensors(file, tmp_path):
    model = tiny()
    write_gguf(model, file, split_max_tensors=9, small_first_shard=True)
    assert len(gguf.GGUFReader(shards(tmp_path)[0]).tensors) == 0
    assert_agrees(model, shards(tmp_path)[0])


def test_split_files_that_are_not_whole(split, tmp_path):
    first, second, third, *rest = shards(tmp_path)
    contents = {path: path.read_bytes() for path in shards(tmp_path)}

    def restore():
        for path, text in contents.items():
            path.write_bytes(text)

    second.unlink()
    for given in (first, third):
        assert "must have model-00002-of-00005.gguf beside it" in refused(given)
    for path in (third, *rest):
        path.unlink()
    three = ", ".join(f"model-{i:05}-of-00005.gguf" for i in (2, 3, 4))
    assert f"must have {three} and 1 more beside it" in refused(first)
    restore()
    second.write_bytes(contents[third])
    assert f"{second.name}' must have split.no 1 and split.count 5, not 2 and 5" in refused(first)
    restore()
    second.write_bytes(contents[second][:-40])
    assert f"{second.name}' is truncated or damaged" in refused(first)
    restore()
    other = tmp_path / "other.gguf"
    other.write_bytes(contents[second])
    assert ("must be named NAME-00002-of-00005.gguf, as its split.no and split.count say, not 'other.gguf'"
            in refused(other))
    key = b"split.tensors.count" + gguf.GGUFValueType.INT32.to_bytes(4, "little")
    first.write_bytes(contents[first].replace(key + b"\x15", key + b"\x16"))
    rule = "tensors (split.tensors.count), each in one of its 5 files"
    assert f"must have 22 {rule}, not 21 of 21 names" in refused(first)
    restore()
    second.write_bytes(contents[second].replace(b"blk.0.attn_norm.weight", b"blk.1.attn_norm.weight"))
    assert f"must have 21 {rule}, not 21 of 20 names" in refused(first)


def test_a_split_that_says_nonsense(file):
    for metadata in ([("add_string", "split.count", "two")],
                     [("add_array", "split.no", [1, 2]), ("add_uint16", "split.count", 2)]):
        write_gguf(tiny(), file, metadata=metadata)
        message = refused(file)
        assert f"{metadata[0][1]} of GGUF file" in message and "must be one whole number" in message
    write_gguf(tiny(), file, metadata=[("add_uint16", "split.count", 1)])
    load(file)


def test_config_and_no_weights(file):
    model = tiny()
    write_gguf(model, file, metadata=[("add_bos_token_id", 4), ("add_eos_token_id", 9), ("add_eot_token_id", 8)])
    loaded = load(file, weights=False)
    assert not loaded.tensors and loaded.tokenizer is None
    config = loaded.config
    assert (config.vocab, config.hidden, config.layers, config.heads, config.kv_heads) == (67, 48, 2, 6, 2)
    assert (config.head_dim, config.ffn, config.max_context, config.tied) == (8, 76, 64, False)
    assert (config.bos, config.eos_ids) == (4, (9, 8))
    assert config.norm_eps == pytest.approx(1e-6) and config.rope_theta == 10000.0


TOKENS = ["<unk>", "<s>", "</s>", "a", "<|im_end|>", "b", "<|end|>", "<|endoftext|>", "<fim_pad>", "<|file_sep|>", "x"]


@pytest.mark.parametrize("metadata,bos,ends", [
    ([("add_bos_token_id", 3), ("add_eos_token_id", 5), ("add_eot_token_id", 10), ("add_eom_token_id", 3)], 3,
     (5, 10, 3, 4, 6, 7, 2, 8)),
    ([("add_eos_token_id", 7)], None, (7, 4, 6, 2, 8, 9)),
    ([("add_tokenizer_model", "llama")], 1, (2, 4, 6, 7, 8, 9)),
    ([("add_uint32", "tokenizer.ggml.fim_pad_token_id", 10)], None, (4, 6, 7, 2, 10, 9)),
])
def test_ends_are_those_of_llama_cpp(file, metadata, bos, ends):
    write_gguf(tiny(), file, metadata=[("add_token_list", TOKENS), *metadata])
    model = load(file, weights=False)
    assert (model.config.bos, model.config.eos_ids) == (bos, ends)
    left_out = ("more than 8 tokens end a text; a run does not end after [9]",)
    assert model.notes == (left_out if len(ends) == 8 else ())


@pytest.mark.parametrize("tokens,ends", [
    (["<|end|>", "<|return|>", "<|call|>"], {1, 2}), (["<|end|>", "<|flush|>", "<|calls|>"], {1, 2}),
    (["<|end|>", "<|return|>"], {0, 1}), (["</s>", "<|tool_response>"], {1}), (["a"] * 67 + ["<|im_end|>"], set()),
    (["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"], {0, 1, 2}),
])
def test_ends_by_name(file, tokens, ends):
    write_gguf(tiny(), file, metadata=[("add_token_list", tokens)])
    assert set(load(file, weights=False).config.eos_ids) == ends


def tokenizer_metadata(**changed):
    """Writer calls for a byte-level tokenizer without merges."""
    values = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "<|im_end|>"], "merges": []} | changed
    return [("add_string", f"tokenizer.ggml.{name}", value) if isinstance(value, str) else
            ("add_array", f"tokenizer.ggml.{name}", value) for name, value in values.items() if value]


@pytest.mark.parametrize("changed,reason", [
    ({"pre": "klingon"}, "tokenizer.ggml.pre must be a known way to cut text into words"),
    ({"model": "bert"}, "tokenizer.ggml.model must be 'llama' or 'gpt2', not 'bert'"),
    ({"model": "t5"}, "tokenizer.ggml.model must be 'llama' or 'gpt2', not 't5'"),
    ({"model": "llama"}, "must have tokenizer.ggml.tokens and scores"),
    ({"model": ["gpt2"]}, "tokenizer.ggml.model must be 'llama' or 'gpt2', not ['gpt2']"),
    ({"tokens": "ab", "merges": ["a b"]}, "must have tokenizer.ggml.tokens and merges"),
    ({"tokens": [1, 2], "merges": ["a b"]}, "must fit together"),
    ({"tokens": ["a", "a"], "merges": ["a a"]}, "must fit together"),
    ({"merges": ["x y"]}, "must fit together"),
    ({"pre": ["gpt-2"], "merges": ["a b"], "tokens": ["a", "b", "ab"]}, "tokenizer.ggml.pre must be"),
])
def test_a_tokenizer_that_cannot_be_used_matters_for_text_alone(file, changed, reason):
    merges = {"merges": ["a b"], "tokens": ["a", "b", "ab"]} if "merges" not in changed else {}
    write_gguf(tiny(), file, metadata=tokenizer_metadata(**(merges | changed)))
    model = load(file)
    assert logits(model, [[1, 2]]).shape == (1, 2, 67)
    with pytest.raises(HwgenError) as error:
        model.tokenizer.encode("ab")
    assert reason in str(error.value) and len(str(error.value)) < 250
    assert model.tokenizer.problem == str(error.value)


def test_an_unusable_tokenizer_in_the_commands(file, tmp_path, capfd):
    write_gguf(tiny(), file, metadata=tokenizer_metadata(pre="klingon", tokens=["a", "b", "ab"], merges=["a b"]))
    reason, output = "tokenizer.ggml.pre must be a known way to cut text into words", str(tmp_path / "model.q")
    model = read_model(file)
    assert f"note: text can be neither read nor written, only token ids: {reason}" in capfd.readouterr().err
    assert ids_of(None, "1,2")(model.tokenizer) == [1, 2]
    with pytest.raises(HwgenError, match=reason):
        app(["reference", str(file), "--prompt", "ab"], standalone_mode=False)
    assert capfd.readouterr().err == ""  # nothing was quantised before, nothing said twice
    quantize_model(model, calibration=[[1, 2, 3]], context=8).save(output)
    app(["reference", output, "--prompt-ids", "1,2", "--max-tokens", "3"], standalone_mode=False)
    assert capfd.readouterr().out.startswith("[")
    with pytest.raises(HwgenError, match="--prompt must come with a model that has a tokenizer; use --prompt-ids"):
        app(["reference", output, "--prompt", "ab"], standalone_mode=False)


@pytest.mark.parametrize("pre,found", [("default", "'default'"), ("", "absent")])
def test_the_default_way_to_cut_words_is_told(file, pre, found):
    write_gguf(tiny(), file, metadata=tokenizer_metadata(pre=pre, merges=["a b"], tokens=["a", "b", "ab"]))
    model = load(file)
    assert model.notes == (f"tokenizer.ggml.pre is {found}: text is cut into words as llama.cpp does by default, which "
                           "may not be how the model was trained",)
    assert model.tokenizer.encode("ab") == [2]


def test_tokens_that_are_no_text(file):
    write_gguf(tiny(), file, metadata=tokenizer_metadata(tokens=["a", "b", "ab", "c@"], merges=["a b"]))
    file.write_bytes(file.read_bytes().replace(b"c@", b"c\xff"))
    assert load(file).tokenizer.encode("ab") == [2]


@pytest.mark.parametrize("metadata,message", [
    (("add_expert_count", 8), "llama.expert_count must be 0 or absent, not 8"),
    (("add_int32", "llama.attention.sliding_window", -1), "llama.attention.sliding_window must be 0 (none), more or"),
    (("add_rope_scaling_type", gguf.RopeScalingType.LONGROPE), "tensors must be present for llama.rope.scaling.type "
     "'longrope': rope_factors_short.weight, rope_factors_long.weight"),
    (("add_string", "llama.rope.scaling.type", "su"), "llama.rope.scaling.type must be 'none', 'linear', 'yarn', "),
    (("add_rope_scaling_factor", -4.0), "llama.rope.scaling.factor must be 1e-09 to 1e+09 or absent, not -4.0"),
    (("add_rope_scaling_attn_factors", 2.5), "RoPE's attention factor must be above 0 and at most 1.9921 (cosines"),
    (("add_rope_scaling_orig_ctx_len", 0), "llama.rope.scaling.original_context_length must be 1 to 1073741824, "),
    (("add_string", "llama.rope.scaling.factor", "4"), "llama.rope.scaling.factor must be one number, not '4'"),
    (("add_rope_dimension_count", 4), "llama.rope.dimension_count must equal the head size 8, not 4"),
    (("add_causal_attention", False), "llama.attention.causal must be True or absent, not False"),
    (("add_eos_token_id", 67), "tokenizer.ggml.eos_token_id (or eot, eom) must be 0 to 66, not 67"),
    (("add_logit_scale", 2.0), "llama.logit_scale must be 1.0 or absent, not 2.0"),
    (("add_feed_forward_length", [76, 76]), "llama.feed_forward_length must be one whole number, not [76, 76]"),
    (("add_feed_forward_length", [76] * 1000), "llama.feed_forward_length must be one whole number, not [76, 76"),
    (("add_string", "llama.block_count", "two"), "llama.block_count must be one whole number, not 'two'"),
    (("add_array", "llama.rope.freq_base", [1.0, 2.0]), "llama.rope.freq_base must be one number, not [1.0, 2.0]"),
    (("add_string", "tokenizer.ggml.bos_token_id", "<s>"), "bos_token_id must be one whole number, not '<s>'"),
    (("add_type", "adapter"), "general.type must be 'model' or absent (merge the adapter into its base first), not"),
    (("add_array", "general.type", ["model"]), "general.type must be 'model' or absent, not ['model']"),
    (("add_head_count_kv", 4), "llama.attention.head_count must be a multiple of llama.attention.head_count_kv (4)"),
])
def test_unsupported(file, metadata, message):
    write_gguf(tiny(), file, metadata=[metadata])
    assert message in refused(file) and len(refused(file)) < 400


def test_a_head_size_that_is_none_of_a_stretched_model(file):
    size = ("add_int32", "llama.attention.key_length", -1)
    for kind in (LINEAR, YARN):
        write_gguf(tiny(), file, metadata=[("add_rope_scaling_type", kind), ("add_rope_scaling_factor", 4.0), size])
        assert "llama.attention.key_length must be 1 to 65536, not -1" in refused(file)


def test_other_architecture(file):
    writer = gguf.GGUFWriter(file, "gemma")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "general.architecture must be 'llama' or 'qwen2', not 'gemma'" in refused(file)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = refused(file)
    assert "it lacks llama.embedding_length, llama.feed_forward_length" in message
    assert "tensor token_embd.weight" in message


@pytest.mark.parametrize("window", [0, 16, 64, 4096])
def test_a_sliding_window_bites_beyond_it_alone(file, window):
    model = tiny()
    write_gguf(model, file, metadata=[("add_sliding_window", window)])
    config = load(file, weights=False).config
    longest = min(64, window or 64)
    assert check_context(config, None) == check_context(config, longest) == longest
    with pytest.raises(HwgenError, match=f"Context must be 1 to {longest}"):
        check_context(config, longest + 1)
    assert_agrees(model, file)


def test_every_reason_in_one_error(file):
    write_gguf(tiny(), file, metadata=[("add_expert_count", 8), ("add_value_length", 4)])
    message = refused(file)
    assert "llama.expert_count" in message and "llama.attention.value_length" in message


def test_missing_unknown_and_wrong_tensors(file):
    model = tiny()
    write_gguf(model, file, drop=["model.layers.1.mlp.up_proj.weight"],
               extra={"model.norm.weight": np.ones(40, np.float32), "blk.0.attn_q_norm.weight": np.ones(8, np.float32),
                      "model.layers.0.mlp.up_proj.weight": np.ones((76, 48), np.float64)},
               encode=lambda name, array: (array, Type.F64 if array.dtype == np.float64 else Type.F32))
    message = refused(file)
    assert "tensor blk.1.ffn_up.weight must be present" in message
    assert "tensor output_norm.weight must have shape [48], not [40]" in message
    assert "tensor blk.0.attn_q_norm.weight must be absent in a Llama model" in message
    assert "tensor blk.0.ffn_up.weight must be F32, F16" in message and "not F64" in message


def test_values_that_are_not_finite(file):
    bad = weights(tiny())["model.layers.0.self_attn.k_proj.weight"]
    bad[1, 2] = np.nan
    write_gguf(tiny(), file, extra={"model.layers.0.self_attn.k_proj.weight": bad})
    with pytest.raises(HwgenError, match="Tensor 0.k of .* must be finite, not NaN or infinite in 1 of"):
        load(file).tensors["0.k"]


def test_truncated_anywhere(file):
    write_gguf(tiny(), file)
    whole = file.read_bytes()
    for size in [3, 4, 20, *range(40, 3000, 97), len(whole) // 2, len(whole) - 100]:
        file.write_bytes(whole[:size])
        assert "truncated or damaged" in refused(file), size


def test_damage_is_always_one_error(file):
    write_gguf(tiny(), file, metadata=[("add_tokenizer_model", "none")])
    whole, random, seen = bytearray(file.read_bytes()), np.random.default_rng(4), 0
    for _ in range(150):
        damaged = whole.copy()
        for place in random.integers(0, 2500, size=4):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            load(file)
        except HwgenError:
            seen += 1
    assert seen > 50


# RoPE, windows and heads, as llama.cpp takes them

LINEAR, YARN, NONE, LONGROPE = (gguf.RopeScalingType[name] for name in ("LINEAR", "YARN", "NONE", "LONGROPE"))
SHORT, LONG = np.array([1.0, 1.1, 1.3, 2.0], np.float32), np.array([1.0, 2.0, 4.0, 9.0], np.float32)
LONG_CONFIG = {"rope_type": "longrope", "short_factor": SHORT.tolist(), "long_factor": LONG.tolist(),
               "original_max_position_embeddings": 32}
ROPES = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, [("add_rope_scaling_type", LINEAR)]),
    "a factor alone": ({"rope_type": "linear", "factor": 4.0}, []),
    "none": ({"rope_type": "default"}, [("add_rope_scaling_type", NONE)]),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
             [("add_rope_scaling_type", YARN), ("add_rope_scaling_orig_ctx_len", 32)]),
    "yarn, more": ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.75 * (1 + 0.1 * np.log(4.0))},
                   [("add_rope_scaling_type", YARN), ("add_rope_scaling_attn_factors", 0.75),
                    ("add_rope_scaling_yarn_beta_fast", 32.0), ("add_rope_scaling_yarn_attn_factor", 1.1386294)]),
}


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize(("rope", "metadata"), ROPES.values(), ids=ROPES)
def test_scaled_positions_agree_with_transformers(file, kind, rope, metadata):
    model = tiny(kind, rope_parameters={"rope_theta": 50.0} | rope)
    write_gguf(model, file, metadata=[("add_rope_scaling_factor", 4.0), *metadata])
    assert_agrees(model, file)


@pytest.mark.parametrize("factor", [None, 8.0])
def test_longrope_agrees_up_to_its_original_length(file, factor):
    model = tiny(rope_parameters={"rope_theta": 50.0} | LONG_CONFIG | ({"factor": factor} if factor else {}))
    write_gguf(model, file, extra={"rope_factors_short.weight": SHORT, "rope_factors_long.weight": LONG}, metadata=[
        ("add_rope_scaling_type", LONGROPE), ("add_rope_scaling_orig_ctx_len", 32),
        ("add_rope_scaling_attn_factors", model.model.rotary_emb.attention_scaling)])
    loaded, tokens = load(file), some_tokens(model, 2, 32)
    np.testing.assert_allclose(logits(loaded, tokens), torch_logits(model, tokens), atol=1e-4, rtol=0)
    assert check_context(loaded.config, None) == 32
    with pytest.raises(HwgenError, match=r"Context must be 1 to 32 \(beyond it the model turns by other RoPE factors"):
        check_context(loaded.config, 33)


def test_factors_of_frequencies_and_a_scale_of_positions_multiply(file):
    write_gguf(tiny(), file, extra={"rope_freqs.weight": LONG}, metadata=[("add_rope_scaling_factor", 4.0)])
    assert load(file).config.rope_factors == (4.0, 8.0, 16.0, 36.0)
    write_gguf(tiny(), file, extra={"rope_factors_short.weight": SHORT})
    assert "tensor rope_factors_short.weight must be absent in a Llama model" in refused(file)


@pytest.mark.parametrize(("metadata", "message"), [
    (("add_rope_scaling_yarn_beta_fast", 16.0), "llama.rope.scaling.yarn_beta_fast must be 32 or absent, not 16.0"),
    (("add_rope_scaling_yarn_beta_slow", 2.0), "llama.rope.scaling.yarn_beta_slow must be 1 or absent, not 2.0"),
    (("add_rope_scaling_yarn_ext_factor", 0.5), "llama.rope.scaling.yarn_ext_factor must be 1 or absent, not 0.5"),
    (("add_rope_scaling_yarn_attn_factor", 1.5), "llama.rope.scaling.yarn_attn_factor must be 1 or absent, not 1.5"),
    (("add_rope_scaling_yarn_log_mul", 0.1), "llama.rope.scaling.yarn_log_multiplier must be 0 or absent, not 0.1"),
])
def test_yarn_that_readers_disagree_about(file, metadata, message):
    write_gguf(tiny(), file, metadata=[("add_rope_scaling_type", YARN), ("add_rope_scaling_factor", 4.0), metadata])
    assert message in refused(file)
    write_gguf(tiny(), file, metadata=[("add_rope_scaling_type", LINEAR), metadata])
    assert load(file).config.rope_attention == 1


@pytest.mark.parametrize(("window", "longest"), [(16, 16), (64, 64), (0, 64)])
def test_a_window_limits_the_context(file, window, longest):
    write_gguf(tiny(), file, metadata=[("add_sliding_window", window)])
    assert check_context(load(file).config, None) == longest


@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0])
@pytest.mark.parametrize("place", [None, (0, 0), (66, 95)])
def test_a_head_that_is_the_embedding_is_tied(file, kind, place, monkeypatch):
    monkeypatch.setattr(hwgen.load_gguf, "PIECE", 2000)
    head = weights(tiny(**BLOCKS))["model.embed_tokens.weight"]
    if place:
        head[place] += 1
    write_gguf(tiny(**BLOCKS), file, extra={"lm_head.weight": head}, encode=lambda name, array: (
        (quantize(array, kind), kind) if array.ndim == 2 else (array, Type.F32)))
    loaded = load(file)
    assert loaded.config.tied == load(file, weights=False).config.tied == (place is None)
    assert ("head" in loaded.tensors) == (place is not None)
    if kind is Type.F32:
        model = replaced(tiny(**BLOCKS), weights(tiny(**BLOCKS)) | {"lm_head.weight": head})
        assert_agrees(model, file)
