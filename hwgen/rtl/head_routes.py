"""Outputs that a packet's first flit asks for: the rules of `hwgen.noc.routes` as logic."""

from amaranth.hdl import Cat, Const, Mux

from hwgen.noc import routes
from hwgen.noc.turns import PORTS


class HeadRoutes:
    """What a router sees in the first flit at one of its inputs: where the destination lies.

    Parameters: `flit`; `fields`, see `routing_fields`; `my_x`, `my_y` of the router; `port`, the input; `host`, whether
    the router may be (0, 0): then packets from the host come in by its west port and those to it leave there.
    """

    def __init__(self, flit, fields, my_x, my_y, port, host):
        self._flit, self._fields, self._port, self._host = flit, fields, port, host
        self._my_x, self._my_y = my_x, my_y

    def length(self):
        """Flits of a multicast packet - 1, 0 for unicast."""
        return self._field("flits")

    def outputs(self, channel_class, prefer) -> dict:
        """Output -> whether the packet takes it; `prefer(a, b)`: whether a router that may choose takes b, not a.

        Outputs that the packet can never take may be there, too. A multicast class also carries unicast, as trees of
        one node; its packets bring along what the router before found (`onward`), or this one as they came (`first`).
        """
        if channel_class.multicast:
            return self._to_host(dict(zip(PORTS, self.route(), strict=True)))
        rules = {routes.xy: self._xy, routes.yx: self._yx, routes.west_first: self._west_first,
                 routes.odd_even: self._odd_even}
        return self._to_host(rules[channel_class.rule](prefer))

    def _field(self, name):
        at, bits = self._fields[name]
        return self._flit[at:at + bits] if bits else Const(0, 1)

    def _ways(self):
        """Whether the destination lies to the east, west, north, south; never behind, where the packet is from."""
        x, y = self._field("x0"), self._field("y0")
        beyond = {"east": (x > self._my_x, x != self._my_x), "west": (x < self._my_x, x != self._my_x),
                  "north": (y < self._my_y, y != self._my_y), "south": (y > self._my_y, y != self._my_y)}
        return [Const(0) if self._port == way else beyond[way][self._port == routes.OPPOSITE[way]] for way in beyond]

    def _to_host(self, outputs):
        """A packet to the host goes to node (0, 0) and leaves by the west port there."""
        if self._host and self._port != "north":
            host = self._field("host")
            outputs["west"] = outputs.get("west", Const(0)) | (outputs["local"] & host)
            outputs["local"] = outputs["local"] & ~host
        return outputs

    def _xy(self, prefer):
        east, west, north, south = self._ways()
        if self._port in routes.ALONG_COLUMN:
            return {"north": north, "south": south, "local": ~north & ~south}
        turn = ~east & ~west
        return {"east": east, "west": west, "north": turn & north, "south": turn & south,
                "local": turn & ~north & ~south}

    def _yx(self, prefer):
        east, west, north, south = self._ways()
        if self._port == "east" or (self._port == "west" and not self._host):
            return {"east": east, "west": west, "local": ~east & ~west}
        turn = ~north & ~south
        return {"north": north, "south": south, "east": turn & east, "west": turn & west,
                "local": turn & ~east & ~west}

    def _west_first(self, prefer):
        east, west, north, south = self._ways()
        if self._port in routes.ALONG_COLUMN:
            west = Const(0)
        chosen = self._choose(east, Const(0), ~west & north, ~west & south, prefer)
        return chosen | {"west": west, "local": ~east & ~west & ~north & ~south}

    def _odd_even(self, prefer):
        east, west, north, south = self._ways()
        odd = self._my_x[0]
        turned = ~odd & (self._my_x.any() if self._host else Const(1)) if self._port == "west" else Const(0)
        column = ~(odd & west) & ~turned
        # in the next column, its last and an even one, it could not leave the row
        last_turn = odd & (self._field("x0") == self._my_x + 1) & (north | south)
        chosen = self._choose(east & ~last_turn, west, column & north, column & south, prefer)
        return chosen | {"local": ~east & ~west & ~north & ~south}

    def _choose(self, east, west, north, south, prefer):
        """One of the outputs that are permitted, of which one at most is in each pair."""
        row = {"east": east, "west": west}
        column = {"north": north, "south": south}
        to_column = {(r, c): row[r] & column[c] & prefer(r, c) for r in row for c in column}
        chosen = {r: row[r] & ~(to_column[r, "north"] | to_column[r, "south"]) for r in row}
        return chosen | {c: column[c] & (~(row["east"] | row["west"]) | to_column["east", c] | to_column["west", c])
                         for c in column}

    def route(self):
        """The field `route`: outputs, in the order of PORTS."""
        return self._field("route")

    def first(self):
        """The field `route` of a packet that enters the network at this router's input."""
        return self._tree(self._port, self._my_x, self._my_y)

    def onward(self, output):
        """The field `route` for the router behind an output; 0 where the packet leaves the network."""
        if output == "local":
            return Const(0, len(PORTS))
        dx, dy = routes.DIRECTIONS[output]
        x, y = ((place + step)[:len(place)] for place, step in ((self._my_x, dx), (self._my_y, dy)))
        route = self._tree(routes.OPPOSITE[output], x, y)
        return Mux(self._my_x.any(), route, 0) if output == "west" and self._host else route

    def _tree(self, port, x, y):
        """Outputs of a packet that comes into router (x, y) by a port, as `hwgen.noc.routes.branches` has them."""
        x0, x1, y0, y1 = (self._field(name) for name in ("x0", "x1", "y0", "y1"))
        begun_x, begun_y, left_x, left_y = (x0 <= x, y0 <= y, x1 >= x, y1 >= y)
        # the rectangle never lies wholly behind, where the packet is from
        if port == "north":
            outputs = {"local": begun_y, "south": y1 != y}
        elif port == "south":
            outputs = {"local": left_y, "north": y0 != y}
        else:
            inside = {"east": left_x, "west": begun_x, "local": begun_x & left_x}[port]
            outputs = {
                "local": inside & begun_y & left_y, "north": inside & (y0 < y), "south": inside & (y1 > y),
                "east": {"west": x1 != x, "local": x1 > x}.get(port, Const(0)),
                "west": {"east": x0 != x, "local": x0 < x}.get(port, Const(0)),
            }
        return Cat(outputs.get(output, Const(0)) for output in PORTS)
