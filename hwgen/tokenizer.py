"""Text to token ids and back: a `tokenizers` object, from tokenizer.json or built from GGUF metadata."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from hwgen.errors import HwgenError

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
# How GGUF's `tokenizer.ggml.pre` cuts text into words: (a pattern, None for GPT-2's own), digits apart, BOS by default.
_WORDS = {
    "gpt-2": (None, False, False), "smollm": (None, True, False), "starcoder": (None, True, False),
    "llama-bpe": (_LLAMA3_WORDS, False, True),
    "qwen2": (_LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}"), False, False),
}
_WORDS |= {"llama-v3": _WORDS["llama-bpe"], "llama3": _WORDS["llama-bpe"]}

# Values of GGUF's `tokenizer.ggml.token_type`.
_UNKNOWN, _CONTROL, _USER = 2, 3, 4


class Tokenizer:
    """Encodes and decodes text; whether BOS is added is part of it, and survives `to_json`."""

    def __init__(self, inner: tokenizers.Tokenizer):
        # a prompt is never cut or filled up
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """From the text of a tokenizer.json, or what `to_json` gave."""
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # The library raises nothing more specific.
            raise HwgenError(f"Tokenizer must be a tokenizer.json of the tokenizers library, not damaged ({error})"
                             ) from error

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """From a tokenizer.json file."""
        try:
            return cls.from_json(path.read_text("utf-8"))
        except UnicodeDecodeError as error:
            raise HwgenError(f"Tokenizer {str(path)!r} must be UTF-8 text ({error})") from error

    @classmethod
    def from_gguf(cls, fields: dict) -> Tokenizer | None:
        """From GGUF metadata by key; None where the file has no tokenizer."""
        kind = fields.get("tokenizer.ggml.model")
        if kind in (None, "none", "no_vocab"):
            return None
        if kind not in ("llama", "gpt2"):
            raise HwgenError(f"tokenizer.ggml.model must be 'llama' or 'gpt2', not {kind!r}")
        tokens, needed = fields.get("tokenizer.ggml.tokens"), "scores" if kind == "llama" else "merges"
        extra = fields.get(f"tokenizer.ggml.{needed}")
        if not isinstance(tokens, list) or not isinstance(extra, list):
            raise HwgenError(f"A GGUF tokenizer of model {kind!r} must have tokenizer.ggml.tokens and {needed}")
        try:
            return cls((_from_scores if kind == "llama" else _from_merges)(fields, tokens, extra))
        except HwgenError:
            raise
        except Exception as error:  # The library raises nothing more specific.
            raise HwgenError(f"The GGUF tokenizer's tokens and {needed} must fit together ({error})") from error

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS first if this tokenizer adds it. Raises HwgenError for what is no Unicode text."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise HwgenError(f"Text must be UTF-8, not {text!r}") from None
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
    kind = fields.get("tokenizer.ggml.pre", "gpt-2")
    if kind not in _WORDS:
        raise HwgenError(f"tokenizer.ggml.pre must be {', '.join(_WORDS)}, not {kind!r}")
    pattern, digits, add_bos = _WORDS[kind]
    ids = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a word that is a token whole, without asking the merges.
    model = models.BPE(ids, [tuple(merge.split(" ", 1)) for merge in merges], ignore_merges=add_bos)
    inner = tokenizers.Tokenizer(model)
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    inner.decoder = decoders.ByteLevel()
    return _finish(inner, fields, tokens, add_bos)


def _finish(inner, fields: dict, tokens: list[str], add_bos: bool) -> tokenizers.Tokenizer:
    types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    for token, kind in zip(tokens, types, strict=True):
        if kind in (_UNKNOWN, _CONTROL):
            inner.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == _USER:
            inner.add_tokens([AddedToken(token, normalized=False)])
    bos = fields.get("tokenizer.ggml.bos_token_id")
    if fields.get("tokenizer.ggml.add_bos_token", add_bos) and bos is not None:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)])
    return inner
