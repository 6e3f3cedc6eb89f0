"""The example model: its grammar, its tokenizer, its committed folder and the script that made it."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MODEL = EXAMPLES / "model"
sys.path.insert(0, str(EXAMPLES / "train"))

import stories  # noqa: E402
import train  # noqa: E402
from story_tokenizer import train_tokenizer  # noqa: E402

PROMPTS = [
    "Once upon a time",
    "Once upon a time, there was a little girl named Lily.",
    "Once upon a time, a brave fox named Max lived near the river.",
    "There once was a shy mouse named Ella. Ella had a red ball and loved it very much.",
]


def take(seed: str, count: int) -> list[str]:
    return list(itertools.islice(stories.stories(seed), count))


def assert_keeps_hero_and_friend(text: str) -> None:
    """At most two names, and the first one comes back."""
    names = [word for word in re.findall(r"\w+", text) if word in stories.GIRLS + stories.BOYS]
    assert len(set(names)) <= 2
    assert names.count(names[0]) >= 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.set_num_threads(1)
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def test_grammar_is_deterministic():
    assert take("a", 20) == take("a", 20)
    assert take("a", 20) != take("b", 20)


def test_grammar_uses_exactly_its_words_and_fills_every_field():
    texts = take("words", 3000)
    assert {word for text in texts for word in stories.split_words(text)} == stories.words()
    assert not any("{" in text or "|" in text or "  " in text for text in texts)


def test_grammar_keeps_hero_and_friend():
    for text in take("names", 500):
        assert_keeps_hero_and_friend(text)


def test_stories_hardly_repeat():
    assert len(set(take("repeats", 2000))) == 2000


def test_tokenizer_is_the_trained_one(tokenizer):
    again = train_tokenizer(take("tokenizer 0", train.TOKENIZER_STORIES), train.CONFIG["vocab_size"])
    assert again.get_vocab() == tokenizer.get_vocab()


def test_tokenizer_ids_and_round_trip(tokenizer):
    assert [tokenizer.token_to_id(token) for token in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == 512
    for text in [*take("round trip", 50), ' A tiny  "test": 3 + 4 = 7!\n(yes) ', "".join(map(chr, range(32, 127)))]:
        ids = tokenizer.encode(text).ids
        assert ids[0] == 1 and 0 not in ids
        assert tokenizer.decode(ids) == text


def test_tokenizer_loads_in_transformers(tokenizer):
    auto = AutoTokenizer.from_pretrained(MODEL)
    assert auto("Once upon a time").input_ids == tokenizer.encode("Once upon a time").ids
    assert (auto.bos_token_id, auto.eos_token_id) == (1, 2)


def test_folder_is_small(model):
    assert sum(parameter.numel() for parameter in model.parameters()) <= 400_000
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 2_000_000
    assert json.loads((MODEL / "config.json").read_text()) == train.CONFIG


def test_perplexity_on_fresh_stories(model, tokenizer):
    assert train.perplexity(model, tokenizer, "never trained on", count=16) < 1.4


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_continuation_ends_and_uses_the_words_of_the_grammar(model, tokenizer, prompt):
    new = train.greedy(model, tokenizer, prompt)
    assert new[-1] == train.EOS and 30 < len(new) <= 160
    text = prompt + tokenizer.decode(new)
    assert text[-1] in '.!?"'
    assert text.count('"') % 2 == 0
    assert set(stories.split_words(text)) <= stories.words()


def test_story_of_the_demo_keeps_its_names(model, tokenizer):
    # Only this prompt: after one that names the hero, the model may slip into another name (see its README).
    prompt = "Once upon a time"
    assert_keeps_hero_and_friend(prompt + tokenizer.decode(train.greedy(model, tokenizer, prompt)))


def test_training_is_reproducible_and_replaces_the_folder(tmp_path):
    folder, runs = tmp_path / "model", []
    for _ in range(2):
        tokenizer = train_tokenizer(take("small", 300), train.CONFIG["vocab_size"])
        train.save(train.train(tokenizer, seed=0, steps=3, batch=2, peak=1e-3), tokenizer, folder)
        assert list(tmp_path.iterdir()) == [folder]
        runs.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert runs[0] == runs[1]
    assert set(runs[0]) == {path.name for path in MODEL.iterdir()}
    assert LlamaForCausalLM.from_pretrained(folder).num_parameters() == 217_664
