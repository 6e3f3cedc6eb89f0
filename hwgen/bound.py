"""The least cycles that a token's matrix products take, were every matrix unit busy in every cycle."""

from hwgen.compiler.words import vector_words


class MatrixBound:
    """Sum over all matrix products of rows * ceil(K / VLEN), divided by the number of tiles of a chip.

    VLEN is that of the tile a row is placed on. Attention heads that move from tile to tile between layers count with
    the mean of their tiles. Biases are not counted.
    """

    def __init__(self, manifest: dict):
        self._model, self._tiles = manifest["model"], len(manifest["tiles"])
        vlen = {c["name"]: c["vlen"] for c in manifest["classes"]}
        hidden, ffn, out = self._model["hidden"], self._model["ffn"], self._model["heads"] * self._model["head_dim"]
        self._layers = self._head = 0
        owners = [[] for _ in range(self._model["heads"])]
        for tile in manifest["tiles"]:
            width = vlen[tile["class"]]
            rows = {name: stop - start for name, (start, stop) in tile["rows"].items()}
            work = (rows["qkv"] + 2 * rows["ffn"]) * vector_words(hidden, width)
            work += rows["hidden"] * (vector_words(out, width) + vector_words(ffn, width))
            first, stop = tile["layers"]
            self._layers += (stop - first) * work
            self._head += rows["vocabulary"] * vector_words(hidden, width)
            for head in tile["heads"]:
                owners[head].append(width)
        self._heads = [(width, 1 / len(widths)) for widths in owners for width in widths]

    def token(self, position: int, *, output: bool = True) -> float:
        """Cycles of one token at `position` (from 0); `output`: with the head, needed where a successor is wanted."""
        d, seen = self._model["head_dim"], position + 1
        # scores take one row a position, the weighted sum of values one row a channel
        cycles = {w: seen * vector_words(d, w) + d * vector_words(seen, w) for w in {w for w, _ in self._heads}}
        attention = sum(cycles[width] * part for width, part in self._heads)
        return (self._layers + self._model["layers"] * attention + (self._head if output else 0)) / self._tiles

    def run(self, prompts: list[int], tokens: list[int]) -> list[float]:
        """Cycles of every step with output, with those before it that have none.

        `prompts` and `tokens`: lengths of each stream's prompt and output; a stream without either rests.
        """
        streams = [(prompt, count) for prompt, count in zip(prompts, tokens, strict=True) if prompt and count]
        steps, waiting = [], 0.0
        for position in range(max((prompt + count - 1 for prompt, count in streams), default=0)):
            here = [prompt for prompt, count in streams if position < prompt + count - 1]
            waiting += sum(self.token(position, output=position >= prompt - 1) for prompt in here)
            if any(position >= prompt - 1 for prompt in here):
                steps.append(waiting)
                waiting = 0.0
        return steps
