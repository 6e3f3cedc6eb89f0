"""Text to token ids and back: a `tokenizers` object, from tokenizer.json or built from GGUF metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from hwgen.errors import HwgenError, shown

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = _QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    _TEKKEN.replace(f"{_SMALL}+", rf"{_SMALL}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?")
    .replace(f"{_SMALL}*", rf"{_SMALL}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace(r"\p{N}|", r"\p{N}{1,3}|")
)
_CUTS = {
    (_GPT2,): "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo "
              "jais trillion granite-docling",
    (r"\p{N}", _GPT2): "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    (_LLAMA3,): "llama-bpe llama-v3 llama3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 "
                "chatglm-bpe",
    (_QWEN2,): "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    (_QWEN35,): "qwen35",
    (_TEKKEN,): "tekken",
    (_GPT4O,): "gpt-4o llama4 kanana2 talkie minimax-m2",
    (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"): "falcon",
    (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"): "deepseek-coder",
    (r" ?[^(\s|.,!?…。，、।۔،)]+",): "bloom poro-chat gpt3-finnish",
    (r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"): "viking",
    (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"): "default",
}
_WORDS = {name: cuts for cuts, names in _CUTS.items() for name in names.split()}
"""How a value of GGUF's `tokenizer.ggml.pre` cuts text into words, as llama.cpp does: patterns that are applied in turn
to every piece; a match is a piece of its own, and so is what lies between matches."""
_WHOLE_WORDS = ("llama-bpe", "llama-v3", "llama3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                "jina-v5-nano", "tekken")
"""Those that take a word that is a token whole, without asking the merges, and begin with BOS if the file says nothing
about it."""

_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[")
"""Tokens that end a text wherever a vocabulary has them, whatever the metadata say: llama.cpp's list."""
_FILL_ENDS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
"""The same of code models: by name of the metadata that has the id, the tokens of which the first is taken if not."""

# Values of GGUF's `tokenizer.ggml.token_type`.
_UNKNOWN, _CONTROL, _USER = 2, 3, 4


class Tokenizer:
    """Encodes and decodes text; whether BOS is added is part of it, and survives `to_json`.

    One that `from_file` or `from_gguf` gave is built when text is first needed: every use may raise HwgenError.
    """

    def __init__(self, inner: tokenizers.Tokenizer | Callable[[], tokenizers.Tokenizer]):
        self._make = inner if callable(inner) else lambda: inner

    @cached_property
    def _inner(self) -> tokenizers.Tokenizer:
        inner = self._make()
        # a prompt is never cut or filled up
        inner.no_truncation()
        inner.no_padding()
        return inner

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """From the text of a tokenizer.json, or what `to_json` gave."""
        return cls(_parsed(text))

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """From a tokenizer.json file."""
        return cls(lambda: _parsed(_text(path)))

    @classmethod
    def from_gguf(cls, fields: dict) -> Tokenizer | None:
        """From GGUF metadata by key; None where the file has no tokenizer."""
        if fields.get("tokenizer.ggml.model") in (None, "none", "no_vocab"):
            return None
        return cls(lambda: _from_gguf(fields))

    @cached_property
    def problem(self) -> str | None:
        """Why text can be neither encoded nor decoded, a sentence; None where it can."""
        try:
            _ = self._inner
        except HwgenError as error:
            return str(error)
        return None

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS first if this tokenizer adds it. Raises HwgenError for what is no Unicode text."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise HwgenError(f"Text must be UTF-8, not {shown(text)}") from None
        return self._inner.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens such as BOS give none."""
        return self._inner.decode(list(ids), skip_special_tokens=True)

    def stream(self, prompt: Iterable[int] = ()) -> TextStream:
        """A decoder for tokens that arrive one by one after `prompt`."""
        return TextStream(self, prompt)

    def to_json(self) -> str:
        """The whole tokenizer as text for `from_json`."""
        return self._inner.to_str()


def readable(tokenizer: Tokenizer | None) -> Tokenizer | None:
    """`tokenizer` where it can encode and decode."""
    return None if tokenizer is None or tokenizer.problem else tokenizer


class TextStream:
    """Text of tokens as they appear. All pieces joined are the decoded whole; a character comes out complete."""

    def __init__(self, tokenizer: Tokenizer, prompt: Iterable[int] = ()):
        self._tokenizer = tokenizer
        # Ids from the last ones already shown, which decide about spaces, to those not yet shown.
        self._ids = list(prompt)
        self._shown = len(self._ids)

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character's bytes are incomplete."""
        self._ids.append(int(token))
        text = self._pending()
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        return self._take(text)

    def flush(self) -> str:
        """What is left at the end: incomplete characters, as replacement characters."""
        return self._take(self._pending())

    def _pending(self) -> str:
        before, whole = self._tokenizer.decode(self._ids[: self._shown]), self._tokenizer.decode(self._ids)
        # An unfinished character can spoil the bytes before it, which were shown already.
        return whole[len(before):] if whole.startswith(before) else self._tokenizer.decode(self._ids[self._shown :])

    def _take(self, text: str) -> str:
        # Ids without text (BOS) must not become the only context: the decoder would strip the next space.
        if text:
            self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return text


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise HwgenError(f"Tokenizer {str(path)!r} must be UTF-8 text ({error})") from error
    except OSError as error:
        raise HwgenError(f"Tokenizer {str(path)!r} cannot be read: {error.strerror or error}") from error


def _parsed(text: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # The library raises nothing more specific.
        raise HwgenError(f"Tokenizer must be a tokenizer.json of the tokenizers library, not damaged ({error})"
                         ) from error


# GGUF

def gguf_notes(fields: dict) -> tuple[str, ...]:
    """What is assumed of GGUF metadata in reading text, a sentence each."""
    pre = fields.get("tokenizer.ggml.pre", "")
    if fields.get("tokenizer.ggml.model") != "gpt2" or pre not in ("", "default"):
        return ()
    found = "'default'" if pre else "absent"
    return (f"tokenizer.ggml.pre is {found}: text is cut into words as llama.cpp does by default, which may not be how "
            "the model was trained",)


def gguf_ends(fields: dict, vocab: int) -> tuple[int | None, tuple[int, ...]]:
    """BOS, and all ids that end a text, EOS first, as llama.cpp has them: by metadata and by the tokens' text."""
    tokens = fields.get("tokenizer.ggml.tokens")
    tokens = tokens[:vocab] if isinstance(tokens, list) else []
    ids = {token: i for i, token in enumerate(tokens) if isinstance(token, str)}
    # what a SentencePiece vocabulary has where the file does not say
    usual = {"bos": 1, "eos": 2} if fields.get("tokenizer.ggml.model") == "llama" and len(tokens) > 2 else {}

    def given(name):
        return fields.get(f"tokenizer.ggml.{name}_token_id", usual.get(name))

    names = [name for name in _ENDS if name in ids]
    if {"<|return|>", "<|call|>"} <= set(names) or "<|flush|>" in names and {"<|call|>", "<|calls|>"} & set(names):
        # where a message ends, and the text goes on
        names = [name for name in names if name != "<|end|>"]
    if "<|tool_response>" in names:
        names = [name for name in names if name != "</s>"]
    fill = [given(name) if given(name) is not None else next((ids[text] for text in texts if text in ids), None)
            for name, texts in _FILL_ENDS.items()]
    ends = [*map(given, ("eos", "eot", "eom")), *(ids[name] for name in names), *fill]
    return given("bos"), tuple(dict.fromkeys(end for end in ends if end is not None))


def _from_gguf(fields: dict) -> tokenizers.Tokenizer:
    kind = fields["tokenizer.ggml.model"]
    if kind not in ("llama", "gpt2"):
        raise HwgenError(f"tokenizer.ggml.model must be 'llama' or 'gpt2', not {shown(kind)}")
    tokens, needed = fields.get("tokenizer.ggml.tokens"), "scores" if kind == "llama" else "merges"
    extra = fields.get(f"tokenizer.ggml.{needed}")
    if not isinstance(tokens, list) or not isinstance(extra, list):
        raise HwgenError(f"A GGUF tokenizer of model {kind!r} must have tokenizer.ggml.tokens and {needed}")
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    try:
        if len(set(tokens)) < len(tokens):
            raise ValueError("a token is there twice")
        return (_from_scores if kind == "llama" else _from_merges)(fields, tokens, extra)
    except HwgenError:
        raise
    except Exception as error:  # The library raises nothing more specific.
        raise HwgenError(f"The GGUF tokenizer's tokens and {needed} must fit together ({str(error)[:100]})") from error


def _from_scores(fields: dict, tokens: list[str], scores: list[float]) -> tokenizers.Tokenizer:
    """A SentencePiece BPE vocabulary: the pair whose joined piece has the best score merges first."""
    ids = {token: i for i, token in enumerate(tokens)}
    ranked = sorted(range(len(tokens)), key=lambda i: -scores[i])
    merges = [(tokens[i][:cut], tokens[i][cut:]) for i in ranked for cut in range(1, len(tokens[i]))
              if tokens[i][:cut] in ids and tokens[i][cut:] in ids]
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    inner = tokenizers.Tokenizer(models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = [normalizers.Replace(" ", "▁")]
    strip = []
    if fields.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
        strip.append(decoders.Strip(" ", 1, 0))
    inner.normalizer = normalizers.Sequence(spaces)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _finish(inner, fields, tokens, add_bos=True)


def _from_merges(fields: dict, tokens: list[str], merges: list[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE vocabulary with its merges in order."""
    kind = fields.get("tokenizer.ggml.pre") or "default"
    if kind not in tuple(_WORDS):
        raise HwgenError("tokenizer.ggml.pre must be a known way to cut text into words, as 'llama-bpe', 'qwen2' or "
                         f"'default', not {shown(kind)}")
    ids, whole = {token: i for i, token in enumerate(tokens)}, kind in _WHOLE_WORDS
    inner = tokenizers.Tokenizer(
        models.BPE(ids, [tuple(merge.split(" ", 1)) for merge in merges], ignore_merges=whole))
    inner.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _WORDS[kind]),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    return _finish(inner, fields, tokens, add_bos=whole)


def _finish(inner, fields: dict, tokens: list[str], add_bos: bool) -> tokenizers.Tokenizer:
    types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    for token, kind in zip(tokens, types, strict=True):
        if kind in (_UNKNOWN, _CONTROL) or token in _ENDS:
            inner.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == _USER:
            inner.add_tokens([AddedToken(token, normalized=False)])
    bos, _ = gguf_ends(fields, len(tokens))
    if fields.get("tokenizer.ggml.add_bos_token", add_bos) and bos is not None:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)])
    return inner
