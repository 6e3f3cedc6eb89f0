"""Small random models for tests, built and run by transformers, written as folders and as GGUF files."""

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config

SIZES = {"vocab_size": 67, "hidden_size": 48, "intermediate_size": 76, "num_hidden_layers": 2,
         "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
KINDS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
CASES = {
    "gqa 3:1": {},
    "head_dim 24": {"head_dim": 24, "num_attention_heads": 4, "num_key_value_heads": 4},
    "odd sizes, one kv head": {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 1,
                               "intermediate_size": 37, "vocab_size": 101},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "llama3 scaling": {"rope_parameters": LLAMA3, "head_dim": 16},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}, "rms_norm_eps": 1e-3},
}


def tiny(kind: str = "llama", **options):
    """A model with random weights, gains and biases, large enough that every part shows in the logits."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config: PreTrainedConfig = KINDS[kind](**(SIZES | options))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 1.0 if name.endswith("embed_tokens.weight") else 0.3 if weight.dim() == 1 else 0.2
            weight.normal_(1.0 if "norm" in name else 0.0, scale)
    return model


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


def some_tokens(model, batch: int = 3, length: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(model.config.vocab_size, size=(batch, length))


def weights(model) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


# GGUF, written the way the converters do

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name: str) -> str:
    name = name.replace("model.embed_tokens", "token_embd").replace("lm_head", "output")
    name = name.replace("model.norm", "output_norm").replace("model.layers", "blk")
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows j and j + d/2 of each head of size d become neighbours."""
    per_head = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return per_head.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(model, path, *, encode=None, metadata=(), extra=None, drop=(), **options):
    """Writes `model`; `encode(name, array)` gives (array as stored, quantisation type) for a tensor.

    `metadata` is a list of writer calls (method name, value, ...); `extra` tensors are added, those in `drop` left out.
    `options` are the writer's. Rows of q and k are permuted except in qwen2.
    """
    config = model.config
    architecture = "qwen2" if config.model_type == "qwen2" else "llama"
    writer = gguf.GGUFWriter(path, architecture, **options)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for method, *values in metadata:
        getattr(writer, method)(*values)
    for name, array in (weights(model) | (extra or {})).items():
        if name in drop or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        stored, kind = encode(name, array) if encode else (array, Type.F32)
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            stored = permuted(stored, config.num_attention_heads if ".q_" in name else config.num_key_value_heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(stored), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
