"""The program of one token in outline: its instructions, how many may run side by side, and their hazards.

One tile, the phases of ARCHITECTURE.md section 8, buffers by name. It serves as a feature of a workload; the compiler
counts the instructions of a real chip.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgramShape:
    """Counts for one token. Hazards are pairs: a read after the last write, a write after reads or after a write."""

    instructions: int
    matrix_instructions: int
    depth: int
    """Instructions on the longest chain of read-after-write."""
    raw: int
    war: int
    waw: int

    @property
    def parallelism(self) -> float:
        """Instructions that may run side by side, on average."""
        return self.instructions / self.depth

    @property
    def matrix_share(self) -> float:
        """Share of matrix instructions."""
        return self.matrix_instructions / self.instructions


def _attention(heads, kv_heads):
    """(unit, written, read) of an attention phase; two sets of score buffers, as the compiler overlaps heads."""
    steps = []
    for kv in range(kv_heads):
        steps += [("V", f"keys{kv}", ("qkv", "rope")), ("V", f"values{kv}", ("qkv",))]
    for head in range(heads):
        kv, slot = head * kv_heads // heads, head % 2
        steps += [("V", f"q{head}", ("qkv", "rope")), ("M", f"score{slot}", (f"q{head}", f"keys{kv}")),
                  ("V", f"max{slot}", (f"score{slot}",)), ("V", f"p{slot}", (f"score{slot}", f"max{slot}")),
                  ("M", f"pv{slot}", (f"p{slot}", f"values{kv}")), ("V", "heads", (f"pv{slot}", f"p{slot}"))]
    return steps


def _norm(target):
    return [("V", "exponent", ("x",)), ("V", "scale", ("x", "exponent")), ("V", target, ("x", "scale"))]


def _layer(heads, kv_heads):
    return [*_norm("y"), ("M", "qkv", ("y",)), *_attention(heads, kv_heads),
            ("V", "operand", ("heads",)), ("M", "product", ("operand",)), ("V", "x", ("x", "product")),
            *_norm("y"), ("M", "gate", ("y",)), ("M", "up", ("y",)), ("V", "silu", ("gate",)),
            ("V", "h", ("silu", "up")), ("M", "product", ("h",)), ("V", "x", ("x", "product"))]


def program_shape(layers: int, heads: int, kv_heads: int) -> ProgramShape:
    """The outline of a token of a model with `layers` layers. Layers after the second repeat the second's hazards."""
    steps = [[("M", "x", ("token",)), ("M", "rope", ("position",))], *[_layer(heads, kv_heads)] * min(layers, 3)]
    written, depth, readers, total, layer = {}, {}, {}, [0] * 5, [0] * 5
    longest = growth = 0
    for block in steps:
        layer, before = [0] * 5, longest
        for unit, target, sources in block:
            known = [s for s in sources if s in written]
            hazards = len(known), len(readers.get(target, ())), target in written
            level = 1 + max((depth[s] for s in known), default=0)
            for source in known:
                readers.setdefault(source, set()).add((target, sum(layer)))
            readers[target] = set()
            written[target], depth[target] = True, level
            layer = [a + b for a, b in zip(layer, (1, unit == "M", *hazards), strict=True)]
            longest = max(longest, level)
        growth = longest - before
        total = [a + b for a, b in zip(total, layer, strict=True)]
    more = layers - min(layers, 3)
    final = (5, 1, 6, 0, 0)  # norm, head and greedy pick
    counts = [t + more * step + end for t, step, end in zip(total, layer, final, strict=True)]
    return ProgramShape(counts[0], counts[1], longest + more * growth + 5, *counts[2:])
