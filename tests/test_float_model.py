import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_llama import LLAMA3, some_tokens, tiny, torch_logits

import hwgen.float_model
from hwgen.float_model import FloatDecoder, LazyTensors, logits, sample, silu
from hwgen.load import load
from hwgen.rope import inverse_frequencies, rotate, rotation

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


@pytest.fixture
def pair(tmp_path):
    """The same model as transformers and as hwgen have it."""
    model = tiny(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3)
    model.save_pretrained(tmp_path)
    return model, load(tmp_path)


@pytest.fixture
def stories():
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES.name} is not beside the checkout (../shared/models)")
    return load(STORIES)


def test_decoder_agrees_step_by_step(pair):
    theirs, ours = pair
    tokens = some_tokens(theirs)
    decoder = FloatDecoder(ours, *tokens.shape)
    for _ in range(2):
        steps = np.stack([decoder.step(column) for column in tokens.T], axis=1)
        np.testing.assert_allclose(steps, torch_logits(theirs, tokens), atol=1e-4, rtol=0)
        with pytest.raises(ValueError, match="Position must be below the context 40, not 40"):
            decoder.step(tokens[:, 0])
        decoder.reset()


def test_small_temporaries_change_nothing(pair, monkeypatch):
    """Batches and query rows in pieces, as a long text needs, give the whole's numbers."""
    theirs, ours = pair
    tokens = some_tokens(theirs, batch=5)
    whole, seen = logits(ours, tokens), []
    monkeypatch.setattr(hwgen.float_model, "CHUNK", 1000)
    pieces = logits(ours, tokens, lambda name, array: seen.append(name))
    np.testing.assert_allclose(pieces, whole, atol=1e-5, rtol=0)
    assert seen.count("0.q") == 5 and seen.count("final_in") == 1


def test_observed_arrays(pair):
    """Everything a calibration sees, recomputed from its neighbours."""
    _, model = pair
    seen, tokens = {}, some_tokens(pair[0], batch=2, length=7)
    out = logits(model, tokens, lambda name, array: seen.setdefault(name, array.copy()))
    parts = ["attn_in", "attn_normed", "q_raw", "k_raw", "q", "k", "v", "att", "o",
             "ffn_in", "ffn_normed", "gate", "up", "silu", "h", "down"]
    assert set(seen) == {f"{i}.{part}" for i in range(2) for part in parts} | {"final_in", "final_normed", "logits"}
    weights = model.layer(1)
    one = {part: seen[f"1.{part}"] for part in parts}
    assert one["q"].shape == (2, 7, 6, 8) and one["v"].shape == (2, 7, 2, 8) and one["att"].shape == (2, 7, 48)
    close = np.testing.assert_allclose
    close(seen["0.attn_in"], model.tensors["embed"][tokens])
    close(seen["0.ffn_in"], seen["0.attn_in"] + seen["0.o"], atol=1e-6)
    close(one["attn_in"], seen["0.ffn_in"] + seen["0.down"], atol=1e-6)
    close(np.mean(one["attn_normed"] ** 2, axis=-1), 1, atol=1e-3)
    close(one["q_raw"].reshape(2, 7, 48), one["attn_normed"] * weights["attn_norm"] @ weights["q"].T
          + weights["q_bias"], atol=1e-4)
    close(one["q"], rotate(one["q_raw"], *rotation(model.config, np.arange(7))), atol=1e-6)
    close(one["att"][:, 0].reshape(2, 2, 3, 8), np.repeat(one["v"][:, 0, :, None], 3, axis=2), atol=1e-5)
    close(one["o"], one["att"] @ weights["o"].T + weights["o_bias"], atol=1e-4)
    close(one["h"], one["silu"] * one["up"])
    close(one["silu"], one["gate"] / (1 + np.exp(-one["gate"])), rtol=1e-5, atol=1e-6)
    close(one["down"], one["h"] @ weights["down"].T + weights["down_bias"], atol=1e-4)
    close(out, seen["logits"])
    close(out, seen["final_normed"] * model.tensors["norm"] @ model.tensors["head"].T, atol=1e-4)


def test_decoder_observes_the_same(pair):
    _, model = pair
    tokens, whole, steps = some_tokens(pair[0], batch=2, length=5), {}, {}
    logits(model, tokens, lambda name, array: whole.setdefault(name, array.copy()))
    decoder = FloatDecoder(model, 2, 5)
    for column in tokens.T:
        decoder.step(column, lambda name, array: steps.setdefault(name, []).append(array.copy()))
    assert set(steps) == set(whole)
    for name, arrays in steps.items():
        np.testing.assert_allclose(np.concatenate(arrays, axis=1), whole[name], atol=1e-4, rtol=0, err_msg=name)


def test_inverse_frequencies_of_llama3(pair):
    theirs, ours = pair
    expected = theirs.model.rotary_emb.inv_freq.numpy()
    np.testing.assert_allclose(inverse_frequencies(ours.config), expected, rtol=1e-6)
    plain = inverse_frequencies(replace(ours.config, rope_scaling=None))
    ratio = plain / inverse_frequencies(ours.config)
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(8)


def test_silu_far_out():
    np.testing.assert_array_equal(silu(np.array([-1e4, 0, 1e4], np.float32)), [0, 0, 1e4])


def test_tensors_are_read_when_asked_for():
    reads = []

    def read():
        reads.append(1)
        return np.ones(3, np.float32)

    tensors = LazyTensors({"norm": read}, "a test")
    assert len(tensors) == 1 and "norm" in tensors and not reads
    assert tensors["norm"].sum() == 3 and len(reads) == 1


def test_sample_follows_the_model_and_the_seed(pair):
    _, model = pair
    tokens = sample(model, 4, 12, seed=3)
    assert tokens.shape == (4, 12) and (tokens[:, 0] == model.config.bos).all()
    np.testing.assert_array_equal(tokens, sample(model, 4, 12, seed=3))
    assert (tokens != sample(model, 4, 12, seed=4)).any()
    cold = sample(model, 1, 12, seed=3, temperature=1e-6)
    np.testing.assert_array_equal(cold[0, 1:], logits(model, cold)[0, :-1].argmax(axis=-1))


def test_sample_draws_from_the_softmax(pair):
    _, model = pair
    drawn = np.bincount(sample(model, 20000, 2, seed=0)[:, 1], minlength=67) / 20000
    score = logits(model, np.array([[model.config.bos]]))[0, 0]
    expected = np.exp(score - score.max())
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.015)


def test_stories260k_continues_as_its_readme_says(stories):
    prompt = stories.tokenizer.encode("Once upon a time")
    decoder, stream, text = FloatDecoder(stories, 1, 64), stories.tokenizer.stream(prompt), ""
    for token in prompt:
        scores = decoder.step([token])
    for _ in range(40):
        token = int(scores[0].argmax())
        text += stream.push(token)
        scores = decoder.step([token])
    assert text.startswith(", there was a little girl named Lily. She loved to play outside in the park. "
                           "One day, she saw a big, red ball.")
    assert stories.config.parameters() == 260_032


def test_stories260k_samples_fast(stories):
    """20,000 tokens in well under a minute, so that measuring a quantisation stays quick."""
    start = time.perf_counter()
    tokens = sample(stories, 40, 512, seed=0)
    assert tokens.size > 20_000 and tokens.max() < 512
    assert time.perf_counter() - start < 40
