import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from tiny_llama import CASES, LLAMA3, some_tokens, tiny, torch_logits, weights, write_gguf

from hwgen.errors import HwgenError
from hwgen.float_model import logits
from hwgen.load import load
from hwgen.rope import inverse_frequencies

# Sizes that blocks of 32 fit into.
BLOCKS = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32,
          "intermediate_size": 160}
# Block bytes, and where in a block its half-precision scales lie.
K_QUANTS = {Type.Q2_K: (84, (80, 82)), Type.Q3_K: (110, (108,)), Type.Q4_K: (144, (0, 2)),
            Type.Q5_K: (176, (0, 2)), Type.Q6_K: (210, (208,))}


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


@pytest.mark.parametrize("metadata,message", [
    (("add_expert_count", 8), "llama.expert_count must be 0 or absent, not 8"),
    (("add_sliding_window", 16), "llama.attention.sliding_window must be absent or at least 64, not 16"),
    (("add_rope_scaling_type", gguf.RopeScalingType.YARN), "llama.rope.scaling.type must be 'none' or absent"),
    (("add_rope_dimension_count", 4), "llama.rope.dimension_count must equal the head size 8, not 4"),
    (("add_causal_attention", False), "llama.attention.causal must be True or absent, not False"),
    (("add_rope_scaling_factor", 4.0),
     "llama.rope.scaling.factor must be 1 or absent without a llama.rope.scaling.type, not 4.0"),
    (("add_eos_token_id", 67), "tokenizer.ggml.eos_token_id (or eot, eom) must be 0 to 66, not 67"),
    (("add_logit_scale", 2.0), "llama.logit_scale must be 1.0 or absent, not 2.0"),
    (("add_feed_forward_length", [76, 76]), "llama.feed_forward_length must be one whole number, not [76, 76]"),
    (("add_head_count_kv", 4), "llama.attention.head_count must be a multiple of llama.attention.head_count_kv (4)"),
])
def test_unsupported(file, metadata, message):
    write_gguf(tiny(), file, metadata=[metadata])
    assert message in refused(file)


def test_other_architecture(file):
    writer = gguf.GGUFWriter(file, "gemma")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "general.architecture must be 'llama', not 'gemma'" in refused(file)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = refused(file)
    assert "it lacks llama.embedding_length, llama.feed_forward_length" in message
    assert "tensor token_embd.weight" in message


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
