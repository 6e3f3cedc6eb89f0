import json
import random
import re
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from hwgen.errors import HwgenError
from hwgen.tokenizer import Tokenizer, readable

TEXTS = ["Once upon a time", "  two  spaces ", "line\nbreak\n\n", "naïve café 中文 🙂🙂", "it's 12345, isn't IT?", "",
         "a", "the the the thee", "x" * 40, "<s>literal</s>", "tab\tand\x00null"]
CORPUS = ["the cat sat on the mat and it's happy", "once upon a time there was a little girl", "two too to the them",
          "they'll say 2024 is a year", "time and tide", "naïve people go there"] * 3
STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="module")
def spaced() -> tokenizers.Tokenizer:
    """SentencePiece-like: spaces as ▁, unknown characters as bytes, BOS in front."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False))
    # The trainer makes the byte tokens special; a real tokenizer has only the first three.
    state = json.loads(inner.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    inner = tokenizers.Tokenizer.from_str(json.dumps(state))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return inner


@pytest.fixture(scope="module")
def byte_level() -> tokenizers.Tokenizer:
    """GPT-2-like, without BOS."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return inner


def vocabulary(inner) -> list[str]:
    return sorted(inner.get_vocab(), key=inner.get_vocab().get)


def spaced_fields(inner) -> dict:
    """GGUF metadata of a SentencePiece-like tokenizer: scores fall with the id, as trained."""
    tokens = vocabulary(inner)
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.scores": [-float(max(0, i - 258)) for i in range(len(tokens))],
            "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.unknown_token_id": 0}


def byte_level_fields(inner, **fields) -> dict:
    tokens, state = vocabulary(inner), json.loads(inner.to_str())
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
            "tokenizer.ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
            **{f"tokenizer.ggml.{name}": value for name, value in fields.items()}}


def test_json_keeps_everything(spaced, byte_level):
    for inner, bos in ((spaced, [1]), (byte_level, [])):
        first = Tokenizer.from_json(inner.to_str())
        again = Tokenizer.from_json(first.to_json())
        for text in TEXTS:
            assert first.encode(text) == again.encode(text) == inner.encode(text).ids
            assert first.encode(text)[: len(bos)] == bos
        assert again.to_json() == first.to_json() and again.size == inner.get_vocab_size()


def test_decode_leaves_out_special_tokens(spaced):
    tokenizer = Tokenizer(spaced)
    for text in ["Once upon a time", "café 🙂"]:
        assert tokenizer.decode([*tokenizer.encode(text), 2]) == text


def test_gguf_scores(spaced):
    tokenizer = Tokenizer.from_gguf(spaced_fields(spaced))
    for text in TEXTS:
        assert tokenizer.encode(text) == spaced.encode(text).ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == spaced.decode(spaced.encode(text).ids)


def best_pair_first(text: str, ids: dict[str, int], scores: list[float]) -> list[int]:
    """SentencePiece's own rule: join the neighbours whose joined piece scores best, the leftmost first."""
    pieces = list("▁" + text.replace(" ", "▁"))
    while True:
        joined = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:], strict=False))
                  if a + b in ids]
        if not joined:
            break
        i = min(joined)[1]
        pieces[i : i + 2] = ["".join(pieces[i : i + 2])]
    return [token for piece in pieces
            for token in ([ids[piece]] if piece in ids else [ids[f"<0x{byte:02X}>"] for byte in piece.encode()])]


def test_gguf_scores_in_any_order(spaced):
    """Scores decide, not ids: random scores against SentencePiece's rule, spelled out."""
    fields = spaced_fields(spaced)
    shuffled = random.Random(5)
    tokens = fields["tokenizer.ggml.tokens"]
    scores = [0.0] * 259 + shuffled.sample([-float(i) for i in range(len(tokens))], len(tokens) - 259)
    tokenizer = Tokenizer.from_gguf(fields | {"tokenizer.ggml.scores": scores})
    ids = {token: i for i, token in enumerate(tokens)}
    texts = [text for text in TEXTS if text and "<s>" not in text] + CORPUS
    for text in texts:
        assert tokenizer.encode(text)[1:] == best_pair_first(text, ids, scores), text
    assert any(tokenizer.encode(text) != spaced.encode(text).ids for text in texts)


def test_gguf_merges(byte_level):
    tokenizer = Tokenizer.from_gguf(byte_level_fields(byte_level, pre="gpt-2"))
    for text in TEXTS:
        assert tokenizer.encode(text) == byte_level.encode(text).ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("<s>", "").replace("</s>", "")


WORDS = "it's 12345! Ändert's $2.50 IT'S\n\n\tÀla  中文 ٣٤٥६ Ⅻ x²  don’t<=>ok|`a`--b  e\u0301 "


def cuts(inner, text: str) -> list[str]:
    """Words before merges, as the text's own characters."""
    parts = inner.pre_tokenizer.pre_tokenize_str(text)
    assert [end for _, (_, end) in parts][:-1] == [start for _, (start, _) in parts][1:]
    return [text[start:end] for _, (start, end) in parts]


def gguf_cuts(byte_level, pre: str, text: str) -> list[str]:
    tokenizer = Tokenizer.from_gguf(byte_level_fields(byte_level, pre=pre))
    return cuts(tokenizers.Tokenizer.from_str(tokenizer.to_json()), text)


@pytest.mark.parametrize("pre,words", [
    ("gpt-2", ["it", "'s", " 12345", "!", " A"]), ("smollm", ["it", "'s", " ", "1", "2", "3", "4", "5", "!", " A"]),
    ("starcoder", ["it", "'s", " ", "1", "2", "3", "4", "5", "!", " A"]), ("mpt", ["it", "'s", " 12345", "!", " A"]),
    ("llama-bpe", ["it", "'s", " ", "123", "45", "!", " A"]), ("dbrx", ["it", "'s", " ", "123", "45", "!", " A"]),
    ("qwen2", ["it", "'s", " ", "1", "2", "3", "4", "5", "!", " A"]),
    ("tekken", ["it", "'s", " ", "1", "2", "3", "4", "5", "!", " A"]),
    ("gpt-4o", ["it's", " ", "123", "45", "!", " A"]),
    ("default", ["it", "'", "s", " ", "123", "45", "!", " A"]), ("", ["it", "'", "s", " ", "123", "45", "!", " A"]),
    ("falcon", ["it", "'", "s", " ", "123", "45", "!", " A"]),
    ("deepseek-coder", ["it", "'", "s", " ", "1", "2", "3", "4", "5", "!", " A"]),
    ("bloom", ["it's", " 12345", "!", " A"]), ("viking", ["it's", " ", "1", "2", "3", "4", "5", "!", " A"]),
])
def test_gguf_words(byte_level, pre, words):
    """Each known way to cut words, by its published pattern."""
    assert gguf_cuts(byte_level, pre, "it's 12345! A") == words


def test_gguf_words_of_the_default_way(byte_level):
    """Worked out by hand from llama.cpp's four patterns: signs, then GPT-2's, then numbers, then threes of digits."""
    words = ["a", "$", "b", "^", "|", "c", "`", " ", "123", "456", "7", " ", "12", " (", "x", ")", "  ", " y"]
    assert gguf_cuts(byte_level, "default", "a$b^|c` 1234567 12 (x)   y") != words
    words = ["a", "$", "b", "^|", "c", "`", " ", "123", "456", "7", " ", "12", " ", "(", "x", ")", "  ", " y"]
    assert gguf_cuts(byte_level, "default", "a$b^|c` 1234567 12 (x)   y") == words


@pytest.mark.parametrize("pre", GGUF_PRE_TOKENIZER_SPLITS)
def test_gguf_words_agree_with_transformers(byte_level, pre):
    other = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[pre]), behavior="isolated")
    wanted = [word for word, _ in other.pre_tokenize_str(WORDS)]
    assert gguf_cuts(byte_level, pre, WORDS) == wanted and len(wanted) > 20


@pytest.mark.parametrize("names,reference", [
    ("gpt-2 phi-2 mpt olmo jais exaone4 gigachat", [pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b",
     [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    ("falcon", [pre_tokenizers.Punctuation(behavior="contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]),
])
def test_gguf_words_agree_with_what_their_models_publish(byte_level, names, reference):
    """The pre-tokenizers of the original tokenizer.json, of the library's own parts."""
    text = WORDS
    if names == "falcon":
        # llama.cpp's pattern is not the library's for signs that are no punctuation
        text = re.sub(r"[$<=>|`]", "", WORDS)
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(reference)
    for name in names.split():
        assert gguf_cuts(byte_level, name, text) == cuts(inner, text), name


@pytest.mark.parametrize("kind,flag,first", [
    ("llama", None, [1]), ("llama", False, []), ("gpt2", None, []), ("gpt2", True, [0]), ("llama-bpe", None, [0]),
    ("llama-bpe", False, []), ("falcon3", None, [0]), ("tekken", None, [0]), ("dbrx", None, []), ("qwen2", None, []),
])
def test_gguf_bos(spaced, byte_level, kind, flag, first):
    fields = spaced_fields(spaced) if kind == "llama" else byte_level_fields(byte_level)
    if kind not in ("llama", "gpt2"):
        fields["tokenizer.ggml.pre"] = kind
    if flag is not None:
        fields["tokenizer.ggml.add_bos_token"] = flag
    tokenizer = Tokenizer.from_json(Tokenizer.from_gguf(fields).to_json())
    plain = Tokenizer.from_gguf(fields | {"tokenizer.ggml.add_bos_token": False})
    if kind == "llama":
        # SentencePiece's own ids where the file names none
        del fields["tokenizer.ggml.bos_token_id"]
        assert Tokenizer.from_gguf(fields).encode("the cat") == tokenizer.encode("the cat")
    assert tokenizer.encode("the cat") == first + plain.encode("the cat")


def test_llama3_takes_a_whole_word_that_is_a_token(byte_level):
    """A word in the vocabulary that no merges lead to: Llama 3's rule finds it, GPT-2's does not."""
    fields = byte_level_fields(byte_level)
    fields["tokenizer.ggml.tokens"].append("zebra")
    fields["tokenizer.ggml.token_type"].append(1)
    last = len(fields["tokenizer.ggml.tokens"]) - 1
    assert Tokenizer.from_gguf(fields | {"tokenizer.ggml.pre": "llama-bpe"}).encode("zebra") == [0, last]
    assert last not in Tokenizer.from_gguf(fields | {"tokenizer.ggml.pre": "gpt-2"}).encode("zebra")


def test_tokens_that_end_a_text_are_never_written(byte_level):
    """Whatever type the file gives them."""
    fields = byte_level_fields(byte_level, pre="gpt-2")
    fields["tokenizer.ggml.tokens"].append("<|im_end|>")
    fields["tokenizer.ggml.token_type"].append(1)
    tokenizer, last = Tokenizer.from_gguf(fields), len(fields["tokenizer.ggml.tokens"]) - 1
    assert tokenizer.encode("the cat<|im_end|>")[-1] == last
    assert tokenizer.decode(tokenizer.encode("the cat<|im_end|>")) == "the cat"


def test_gguf_without_tokenizer():
    assert Tokenizer.from_gguf({}) is None
    assert Tokenizer.from_gguf({"tokenizer.ggml.model": "none"}) is None


@pytest.mark.parametrize("fields,message", [
    ({"model": "bert"}, "tokenizer.ggml.model must be 'llama' or 'gpt2', not 'bert'"),
    ({"pre": "klingon"}, "tokenizer.ggml.pre must be .*, not 'klingon'"),
    ({"pre": 7}, "tokenizer.ggml.pre must be .*, not 7"),
    ({"merges": None}, "must have tokenizer.ggml.tokens and merges"),
    ({"merges": ["a b", "zz qq"]}, "must fit together"),
    ({"token_type": [1]}, "must fit together"),
    ({"tokens": ["a", "a"], "token_type": [1, 1]}, "must fit together"),
])
def test_gguf_with_a_tokenizer_that_cannot_be_used(byte_level, fields, message):
    """It is refused when it is used, always with the same sentence."""
    tokenizer = Tokenizer.from_gguf(byte_level_fields(byte_level, **fields))
    stream = tokenizer.stream([1])
    for use in (lambda: tokenizer.encode("a"), lambda: tokenizer.decode([1]), tokenizer.to_json, stream.flush):
        with pytest.raises(HwgenError, match=message) as error:
            use()
        assert str(error.value) == tokenizer.problem and len(tokenizer.problem) < 250
    assert readable(tokenizer) is None


def test_a_damaged_file_is_refused_when_it_is_used(tmp_path, spaced):
    path = tmp_path / "tokenizer.json"
    for text, message in ((b"\xff{}", "must be UTF-8 text"), (b'{"version": ', "must be a tokenizer.json of")):
        path.write_bytes(text)
        tokenizer = Tokenizer.from_file(path)
        with pytest.raises(HwgenError, match=message):
            tokenizer.encode("a")
        assert readable(tokenizer) is None
    path.write_text(spaced.to_str())
    tokenizer = Tokenizer.from_file(path)
    assert readable(tokenizer) is tokenizer and tokenizer.encode("the cat") == spaced.encode("the cat").ids


def test_a_prompt_is_never_cut_or_filled_up(spaced):
    whole = Tokenizer(spaced).encode("the cat sat on the mat")
    state = json.loads(spaced.to_str())
    state["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    state["padding"] = {"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "<pad>"}
    read = Tokenizer.from_json(json.dumps(state))
    assert len(whole) > 2 and read.encode("the cat sat on the mat") == whole
    assert Tokenizer.from_json(read.to_json()).encode("the cat sat on the mat") == whole


def test_damaged_json():
    with pytest.raises(HwgenError, match="must be a tokenizer.json of the tokenizers library"):
        Tokenizer.from_json('{"version": "1.0"')


@pytest.mark.parametrize("name", ["spaced", "byte_level"])
def test_stream_joins_to_the_decoded_whole(request, name):
    tokenizer = Tokenizer(request.getfixturevalue(name))
    for text in TEXTS:
        ids = [*tokenizer.encode(text), 1]
        for cut in range(len(ids)):
            shown = tokenizer.decode(ids[:cut])
            if shown.endswith("\N{REPLACEMENT CHARACTER}"):
                continue  # A prompt that ends inside a character was shown wrongly already.
            stream = tokenizer.stream(ids[:cut])
            pieces = [stream.push(token) for token in ids[cut:]]
            assert shown + "".join(pieces) + stream.flush() == tokenizer.decode(ids), (text, cut)
            assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_stream_shows_text_as_soon_as_it_is_complete(spaced):
    tokenizer = Tokenizer(spaced)
    prompt = tokenizer.encode("the cat")
    stream = tokenizer.stream(prompt)
    assert [stream.push(token) for token in tokenizer.encode("the")[1:]] == [" the"]
    euro = [spaced.token_to_id(f"<0x{byte:02X}>") for byte in "é€".encode()]
    assert [stream.push(token) for token in euro] == ["", "é", "", "", "€"]
    assert stream.push(euro[0]) == "" and stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_stream_keeps_the_space_after_a_special_token(spaced):
    tokenizer = Tokenizer(spaced)
    ids = [*tokenizer.encode("the cat"), 2, *tokenizer.encode("the")[1:]]
    stream = tokenizer.stream()
    assert "".join(stream.push(token) for token in ids) == tokenizer.decode(ids) == "the cat the"


def test_stories260k_tokenizer():
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES.name} is not beside the checkout (../shared/models)")
    tokenizer = Tokenizer.from_file(STORIES / "tokenizer.json")
    assert tokenizer.encode("Once upon a time") == [1, 403, 407, 261, 378]
    assert tokenizer.decode([1, 403, 407, 261, 378]) == "Once upon a time"
