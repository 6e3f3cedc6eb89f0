"""Balanced trees over bits and numbers."""

from amaranth.hdl import Cat, Const, Mux, Value


def tree(function, values):
    """`function` folded over `values` with logarithmic depth; earlier values stay on the left."""
    values = list(values)
    while len(values) > 1:
        pairs = [function(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1 :]
    return values[0]


def or_tree(values) -> Value:
    return tree(lambda a, b: a | b, values)


def maximum_tree(values) -> Value:
    return tree(lambda a, b: Mux(b > a, b, a), values)


def bit_length(value: Value) -> Value:
    """Number of bits up to the highest one: 0 for 0."""
    width = 1 << max(0, (len(value) - 1).bit_length())
    return _bit_length(Cat(value, Const(0, width - len(value))) if width > len(value) else value)


def _bit_length(value):
    if len(value) == 1:
        return value
    half = len(value) // 2
    low, high = value[:half], value[half:]
    return Mux(high.any(), half + _bit_length(high), _bit_length(low))
