"""Trains the example model from nothing: stories -> tokenizer -> Llama -> Hugging Face folder.

    python examples/train/train.py

Same arguments, same bytes on one machine and one set of package versions: one thread, one seed. About five minutes of
one core. Needs the `test` extra (torch, transformers).
"""

import argparse
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from stories import stories
from story_tokenizer import BOS, EOS, train_tokenizer
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.05,
    "intermediate_size": 176,
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 512,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": CONFIG["max_position_embeddings"],
}
TOKENIZER_STORIES = 5000
ROW = CONFIG["max_position_embeddings"] + 1  # inputs of the longest context, and the target of the last one


def rows(tokenizer: Tokenizer, seed: str) -> Iterator[list[int]]:
    """Endless rows of ROW token ids: whole stories, each from BOS to EOS, the last one cut."""
    row: list[int] = []
    for text in stories(seed):
        row += [*tokenizer.encode(text).ids, EOS]
        if len(row) >= ROW:
            yield row[:ROW]
            row = []


def loss_of(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats per token of a (rows, ROW) batch."""
    logits = model(input_ids=batch[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over a twentieth of the steps, then a cosine down to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(tokenizer: Tokenizer, *, seed: int, steps: int, batch: int, peak: float) -> LlamaForCausalLM:
    """Trains for `steps` batches of `batch` rows, none of them seen twice, and prints progress."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    source, start = rows(tokenizer, f"train {seed}"), time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = loss_of(model, torch.tensor(list(itertools.islice(source, batch))))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}/{steps}  loss {loss.item():.4f}  {time.monotonic() - start:6.1f} s", flush=True)
    return model.eval()


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, tokenizer: Tokenizer, seed: str, count: int = 64) -> float:
    """Perplexity per token over `count` rows of the stories of `seed`."""
    batch = torch.tensor(list(itertools.islice(rows(tokenizer, seed), count)))
    return math.exp(loss_of(model, batch).item())


@torch.no_grad()
def greedy(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """New tokens after `prompt`, the most probable one each time, up to EOS or the end of the context."""
    ids = tokenizer.encode(prompt).ids
    new: list[int] = []
    while len(ids) + len(new) < CONFIG["max_position_embeddings"] and EOS not in new:
        new.append(int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the Hugging Face folder beside its place, then swaps it in: an interrupted run leaves the old one."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    # The head is the embedding: a tied tensor is stored once.
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (fresh / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    tokenizer.save(str(fresh / "tokenizer.json"))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16, help="rows of 256 tokens a step")
    parser.add_argument("--peak", type=float, default=6e-3, help="highest learning rate")
    parser.add_argument("--tokenizer-stories", type=int, default=TOKENIZER_STORIES)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).resolve().parent.parent / "model")
    args = parser.parse_args(arguments)
    texts = itertools.islice(stories(f"tokenizer {args.seed}"), args.tokenizer_stories)
    tokenizer = train_tokenizer(texts, CONFIG["vocab_size"])
    model = train(tokenizer, seed=args.seed, steps=args.steps, batch=args.batch, peak=args.peak)
    save(model, tokenizer, args.output)
    print(f"{sum(p.numel() for p in model.parameters())} parameters -> {args.output}")
    print(f"perplexity on fresh stories: {perplexity(model, tokenizer, f'fresh {args.seed}'):.4f}")
    print("Once upon a time" + tokenizer.decode(greedy(model, tokenizer, "Once upon a time")))


if __name__ == "__main__":
    main()
