"""Figures as people read them, the same in the terminal and in reports: 5.655 mW, 86,196 tokens/s, 0.1359 mm2."""

from decimal import ROUND_CEILING, Context, Decimal
from math import floor, log10

_PREFIXES = ("", "m", "µ", "n", "p")
_SCALED = ("W", "s", "J")


def plain(value: float, digits: int = 4) -> str:
    """A number without a unit, of `digits` digits or all of its whole ones: 86,196 or 0.2533."""
    rounded = float(f"{value:.{digits}g}")
    return f"{value:,.0f}" if 1000 <= abs(rounded) < 1e9 else f"{value:.{digits}g}"


def amount(value: float, unit: str, digits: int = 4) -> str:
    """A number with its unit; W, s and J, and USD below a thousandth, take the prefix that leaves 1 to 999.

    Less than a thousandth of a mm2 is given in µm2.
    """
    if unit in ("mm2", "mm²") and 0 < value < 1e-3:
        return f"{plain(value * 1e6, digits)} µ{unit[1:]}"
    scale = _thousandths(value, unit, digits)
    return f"{plain(value * 1000**scale, digits)} {_PREFIXES[scale]}{unit}"


def column(values: list[float], unit: str, digits: int = 4) -> tuple[str, list[str]]:
    """(the unit with the prefix that suits the largest, the numbers in it): for a column of a table."""
    scale = _thousandths(max(values), unit, digits)
    return _PREFIXES[scale] + unit, [plain(value * 1000**scale, digits) for value in values]


def _thousandths(value: float, unit: str, digits: int = 4) -> int:
    """How often `value` is to be multiplied by 1000, 0 to 4."""
    size = abs(float(f"{value:.{digits}g}"))
    if size in (0, float("inf")) or not (unit in _SCALED or (unit.startswith("USD") and size < 1e-3)):
        return 0
    return min(max(0, -floor(log10(size) / 3)), len(_PREFIXES) - 1)


def rounded_up(value: float, digits: int = 4) -> float:
    """The least number of so many digits that is not below `value`."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(value)))
