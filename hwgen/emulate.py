"""Instruction-level emulator: runs the programs of all tiles bit-exactly, without time.

Units of a tile run their queues independently, in a random but seeded order that only tokens and arrivals constrain,
and messages take their time, in no order: a missing dependency shows as a wrong result. Memories start with garbage.
"""

import random
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from hwgen.compiler.compile import CompiledChip
from hwgen.compiler.tile_program import DONE, LOGITS_LAST, RESULT
from hwgen.emulate_tile import Message, Start, TileEmulator
from hwgen.isa import KIND_BITS, Unit, counter_numbers
from hwgen.model_config import end_ids


class Emulator:
    """All tiles and the host's side of a run.

    Messages arrive in any order; those to one tile, another for every token, when nothing else can happen.
    """

    def __init__(self, chip: CompiledChip, seed: int = 0):
        self.chip = chip
        self.random = random.Random(seed)
        self.tiles = [TileEmulator(chip, t, self.random) for t in range(chip.design.tiles)]
        self._grant = counter_numbers(chip.design.streams).grant

    @property
    def overflow(self) -> bool:
        return any(t.overflow for t in self.tiles)

    def token(self, token: int, position: int, output: bool = True, logits: bool = False):
        """One token of the first stream alone, see `step`."""
        return self.step([Start(token, position, output, logits)] + [None] * (self.chip.design.streams - 1))[0]

    def step(self, starts: Sequence[Start | None]) -> list:
        """A token of every stream that has one: greedy successors, logits (int64 [vocab]), or None without output."""
        streams = range(len(starts))
        results, chunks, under_way = [[] for _ in streams], [[] for _ in streams], []
        answers = [0] * len(starts)
        for tile in self.tiles:
            tile.begin(list(starts))
        grants = deque(t for start in starts if start and start.output and start.logits for t in self.chip.grant_order)
        if grants:
            self.tiles[grants[0]].counters[self._grant] += 1
        self.late = self.random.randrange(len(self.tiles))
        while under_way or not all(t.done for t in self.tiles):
            message = self._step(under_way)
            if message is None:
                continue
            if message.tile is not None:
                self.tiles[message.tile].receive(message)
                continue
            stream, kind = divmod(message.address, 1 << KIND_BITS)
            if kind == RESULT:
                results[stream].append((-int(message.words[0]), int(message.words[1])))
            if kind in (RESULT, DONE):
                answers[stream] += 1
                continue
            chunks[stream].append(message.words)
            if kind == LOGITS_LAST:
                grants.popleft()
            if grants:
                self.tiles[grants[0]].counters[self._grant] += 1
        wanted = [len(self.tiles) * (start is not None) for start in starts]
        if answers != wanted:
            raise RuntimeError(f"every tile must answer once for each stream: {wanted} answers, not {answers}")
        return [np.concatenate(chunk) if chunk else min(result)[1] if result else None
                for chunk, result in zip(chunks, results, strict=True)]

    def _step(self, under_way: list[Message]) -> Message | None:
        """Run an instruction, whose messages are then under way, or return one of these, which now arrives."""
        soon = [m for m in under_way if m.tile != self.late]
        ready = [(t, u) for t in self.tiles for u in t.ready()]
        number = self.random.randrange(max(1, len(soon) + len(ready)))
        if number < len(ready):
            tile, unit = ready[number]
            under_way += tile.step(unit)
            return None
        arriving = soon or under_way
        if not arriving:
            raise RuntimeError("programs wait for each other: " + "; ".join(
                f"tile {t.index} {Unit(u).name} {q[0][0].op} {q[0][0].fields} of position {q[0][2].position}"
                for t in self.tiles for u, q in t.queues.items() if q))
        message = arriving[self.random.randrange(len(arriving))]
        under_way[:] = [m for m in under_way if m is not message]
        return message

    def generate(self, prompt: list[int], count: int, eos: int | Iterable[int] | None = None) -> list[int]:
        """Greedy continuation of `count` tokens, or up to one of `eos` (an id or several), whatever the context is."""
        return self.generate_streams([prompt], [count], eos)[0]

    def generate_streams(
        self, prompts: Sequence[list[int]], counts: Sequence[int], eos: int | Iterable[int] | None = None,
    ) -> list[list[int]]:
        """The same of every stream, each with its own prompt; a stream that has come to its end stands still."""
        idle = [None] * (self.chip.design.streams - len(prompts))
        ends = end_ids(eos)
        tokens = [list(prompt) for prompt in prompts]
        lengths = [len(prompt) + count for prompt, count in zip(prompts, counts, strict=True)]
        for position in range(max(lengths) - 1):
            starts = [
                Start(own[position], position, position >= len(prompt) - 1, False) if position < length - 1 else None
                for own, prompt, length in zip(tokens, prompts, lengths, strict=True)]
            for stream, successor in enumerate(self.step(starts + idle)[:len(prompts)]):
                if successor is not None:
                    tokens[stream].append(successor)
                if successor in ends:
                    lengths[stream] = len(tokens[stream])
        return [own[len(prompt):] for own, prompt in zip(tokens, prompts, strict=True)]
