"""Rounding that gradients pass through unchanged, and sums over tile classes."""

from torch import Tensor


def ceil(x: Tensor) -> Tensor:
    """Smallest whole number from x on; its gradient is taken as that of x. Quotients a hair above one count as it."""
    return x + ((x - 1e-9).ceil() - x).detach()


def words(length, width: Tensor) -> Tensor:
    """ceil(length / width)."""
    return ceil(length / width)
