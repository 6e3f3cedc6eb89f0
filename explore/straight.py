"""Rounding that gradients pass through unchanged."""

from collections.abc import Callable

from torch import Tensor


def ceil(x: Tensor) -> Tensor:
    """Smallest whole number from x on; its gradient is taken as that of x. Quotients a hair above one count as it."""
    return x + ((x - 1e-9).ceil() - x).detach()


def words(length, width: Tensor) -> Tensor:
    """ceil(length / width)."""
    return ceil(length / width)


def neighbours(mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows of the fuller tiles, of the others, share of the fuller) where tiles have `mean` rows on average."""
    most = ceil(mean)
    least = (most - 1).clamp(min=0)
    return most, least, (mean - least).detach()


def mixed(mean: Tensor, figure: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of `figure` over tiles that have `mean` rows on average, each a whole number next to it; 0 rows give 0."""
    most, least, share = neighbours(mean)
    return share * figure(most) + (1 - share) * figure(least)
