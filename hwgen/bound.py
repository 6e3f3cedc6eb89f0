"""The least cycles that a token's matrix products take, were every matrix unit busy in every cycle."""

from hwgen.compiler.words import vector_words


def matrix_cycles(manifest: dict, position: int, *, output: bool = True) -> float:
    """Sum over all matrix products of rows * ceil(K / VLEN) at `position` (from 0), over all tiles of the chip.

    VLEN is that of the tile a row is placed on. `output`: with the product of the head, which a token has whose
    successor is wanted. Attention heads that move from tile to tile between layers count with their mean. Biases
    are not counted.
    """
    model = manifest["model"]
    vlen = {c["name"]: c["vlen"] for c in manifest["classes"]}
    layer = head = 0
    for tile in manifest["tiles"]:
        width = vlen[tile["class"]]
        rows = {name: stop - start for name, (start, stop) in tile["rows"].items()}

        def words(length, width=width):
            return vector_words(length, width)

        layer += rows["qkv"] * words(model["hidden"]) + 2 * rows["ffn"] * words(model["hidden"])
        layer += rows["hidden"] * (words(model["heads"] * model["head_dim"]) + words(model["ffn"]))
        head += rows["vocabulary"] * words(model["hidden"])
    attention = sum(_head_cycles(model["head_dim"], position, widths) for widths in _owners(manifest, vlen))
    return model["layers"] * (layer + attention) + (head if output else 0)


def _owners(manifest, vlen):
    """VLEN of the tiles that own a head in some layer, for every head."""
    owners = [[] for _ in range(manifest["model"]["heads"])]
    for tile in manifest["tiles"]:
        for head in tile["heads"]:
            owners[head].append(vlen[tile["class"]])
    return owners


def _head_cycles(head_dim, position, widths):
    """Scores (one row a position) and the weighted sum of values (one row a channel)."""
    cycles = [(position + 1) * vector_words(head_dim, w) + head_dim * vector_words(position + 1, w) for w in widths]
    return sum(cycles) / len(cycles)


def token_bound(manifest: dict, position: int, *, output: bool = True) -> float:
    """`matrix_cycles` divided by the number of tiles: no token can take fewer cycles on this mesh."""
    return matrix_cycles(manifest, position, output=output) / len(manifest["tiles"])


def run_bounds(manifest: dict, prompt: int, tokens: int) -> list[float]:
    """Bound of every output token of a run; the first covers all `prompt` tokens before it."""
    first = sum(token_bound(manifest, p, output=p == prompt - 1) for p in range(prompt))
    return [first] + [token_bound(manifest, prompt - 1 + i) for i in range(1, tokens)]
