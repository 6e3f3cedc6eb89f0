"""Instruction-level emulator: runs the programs of all tiles bit-exactly, without time.

Units of a tile run their queues independently, in a random but seeded order that only tokens and arrivals constrain,
and messages take their time, in no order: a missing dependency shows as a wrong result. Memories start with garbage.
"""

import random
from collections import deque

import numpy as np

from hwgen.compiler.compile import CompiledChip
from hwgen.emulate_tile import Message, Start, TileEmulator
from hwgen.isa import Unit


class Emulator:
    """All tiles and the host's side of a run.

    Messages arrive in any order; those to one tile, another for every token, when nothing else can happen.
    """

    def __init__(self, chip: CompiledChip, seed: int = 0):
        self.chip = chip
        self.random = random.Random(seed)
        self.tiles = [TileEmulator(chip, t, self.random) for t in range(chip.design.tiles)]

    @property
    def overflow(self) -> bool:
        return any(t.overflow for t in self.tiles)

    def token(self, token: int, position: int, output: bool = True, logits: bool = False):
        """One token through the chip: the greedy successor, the logits (int64 [vocab]), or None without output."""
        results, chunks, answered, under_way = [], [], 0, []
        for tile in self.tiles:
            tile.begin(Start(token, position, output, logits))
        grants = deque(self.chip.grant_order)
        if output and logits:
            self.tiles[grants[0]].counters[13] += 1
        self.late = self.random.randrange(len(self.tiles))
        while under_way or not all(t.done for t in self.tiles):
            message = self._step(under_way, position)
            if message is None:
                continue
            if message.tile is not None:
                self.tiles[message.tile].receive(message)
            elif message.address == 0:
                results.append((-int(message.words[0]), int(message.words[1])))
                answered += 1
            elif message.address == 3:
                answered += 1
            else:
                chunks.append(message.words)
                if message.address == 2:
                    grants.popleft()
                if grants:
                    self.tiles[grants[0]].counters[13] += 1
        if answered != len(self.tiles):
            raise RuntimeError(f"every tile must answer once, not {answered} answers of {len(self.tiles)} tiles")
        if chunks:
            return np.concatenate(chunks)
        return min(results)[1] if results else None

    def _step(self, under_way: list[Message], position: int) -> Message | None:
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
            raise RuntimeError(f"programs wait for each other at position {position}: " + "; ".join(
                f"tile {t.index} {Unit(u).name} {q[0].op} {q[0].fields}" for t in self.tiles
                for u, q in t.queues.items() if q))
        message = arriving[self.random.randrange(len(arriving))]
        under_way[:] = [m for m in under_way if m is not message]
        return message

    def generate(self, prompt: list[int], count: int) -> list[int]:
        """Greedy continuation of `count` tokens, without end-of-text or context rules."""
        tokens = []
        for position, token in enumerate(prompt[:-1]):
            self.token(token, position, output=False)
        current = prompt[-1]
        for position in range(len(prompt) - 1, len(prompt) - 1 + count):
            current = self.token(current, position)
            tokens.append(current)
        return tokens
