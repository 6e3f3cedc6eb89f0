"""What synthesis must know about a Liberty file besides handing it to Yosys."""

import gzip
import re
import zlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hwgen.errors import HwgenError

AVOIDED = ("*TBUF*", "*CLKBUF*", "*clkbuf*", "*clkinv*", "*clkdly*", "*dly*", "*ebufn*", "*einv*", "*lgcp*", "*lpflow*")
"""Names of cells that are no gates for logic: three-state drivers, clock and delay buffers, clock gates, isolation."""
_CELL = re.compile(r"(?:^|[{};])\s*cell\s*\(\s*\"?([\w.$-]+)\"?\s*\)", re.M)
_AREA = re.compile(r"(?:^|[{;])\s*area\s*:\s*\"?([\d.eE+-]+)", re.M)
_NAND2 = re.compile(r"nand2(?!b|\d)", re.I)
_BUFFER = re.compile(r"(?:^|_)buff?_?x?2(?:_|$)", re.I)


@dataclass(frozen=True)
class Liberty:
    """A standard-cell library.

    `gate_area` is the area of its smallest two-input NAND, one gate equivalent, in the library's unit (um2); `driver`
    is a buffer of drive 2, None where no cell name tells one. `avoided` are the cells that logic is not mapped to.
    """

    name: str
    text: str
    gate_area: float
    driver: str | None
    avoided: tuple[str, ...]


def read_liberty(path: Path) -> Liberty:
    """The library in a .lib or .lib.gz file. Raises HwgenError where it holds no flip-flops or gates to map to."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise HwgenError(f"Liberty must be a readable .lib or .lib.gz file, not {str(path)!r} ({reason})") from None
    areas = _cell_areas(text)
    nands = [area for name, area in areas.items() if _NAND2.search(name) and area > 0]
    if not re.search(r"\blibrary\s*\(", text) or not re.search(r"\bff\s*\(", text) or not nands:
        raise HwgenError(
            f"Liberty must be a library of standard cells with flip-flops and two-input NANDs, not {str(path)!r}")
    avoided = tuple(name for name in sorted(areas) if any(fnmatchcase(name, p) for p in AVOIDED))
    drivers = sorted(name for name in areas if _BUFFER.search(name) and name not in avoided)
    return Liberty(path.name, text, min(nands), drivers[0] if drivers else None, avoided)


def _cell_areas(text: str) -> dict[str, float]:
    """Cell -> area; a cell's own `area` is the first one after its name."""
    found = list(_CELL.finditer(text))
    areas = {}
    for index, match in enumerate(found):
        end = found[index + 1].start() if index + 1 < len(found) else len(text)
        area = _AREA.search(text, match.end(), end)
        areas[match[1]] = float(area[1]) if area else 0.0
    return areas
