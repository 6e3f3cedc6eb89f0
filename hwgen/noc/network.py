"""The network of a chip: its mesh, its classes of channels and the routing relation of each."""

from collections.abc import Callable
from dataclasses import dataclass

from hwgen.noc import routes
from hwgen.noc.routes import HOST

ROUTINGS = ("xy", "yx", "o1turn", "west-first", "odd-even")
VIRTUAL_CHANNELS = (1, 2, 4)
FLIT_BITS = (32, 64, 128, 256, 512)
ROUTE_BITS = 5
"""A bit for each port of the router that a multicast packet comes to next."""
RULES = {"xy": routes.xy, "yx": routes.yx, "west-first": routes.west_first, "odd-even": routes.odd_even}


@dataclass(frozen=True)
class ChannelClass:
    """Virtual channels that some packets share: a packet stays in its class and takes any channel of it at each hop."""

    name: str
    rule: Callable
    """How its unicast packets go (a rule of `hwgen.noc.routes`); multicast packets follow the XY tree."""
    channels: tuple[int, ...]
    unicast: bool = True
    multicast: bool = False

    def __str__(self):
        word = "virtual channel" if len(self.channels) == 1 else "virtual channels"
        return f"class {self.name} ({word} {', '.join(map(str, self.channels))})"


def channel_classes(routing: str, virtual_channels: int, multicast: bool) -> tuple[ChannelClass, ...]:
    """Classes of a network, in order of their channels. Raises ValueError for a combination that cannot work."""
    if routing not in ROUTINGS:
        raise ValueError(f"Routing must be {_listed(ROUTINGS)}, not {routing!r}")
    if virtual_channels not in VIRTUAL_CHANNELS or isinstance(virtual_channels, bool):
        raise ValueError(f"Virtual channels must be {_listed(VIRTUAL_CHANNELS)}, not {virtual_channels!r}")
    if not isinstance(multicast, bool):
        raise ValueError(f"Multicast must be True or False, not {multicast!r}")
    parts = ("xy", "yx") if routing == "o1turn" else (routing,)
    apart = multicast and routing != "xy"  # the XY tree beside another routing in one class would close cycles
    least = next(n for n in VIRTUAL_CHANNELS if n >= len(parts) + apart)
    if virtual_channels < least:
        what = f"{routing} with multicast" if apart else routing
        raise ValueError(f"Routing {what} must have at least {least} virtual channels, not {virtual_channels}")
    ends = [(virtual_channels - apart) * i // len(parts) for i in range(len(parts) + 1)]
    classes = [ChannelClass(name, RULES[name], tuple(range(ends[i], ends[i + 1])), multicast=multicast and not apart)
               for i, name in enumerate(parts)]
    if apart:
        classes.append(ChannelClass("multicast", routes.xy, (virtual_channels - 1,), unicast=False, multicast=True))
    return tuple(classes)


def _listed(values):
    return ", ".join(map(str, values[:-1])) + f" or {values[-1]}"


def bits_for(largest: int) -> int:
    """Width of an unsigned field that holds 0..largest; 0 bits where only zero occurs."""
    return largest.bit_length()


def routing_widths(width: int, height: int, flit_bits: int, buffer_flits: int, multicast: bool) -> dict[str, int]:
    """Bits of the header's fields that routers read, in order. Raises ValueError if they do not fit the first flit."""
    widths = {
        "x0": bits_for(width - 1), "x1": bits_for(width - 1), "y0": bits_for(height - 1), "y1": bits_for(height - 1),
        "host": 1, "flits": bits_for(buffer_flits - 1), "route": ROUTE_BITS if multicast else 0,
    }
    if sum(widths.values()) > flit_bits:
        raise ValueError(f"Flit width must be at least {sum(widths.values())} bits for multicast in a mesh of "
                         f"{width} x {height} with buffers of {buffer_flits} flits, not {flit_bits!r}")
    return widths


@dataclass(frozen=True)
class Network:
    """A mesh of `width` x `height` routers and what they are made of. Raises ValueError with the rule that is broken.

    Packets to HOST go to router (0, 0) and leave by its west port; packets from the host come in there.
    """

    width: int
    height: int
    routing: str = "xy"
    virtual_channels: int = 1
    multicast: bool = True
    buffer_flits: int = 4
    """Depth of the buffer of every input and virtual channel; a multicast packet is never longer."""
    flit_bits: int = 128

    def __post_init__(self):
        for name, value, low, high in (("Mesh width", self.width, 1, 64), ("Mesh height", self.height, 1, 64),
                                       ("Buffer depth", self.buffer_flits, 2, 16)):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {value!r}")
        if self.flit_bits not in FLIT_BITS:
            raise ValueError(f"Flit width must be {_listed(FLIT_BITS)}, not {self.flit_bits!r}")
        channel_classes(self.routing, self.virtual_channels, self.multicast)
        routing_widths(self.width, self.height, self.flit_bits, self.buffer_flits, self.multicast)

    @property
    def classes(self) -> tuple[ChannelClass, ...]:
        """Classes of channels: those of unicast packets first; the last one carries multicast, if there is any."""
        return channel_classes(self.routing, self.virtual_channels, self.multicast)

    def has(self, x: int, y: int) -> bool:
        """Whether there is a router (x, y)."""
        return 0 <= x < self.width and 0 <= y < self.height

    def inputs(self, x: int, y: int) -> tuple[str, ...]:
        """Ports by which packets come to router (x, y): `local`, and the sides where a neighbour or the host is."""
        sides = {"west": x > 0 or y == 0, "east": x < self.width - 1, "north": y > 0, "south": y < self.height - 1}
        return ("local", *(side for side, there in sides.items() if there))

    def outputs(self, channel_class: ChannelClass, x: int, y: int, arrived: str, destination) -> tuple[str, ...]:
        """Outputs that a unicast packet may take at router (x, y), best first; none if it can never be there.

        `arrived` is one of `inputs(x, y)`; `destination` is a node (x, y), then `local` is its last output, or HOST,
        then it is the west port of (0, 0).
        """
        goal_x, goal_y = (0, 0) if destination == HOST else destination
        dx, dy = goal_x - x, goal_y - y
        if arrived == "west" and x == 0:
            if destination == HOST:
                return ()
            arrived = "local"  # from the host: it has not turned yet
        # no route leads past its destination
        if (arrived == "west" and dx < 0) or (arrived == "east" and dx > 0):
            return ()
        if (arrived == "north" and dy < 0) or (arrived == "south" and dy > 0):
            return ()
        if dx or dy:
            return channel_class.rule(x, arrived, dx, dy)
        return ("west",) if destination == HOST else ("local",)
