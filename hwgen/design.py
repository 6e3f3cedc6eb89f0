"""Design files: the knobs of a chip, read from strict YAML.

What a user writes is strict (unknown, duplicate and out-of-range keys are refused with file:line); what is derived
cannot be written.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from hwgen.errors import HwgenError, shown
from hwgen.isa import STREAMS
from hwgen.noc.network import FLIT_BITS, ROUTINGS, VIRTUAL_CHANNELS, Network
from hwgen.noc.turns import PORTS

SHARES = ("attention", "ffn", "vocabulary")
MAX_BUFFER_FLITS = 16
MAX_CLASSES = 8
CLOCK_MHZ = (1, 5000)


@dataclass(frozen=True)
class TileClass:
    """Microarchitecture of a set of tiles. Capacities in KiB, None for the smallest that holds what is placed."""

    name: str
    fetch: int = 2
    stations: int = 4
    vlen: int = 32
    lanes: int = 16
    dmem_kib: float | None = None
    imem_kib: float | None = None
    wmem_kib: float | None = None
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Relative share of attention, ffn and vocabulary work, multiplied by VLEN."""


@dataclass(frozen=True)
class Design:
    """A chip: mesh, network and tile classes; `node_class[y * width + x]` is the class of a node."""

    width: int
    height: int
    flit_bits: int = 128
    virtual_channels: int = 1
    buffer_flits: int = 4
    routing: str = "xy"
    multicast: bool = True
    link_registers: int = 0
    """Stages of registers on every link between routers."""
    port_flits: tuple[tuple[str, int], ...] = ()
    """(router port, depth of its buffers) where it is more than `buffer_flits`."""
    pipeline_stages: int = 1
    """Bands of mesh rows that share out the layers; each matrix of a layer is split over one band."""
    streams: int = 1
    """Sequences in flight, each with its own KV cache and position."""
    clock_mhz: float = 500.0
    classes: tuple[TileClass, ...] = (TileClass("tile"),)
    node_class: tuple[int, ...] = field(default=())

    def __post_init__(self):
        if not self.node_class:
            object.__setattr__(self, "node_class", (0,) * (self.width * self.height))

    @property
    def tiles(self) -> int:
        return self.width * self.height

    def tile_class(self, tile: int) -> TileClass:
        return self.classes[self.node_class[tile]]

    @property
    def network(self) -> Network:
        """The network of the chip. Raises HwgenError for a combination of knobs that cannot work."""
        try:
            return Network(self.width, self.height, self.routing, self.virtual_channels, self.multicast,
                           self.buffer_flits, self.flit_bits)
        except ValueError as error:
            raise HwgenError(str(error)) from None


class Rule(NamedTuple):
    """What a knob may be: a test, the rule in words, and the values in order where they can be listed."""

    valid: Callable
    words: str
    values: Sequence | None = None


def _one_of(*allowed):
    # 32.0 equals 32 but is no number of bits
    return Rule(lambda v: v in allowed and isinstance(v, type(allowed[0])) and not isinstance(v, bool),
                _listed([str(a) for a in allowed]), allowed)


def _listed(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def _integer(low, high):
    return Rule(lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high, f"{low} to {high}",
                range(low, high + 1))


def _number(low, high):
    return Rule(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high,
                f"{low} to {high}")


def _capacity():
    return Rule(
        lambda v: v == "auto" or (isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v <= 1 << 20),
        "auto or a number of KiB above 0",
    )


CHIP_RULES = {
    "width": _integer(1, 64),
    "height": _integer(1, 64),
    "flit_bits": _one_of(*FLIT_BITS),
    "virtual_channels": _one_of(*VIRTUAL_CHANNELS),
    "buffer_flits": _integer(2, MAX_BUFFER_FLITS),
    "routing": _one_of(*ROUTINGS),
    "multicast": Rule(lambda v: isinstance(v, bool), "true or false", (False, True)),
    "link_registers": _integer(0, 2),
    "pipeline_stages": _integer(1, 64),
    "streams": _one_of(*STREAMS),
    "clock_mhz": _number(*CLOCK_MHZ),
}
TILE_RULES = {
    "name": Rule(lambda v: isinstance(v, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,31}", v) is not None,
                 "a lower-case word of letters, digits and underscores"),
    "fetch": _one_of(1, 2, 4),
    "stations": _integer(1, 8),
    "vlen": _one_of(8, 16, 32, 64, 128, 256),
    "lanes": _one_of(1, 2, 4, 8, 16),
    "dmem_kib": _capacity(),
    "imem_kib": _capacity(),
    "wmem_kib": _capacity(),
}
"""Knob -> rule; one source for YAML, --set and the explorer."""


def check_knob(rules, key, value, where=""):
    """Raise HwgenError unless `value` obeys the rule of `key`."""
    rule = rules[key]
    if not rule.valid(value):
        raise HwgenError(f"{where}{key} must be {rule.words}, not {shown(value)}")


class _Reader:
    """Walks ruamel's line-annotated mappings and refuses what the rules do not know."""

    def __init__(self, path):
        self.path = path

    def at(self, node, key=None):
        line, column = node.lc.key(key) if key is not None and hasattr(node, "lc") else (node.lc.line, node.lc.col)
        return f"{self.path}:{line + 1}:{column + 1}: "

    def mapping(self, node, allowed, what, parent=None, key=None):
        if not hasattr(node, "items"):
            where = self.at(parent, key) if parent is not None else f"{self.path}: "
            raise HwgenError(f"{where}{what} must be a mapping, not {shown(node)}")
        for name in node:
            if name not in allowed:
                near = difflib.get_close_matches(str(name), allowed, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(allowed))}"
                raise HwgenError(f"{self.at(node, name)}{what} has no key {shown(name)}{hint}")
        return node

    def knobs(self, node, rules):
        found = {}
        for key in node:
            if key in rules:
                check_knob(rules, key, node[key], self.at(node, key))
                found[key] = node[key]
        return found

    def shares(self, tile):
        node = self.mapping(tile["shares"], SHARES, "shares", tile, "shares")
        for key, value in node.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1000:
                raise HwgenError(f"{self.at(node, key)}{key} must be 0 to 1000, not {shown(value)}")
        return tuple(float(node.get(key, 1)) for key in SHARES)

    def port_flits(self, design, least):
        node = self.mapping(design["port_flits"], PORTS, "port_flits", design, "port_flits")
        rule = _integer(least, MAX_BUFFER_FLITS)
        for key, value in node.items():
            check_knob({key: rule}, key, value, self.at(node, key))
        return tuple((port, node[port]) for port in PORTS if node.get(port, least) > least)

    def nodes(self, tile, width, height):
        places = tile["at"] if isinstance(tile["at"], list) else [tile["at"]]
        for place in places:
            match = re.fullmatch(r"(\d+),(\d+)(?:-(\d+),(\d+))?", str(place).replace(" ", ""))
            if not match:
                raise HwgenError(f'{self.at(tile, "at")}at must be "x,y" or "x0,y0-x1,y1", not {shown(place)}')
            x0, y0, x1, y1 = (int(g) if g is not None else None for g in match.groups())
            x1, y1 = (x0, y0) if x1 is None else (x1, y1)
            if not (x0 <= x1 < width and y0 <= y1 < height):
                raise HwgenError(f"{self.at(tile, 'at')}at must lie inside the {width}x{height} mesh, "
                                 f"first corner first, not {shown(place)}")
            yield from (y * width + x for y in range(y0, y1 + 1) for x in range(x0, x1 + 1))


def _classes(reader, node, width, height):
    entries = node["tiles"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CLASSES:
        where = reader.at(node, "tiles")
        raise HwgenError(f"{where}tiles must be a list of 1 to {MAX_CLASSES} classes, not {shown(entries)}")
    classes, owner = [], [None] * (width * height)
    for index, tile in enumerate(entries):
        reader.mapping(tile, {*TILE_RULES, "at", "shares"}, "a tile class", node, "tiles")
        knobs = reader.knobs(tile, TILE_RULES)
        if "name" not in knobs:
            raise HwgenError(f"{reader.at(tile)}a tile class must have a name")
        for key in ("dmem_kib", "imem_kib", "wmem_kib"):
            if knobs.get(key) == "auto":
                knobs[key] = None
        if "shares" in tile:
            knobs["shares"] = reader.shares(tile)
        if knobs["name"] in [c.name for c in classes]:
            where = reader.at(tile, "name")
            raise HwgenError(f"{where}name must differ between tile classes, not {knobs['name']!r} twice")
        classes.append(TileClass(**knobs))
        if "at" not in tile:
            if index:
                raise HwgenError(f"{reader.at(tile)}every tile class but the first must say where it is (key at)")
            continue
        for place in reader.nodes(tile, width, height):
            if owner[place] is not None:
                raise HwgenError(f"{reader.at(tile, 'at')}at must not name node {place % width},{place // width} twice")
            owner[place] = index
    if "at" in entries[0] and None in owner:
        place = owner.index(None)
        raise HwgenError(f"{reader.at(node, 'tiles')}no tile class names node {place % width},{place // width}")
    node_class = tuple(0 if o is None else o for o in owner)
    for index, cls in enumerate(classes):
        if index not in node_class:
            raise HwgenError(f"{reader.at(entries[index])}tile class {cls.name} must have at least one node")
    for share, name in enumerate(SHARES):
        if not any(classes[c].shares[share] > 0 for c in node_class):
            raise HwgenError(f"{reader.at(node, 'tiles')}shares of {name} must be above 0 in at least one tile class")
    return tuple(classes), node_class


def read_design(path) -> Design:
    """The design in YAML file `path`, or the preset of that name: `2x2`.

    Raises HwgenError with file:line:column for anything the rules refuse.
    """
    path = _preset(str(path)) or Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HwgenError(f"{path} must be a readable design file: {reason}") from None
    return parse_design(text, str(path))


def _preset(name: str) -> Path | None:
    """A shipped design file, in an installed package or a checkout; a file of the user's own goes before it."""
    package = Path(__file__).parent
    for folder in (package / "designs", package.parent / "examples/designs"):
        file = folder / f"{name}.yaml"
        if "/" not in name and file.is_file() and not Path(name).exists():
            return file
    return None


def parse_design(text: str, name: str = "design") -> Design:
    """The design in YAML `text`; `name` is used in messages."""
    try:
        node = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        key = re.search(r'duplicate key "?(.+?)"? with', error.problem or "")
        raise HwgenError(f"{name}:{mark.line + 1}:{mark.column + 1}: key {key[1] if key else '?'} must occur once, "
                         "not twice") from None
    except (YAMLError, ValueError) as error:  # a number of more digits than are read is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}: " if mark else f"{name}: "
        raise HwgenError(f"{where}must be YAML: {getattr(error, 'problem', error)}") from None
    reader = _Reader(name)
    if node is None:
        raise HwgenError(f"{name}: a design must be a mapping, not empty")
    reader.mapping(node, {*CHIP_RULES, "port_flits", "tiles"}, "a design")
    knobs = reader.knobs(node, CHIP_RULES)
    for key in ("width", "height"):
        if key not in knobs:
            raise HwgenError(f"{name}: a design must have the key {key}")
    if "tiles" not in node:
        raise HwgenError(f"{name}: a design must have the key tiles")
    if "port_flits" in node:
        knobs["port_flits"] = reader.port_flits(node, knobs.get("buffer_flits", Design.buffer_flits))
    classes, node_class = _classes(reader, node, knobs["width"], knobs["height"])
    design = Design(**knobs, classes=classes, node_class=node_class)
    try:
        design.network  # noqa: B018  refuses knobs that do not go together
    except HwgenError as error:
        where = reader.at(node, "routing") if "routing" in node else f"{name}: "
        raise HwgenError(f"{where}{error}") from None
    return design
