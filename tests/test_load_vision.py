"""Checkpoints with a vision tower: the language part is read, quantised and built; the tower is left out, and named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_llama import SIZES, some_tokens, tiny, torch_logits
from transformers import (
    AutoModelForImageTextToText,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from explore.workload import read_workload
from hwgen.errors import HwgenError
from hwgen.float_model import logits
from hwgen.load import load
from hwgen.load_hf import VISION_NOTE
from hwgen.quantize import quantize

ROOT = Path(__file__).parent.parent
CLASSES = {"idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
           "smolvlm": (SmolVLMConfig, SmolVLMForConditionalGeneration)}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}
NOTE = f"note: {VISION_NOTE}"


def save_around(llama, folder, kind="idefics3"):
    """A checkpoint with a random tower whose language part has the weights of `llama`."""
    config, model = CLASSES[kind]
    tied = llama.config.tie_word_embeddings
    text = SIZES | {"model_type": "llama", "tie_word_embeddings": tied}
    whole = model(config(text_config=text, vision_config=VISION, image_token_id=66, scale_factor=2,
                         tie_word_embeddings=tied))
    own = {name.replace("model.", "model.text_model.", 1): value for name, value in llama.state_dict().items()}
    assert not whole.load_state_dict(own, strict=False).unexpected_keys
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same weights as a Llama checkpoint and as the language part of one with a tower."""
    folder, llama = tmp_path_factory.mktemp("models"), tiny()
    llama.save_pretrained(folder / "llama")
    return folder / "llama", save_around(llama, folder / "vision")


def edited(folder, target, change):
    """A copy of a checkpoint with another config.json."""
    target.mkdir()
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (target / "config.json").write_text(json.dumps(raw))
    return target


def hwgen(*arguments):
    return subprocess.run([sys.executable, "-m", "hwgen.cli", *map(str, arguments)], capture_output=True, text=True,
                          cwd=ROOT)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("tied", [False, True])
def test_agrees_with_transformers_on_text(tmp_path, kind, tied):
    save_around(tiny(tie_word_embeddings=tied), tmp_path, kind)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = some_tokens(model.model.text_model) % 66
    loaded = load(tmp_path)
    assert loaded.notes == (VISION_NOTE,) and loaded.config.tied == tied
    np.testing.assert_allclose(logits(loaded, tokens), torch_logits(model, tokens), atol=1e-4, rtol=0)


def test_its_integer_graph_is_that_of_the_llama_alone(folders, tmp_path):
    for name, folder in zip("ab", folders, strict=True):
        quantize(load(folder), context=16, allow_wrap=True).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_what_is_left_out(folders, tmp_path):
    llama, vision = folders
    done = hwgen("quantize", vision, "-o", tmp_path / "q", "--context", 16, "--tokens", 64, "--allow-wrap", "--json")
    assert done.returncode == 0 and NOTE in done.stderr.splitlines() and json.loads(done.stdout)["signature"]
    done = hwgen("generate", vision, "examples/designs/2x2.yaml", "-o", tmp_path / "chip", "--context", 16,
                 "--no-images")
    assert done.returncode == 0 and NOTE in done.stderr.splitlines()
    assert json.loads((tmp_path / "chip" / "manifest.json").read_text())["vocab"] == SIZES["vocab_size"]
    done = hwgen("quantize", llama, "--context", 16, "--tokens", 64, "--allow-wrap")
    assert done.returncode == 0 and "vision" not in done.stderr


@pytest.mark.parametrize("name", ["smolvlm-256m", "smolvlm-500m"])
def test_shipped_configurations(name, tmp_path):
    (tmp_path / "config.json").write_bytes((ROOT / "explore" / "workloads" / f"{name}.json").read_bytes())
    model = load(tmp_path, weights=False)
    assert model.notes == (VISION_NOTE,) and model.config == read_workload(name).config


def test_what_the_language_part_lacks_may_stand_beside_it(folders, tmp_path):
    def move(raw):
        for key in ("bos_token_id", "eos_token_id", "tie_word_embeddings"):
            raw["text_config"].pop(key, None)
        raw |= {"bos_token_id": 3, "eos_token_id": [5, 7], "tie_word_embeddings": True}

    config = load(edited(folders[1], tmp_path / "model", move), weights=False).config
    assert (config.bos, config.eos_ids, config.tied) == (3, (5, 7), True)


def test_of_ends_of_text_the_outer_count_first(folders, tmp_path):
    def change(raw):
        raw["text_config"]["eos_token_id"], raw["eos_token_id"] = 5, 7

    folder = edited(folders[1], tmp_path / "model", change)
    theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).generation_config.eos_token_id
    assert load(folder).config.eos_ids == (theirs,) == (7,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [9, 5]}')
    assert load(folder).config.eos_ids == (9, 5)


@pytest.mark.parametrize("stored", ["both", "equal", "head"])
def test_tied_or_not_is_what_the_weights_say(folders, tmp_path, stored):
    def tie(raw):
        raw["tie_word_embeddings"] = raw["text_config"]["tie_word_embeddings"] = True

    folder = edited(folders[1], tmp_path / "model", tie)
    tensors, embed = load_file(folder / "model.safetensors"), "model.text_model.embed_tokens.weight"
    if stored == "equal":
        tensors["lm_head.weight"] = tensors[embed].copy()
    if stored == "head":
        del tensors[embed]
    save_file(tensors, folder / "model.safetensors")
    theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    loaded, tokens = load(folder), some_tokens(theirs.model.text_model, 1, 8) % 66
    assert loaded.config.tied == (stored != "both") and len(loaded.notes) == (2 if stored == "both" else 1)
    np.testing.assert_allclose(logits(loaded, tokens), torch_logits(theirs, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("values", "message"), [
    ({"text_config": None}, "text_config must be an object, not None"),
    ({"architectures": ["LlavaForConditionalGeneration"]},
     "architectures must be ['Idefics3ForConditionalGeneration'], not ['LlavaForConditionalGeneration']"),
    ({"tie_word_embeddings": True},
     "tie_word_embeddings must be the same in text_config as beside it, True, not False"),
    ({"quantization_config": {"bits": 4}}, "quantization_config must be absent"),
    ({"text_config": {"model_type": "mamba"}}, "model_type must be llama, mistral, qwen2"),
])
def test_refused(folders, tmp_path, values, message):
    with pytest.raises(HwgenError) as error:
        load(edited(folders[1], tmp_path / "model", lambda raw: raw.update(values)))
    assert message in str(error.value)


def test_weights_of_neither_part_are_refused(folders, tmp_path):
    folder = edited(folders[1], tmp_path / "model", lambda raw: None)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.text_model.layers.0.self_attn.q_norm.weight"] = np.ones(8, np.float32)
    del tensors["model.text_model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(HwgenError, match="tensor model.text_model.norm.weight must be present; "
                                         "tensor model.text_model.layers.0.self_attn.q_norm.weight must be absent"):
        load(folder)
