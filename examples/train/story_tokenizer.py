"""Trains the tokenizer of the example model: byte-level BPE over printable ASCII and the line break.

Any English prompt is encoded and decoded exactly; a byte beyond ASCII becomes ``<unk>``. All 256 bytes would take half
of a vocabulary of 512, and every story would be a third longer.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

UNK, BOS, EOS = 0, 1, 2
SPECIAL = ["<unk>", "<s>", "</s>"]
# Byte-level BPE writes a space as \u0120 and a line break as \u010a, other printable ASCII as itself.
ALPHABET = ["\u0120", "\u010a", *map(chr, range(33, 127))]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """BPE of `vocabulary` tokens (at least 99: special ones and alphabet), which puts ``<s>`` before every text."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNK]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=ALPHABET, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer
