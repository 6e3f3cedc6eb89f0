"""The design space: the knobs of the generator, and the way between a row of numbers and a `Design`.

A design is a row of D numbers in [0, 1], a knob each. A knob of n values takes equal parts of that range, the first
value the lowest part. Bounds and values are those of `hwgen.design`, so that a knob which the generator gains is in the
space at once, and none is in it that the generator lacks.
"""

from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from explore.arrangement import ARRANGEMENTS, node_classes
from hwgen.design import CHIP_RULES, CLOCK_MHZ, MAX_CLASSES, SHARES, TILE_RULES, Design, TileClass
from hwgen.errors import HwgenError

CHIP_KNOBS = ("width", "height", "flit_bits", "virtual_channels", "buffer_flits", "routing", "multicast",
              "pipeline_stages", "streams")
TILE_KNOBS = ("fetch", "stations", "vlen", "lanes")
CATEGORICAL = ("routing", "multicast", "arrangement")
COLUMNS = float(ARRANGEMENTS.index("columns"))
SHARE_VALUES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of a tile class in the work of an operator class, relative to its VLEN."""
CALIBRATED = {"routing": ("xy",), "virtual_channels": (1,), "flit_bits": (32, 64, 128, 256),
              "pipeline_stages": (1, 2, 4, 8, 16)}
"""Values that the space has where the generator has more: those for which cycles and area are measured, and as many
stages as streams can fill."""
ALONE = {"link_registers": 0, "port_flits": ()}
"""Knobs of the generator that the space leaves alone: no design gains by them."""


@dataclass(frozen=True)
class Knob:
    """One number of a design: `name`, the tile class it belongs to (None: the chip), and its values in order.

    `kind` is ordinal, categorical or continuous; a continuous knob has its bounds as values, and moves in the
    logarithm where `log` is set.
    """

    name: str
    kind: str
    values: tuple
    tile: int | None = None
    log: bool = False

    @property
    def label(self) -> str:
        """`vlen` of the chip's first class is `vlen.0`."""
        return self.name if self.tile is None else f"{self.name}.{self.tile}"


@dataclass(frozen=True)
class Knobs:
    """Values of a batch: [B, 1] for the chip, [B, K] by tile class. `nodes` counts tiles, whole numbers.

    `routing` and `arrangement` are numbers of their lists; `multicast` is 0 or 1; `shares` maps a name of
    `hwgen.design.SHARES` to its tensor. Gradients pass through rounding as if there were none. With several pipeline
    stages every stage has its part of every class.
    """

    width: Tensor
    height: Tensor
    flit_bits: Tensor
    virtual_channels: Tensor
    buffer_flits: Tensor
    routing: Tensor
    multicast: Tensor
    pipeline_stages: Tensor
    streams: Tensor
    clock_mhz: Tensor
    arrangement: Tensor
    nodes: Tensor
    fetch: Tensor
    stations: Tensor
    vlen: Tensor
    lanes: Tensor
    shares: dict[str, Tensor]

    @property
    def tiles(self) -> Tensor:
        """Tiles of the chip [B, 1]."""
        return self.width * self.height


class Space:
    """Designs with up to `classes` tile classes on meshes of up to `side` x `side`; `fixed`: knob label -> value.

    There are at most as many pipeline stages as rows of the mesh. With several, classes take whole columns, so that
    all stages are alike.

    Attributes: `knobs`, in the order of the columns; `ordinal`, `categorical`, `continuous`: their column numbers.
    Raises HwgenError for bounds or a fixed value that the generator refuses.
    """

    def __init__(self, classes: int = 3, *, side: int = 64, fixed: dict | None = None):
        if not 1 <= classes <= MAX_CLASSES:
            raise HwgenError(f"Tile classes must be 1 to {MAX_CLASSES}, not {classes!r}")
        if not CHIP_RULES["width"].valid(side):
            raise HwgenError(f"Side must be {CHIP_RULES['width'].words}, not {side!r}")
        self.classes, self.side = classes, side
        knobs = [*_chip_knobs(side), *(knob for k in range(classes) for knob in _tile_knobs(k))]
        self.knobs = tuple(_fix(knob, fixed or {}) for knob in knobs)
        unknown = set(fixed or {}) - {knob.label for knob in knobs}
        if unknown:
            raise HwgenError(f"A fixed knob must be one of the space's, not {sorted(unknown)[0]!r}")
        self._column = {knob.label: i for i, knob in enumerate(self.knobs)}

    def __len__(self):
        return len(self.knobs)

    def columns(self, kind: str) -> tuple[int, ...]:
        """Column numbers of the knobs of a kind: ordinal, categorical or continuous."""
        return tuple(i for i, knob in enumerate(self.knobs) if knob.kind == kind)

    def random(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` designs, uniform in every knob [count, D]."""
        return torch.rand(count, len(self), dtype=torch.float64, generator=generator)

    def snap(self, designs: Tensor) -> Tensor:
        """The middle of every value's part: equal designs become equal rows. Continuous knobs stay."""
        counts = torch.tensor([0 if k.kind == "continuous" else len(k.values) for k in self.knobs],
                              dtype=designs.dtype, device=designs.device)
        whole = counts.clamp(min=1)
        middle = ((designs * whole).floor().clamp(min=0).minimum(whole - 1) + 0.5) / whole
        return torch.where(counts > 0, middle, designs.clamp(0, 1))

    def values(self, designs: Tensor) -> Knobs:
        """What the rows of `designs` [B, D] stand for, as float64 tensors."""
        designs = designs.double()
        chip = {name: self._value(designs, name)[:, None] for name in (*CHIP_KNOBS, "clock_mhz", "arrangement")}
        tile = {name: torch.stack([self._value(designs, f"{name}.{k}") for k in range(self.classes)], 1)
                for name in ("part", *TILE_KNOBS, *SHARES)}
        stages = self._stages(chip["pipeline_stages"], chip["height"])
        several = stages > 1
        column = torch.where(several, chip["height"], torch.ones_like(chip["height"]))
        nodes = split(chip["width"] * chip["height"] / column, tile.pop("part")) * column
        chip["arrangement"] = torch.where(several, COLUMNS, chip["arrangement"])
        chip["pipeline_stages"] = stages
        shares = {name: _someone(tile.pop(name), nodes) for name in SHARES}
        return Knobs(**chip, **tile, nodes=nodes, shares=shares)

    def _stages(self, stages, height):
        """As many as asked for, or the most of the knob's values that the rows of the mesh allow."""
        known = torch.tensor(self.knobs[self._column["pipeline_stages"]].values, dtype=height.dtype,
                             device=height.device)
        return stages.minimum(known[(known <= height).sum(1, keepdim=True) - 1])

    def _value(self, designs, label):
        knob, x = self.knobs[self._column[label]], designs[:, self._column[label]].clamp(0, 1)
        if knob.kind == "continuous":
            low, high = knob.values
            return low * (x * log(high / low)).exp() if knob.log else low + x * (high - low)
        table = torch.tensor([float(i if isinstance(v, str) else v) for i, v in enumerate(knob.values)],
                             dtype=x.dtype, device=x.device)
        at = (x * len(table) - 0.5).clamp(0, len(table) - 1)
        whole = (x * len(table)).floor().long().clamp(max=len(table) - 1)
        exact = table[whole]
        if not x.requires_grad:
            return exact
        low = at.detach().floor().long().clamp(max=max(0, len(table) - 2))
        slope = table[(low + 1).clamp(max=len(table) - 1)] - table[low]
        return exact + (at - at.detach()) * slope

    def decode(self, row: Tensor) -> Design:
        """The design of one row [D]. Classes without a tile are left out."""
        knobs = self.values(row.detach()[None])
        width, height = int(knobs.width), int(knobs.height)
        counts = [int(n) for n in knobs.nodes[0]]
        present = [k for k, count in enumerate(counts) if count]
        classes = tuple(self._tile_class(knobs, k, f"t{i}") for i, k in enumerate(present))
        return Design(
            width, height, flit_bits=int(knobs.flit_bits), virtual_channels=int(knobs.virtual_channels),
            buffer_flits=int(knobs.buffer_flits), routing=CHIP_RULES["routing"].values[int(knobs.routing)],
            multicast=bool(knobs.multicast), pipeline_stages=int(knobs.pipeline_stages), streams=int(knobs.streams),
            clock_mhz=float(f"{float(knobs.clock_mhz):.6g}"), classes=classes,
            node_class=node_classes(width, height, [counts[k] for k in present],
                                    ARRANGEMENTS[int(knobs.arrangement)]))

    def _tile_class(self, knobs, k, name):
        return TileClass(name, **{key: int(getattr(knobs, key)[0, k]) for key in TILE_KNOBS},
                         shares=tuple(float(knobs.shares[share][0, k]) for share in SHARES))

    def encode(self, design: Design) -> Tensor:
        """The row [D] of a design. Raises HwgenError for one outside the space."""
        if len(design.classes) > self.classes:
            raise HwgenError(f"Tile classes must be at most {self.classes} in this space, not {len(design.classes)}")
        for name, value in ALONE.items():
            if getattr(design, name) != value:
                raise HwgenError(f"{name} must be {value!r} in a space, not {getattr(design, name)!r}")
        counts = [design.node_class.count(k) for k in range(len(design.classes))]
        found = [name for name in ARRANGEMENTS
                 if node_classes(design.width, design.height, counts, name) == design.node_class]
        if not found:
            raise HwgenError(f"Tile classes must lie in an order of {', '.join(ARRANGEMENTS)}, not as in this design")
        if design.pipeline_stages > 1 and ("columns" not in found or any(n % design.height for n in counts)):
            raise HwgenError("Tile classes must take whole columns where there are pipeline stages, "
                             "not as in this design")
        at = {name: getattr(design, name) for name in (*CHIP_KNOBS, "clock_mhz")} | {"arrangement": found[0]}
        for k in range(self.classes):
            cls = design.classes[min(k, len(design.classes) - 1)]
            at |= {f"{name}.{k}": getattr(cls, name) for name in TILE_KNOBS}
            at |= {f"{name}.{k}": share for name, share in zip(SHARES, cls.shares, strict=True)}
            at[f"part.{k}"] = counts[k] / design.tiles if k < len(counts) else 0.0
        return torch.tensor([_place(knob, at[knob.label]) for knob in self.knobs], dtype=torch.float64)


def knobs_of(design: Design) -> Knobs:
    """The values of one design [1, ...], wherever its classes lie (the arrangement counts as the first)."""
    def column(values):
        return torch.tensor([[float(v) for v in values]], dtype=torch.float64)

    chip = {name: column([getattr(design, name)]) for name in (*CHIP_KNOBS, "clock_mhz") if name != "routing"}
    tile = {name: column([getattr(cls, name) for cls in design.classes]) for name in TILE_KNOBS}
    return Knobs(
        **chip, **tile, routing=column([CHIP_RULES["routing"].values.index(design.routing)]),
        arrangement=column([COLUMNS if design.pipeline_stages > 1 else 0]),
        nodes=column([design.node_class.count(k) for k in range(len(design.classes))]),
        shares={name: column([cls.shares[i] for cls in design.classes]) for i, name in enumerate(SHARES)})


def split(count: Tensor, weights: Tensor) -> Tensor:
    """Whole parts [B, K] of `count` [B, 1] in proportion to `weights` [B, K], as `hwgen.compiler.place.split` cuts.

    Where no weight is above 0 the first part takes all.
    """
    total = weights.sum(1, keepdim=True)
    first = torch.zeros_like(weights)
    first[:, 0] = 1
    share = torch.where(total > 0, weights / total.clamp(min=1e-300), first)
    edges = count * share.cumsum(1)
    edges = edges + (edges.round() - edges).detach()
    return torch.cat([edges[:, :1], edges.diff(dim=1)], 1)


def _someone(shares: Tensor, nodes: Tensor) -> Tensor:
    """The shares [B, K] in an operator class; equal where no tile has any, for all work has to be done."""
    return torch.where(((shares > 0) & (nodes > 0)).any(1, keepdim=True), shares, torch.ones_like(shares))


def _chip_knobs(side):
    for name in CHIP_KNOBS:
        values = CALIBRATED.get(name, tuple(CHIP_RULES[name].values))
        if name in ("width", "height"):
            values = tuple(v for v in values if v <= side)
        yield Knob(name, "categorical" if name in CATEGORICAL else "ordinal", values)
    yield Knob("clock_mhz", "continuous", CLOCK_MHZ, log=True)
    yield Knob("arrangement", "categorical", ARRANGEMENTS)


def _tile_knobs(k):
    yield Knob("part", "continuous", (0.0, 1.0), k)
    for name in TILE_KNOBS:
        yield Knob(name, "ordinal", tuple(TILE_RULES[name].values), k)
    for name in SHARES:
        yield Knob(name, "ordinal", SHARE_VALUES, k)


def _fix(knob, fixed):
    if knob.label not in fixed:
        return knob
    value = fixed[knob.label]
    if knob.kind == "continuous" and not knob.values[0] <= value <= knob.values[1] or (
            knob.kind != "continuous" and value not in knob.values):
        raise HwgenError(f"{knob.label} must be one of the knob's values, not {value!r}")
    return replace(knob, kind="ordinal", values=(value,))


def _place(knob, value):
    """The number in [0, 1] that stands for a value."""
    if knob.kind == "continuous":
        low, high = knob.values
        if not low <= value <= high:
            raise HwgenError(f"{knob.label} must be {low} to {high}, not {value!r}")
        return log(value / low) / log(high / low) if knob.log else (value - low) / (high - low)
    if value not in knob.values:
        raise HwgenError(f"{knob.label} must be one of {', '.join(map(str, knob.values))}, not {value!r}")
    return (knob.values.index(value) + 0.5) / len(knob.values)
