# amaranth: UnusedElaboratable=no
"""Packets for a mesh of routers, and the check that each arrives whole, once, where it must and in order."""

import random

from router_mesh import HOST, End, bench

from hwgen.noc.network import channel_classes
from hwgen.rtl.packet import routing_fields


class Traffic:
    """Packets for a mesh and what must arrive where. A tag above the routing fields names each packet."""

    def __init__(self, *, width, height, flit_bits=64, buffer_flits=4, multicast=True, virtual_channels=1,
                 routing="xy", port_flits=(), fitted=False, simulator="amaranth", seed=0, **pattern):
        self.width, self.height, self.depth, self.flit_bits = width, height, buffer_flits, flit_bits
        self.bench = bench(
            width=width, height=height, flit_bits=flit_bits, buffer_flits=buffer_flits, multicast=multicast,
            virtual_channels=virtual_channels, routing=routing, port_flits=port_flits, fitted=fitted,
            simulator=simulator,
        )
        self.classes = channel_classes(routing, virtual_channels, multicast)
        self.ordered = routing not in ("west-first", "odd-even") and virtual_channels in (1, len(self.classes))
        self.mesh = self.bench.mesh
        self.chance = random.Random(seed)
        self.ends = {end: End(buffer_flits, self.chance, channels=virtual_channels, **pattern)
                     for end in self.mesh.ends}
        self.fields = routing_fields(width=width, height=height, flit_bits=flit_bits, buffer_flits=buffer_flits,
                                     multicast=multicast)
        self.tag_at = sum(bits for _, bits in self.fields.values())
        self.packets, self.expected, self.order = [], dict.fromkeys(self.mesh.ends, 0), {}

    def add(self, source, rectangle, flits):
        """Queue a packet of `flits` flits from an end to (x0, y0, x1, y1), or to HOST."""
        x0, y0, x1, y1 = (0, 0, 0, 0) if rectangle == HOST else rectangle
        several = (x0, y0) != (x1, y1)
        values = {"x0": x0, "x1": x1, "y0": y0, "y1": y1, "host": int(rectangle == HOST),
                  "flits": flits - 1 if several else 0, "route": 0}
        head = len(self.packets) << self.tag_at
        head |= sum(values[name] << at for name, (at, _) in self.fields.items())
        assert head < 1 << self.flit_bits
        body = [head, *(self.chance.getrandbits(self.flit_bits) for _ in range(flits - 1))]
        targets = [HOST] if rectangle == HOST else [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]
        able = [c for c in self.classes if (c.multicast if several else c.unicast)]
        channels = able[len(self.packets) % len(able)].channels
        self.packets.append((source, set(targets), body, channels))
        for target in targets:
            self.expected[target] += flits
        self.ends[source].queue.extend((flit, int(i == flits - 1), channels) for i, flit in enumerate(body))

    def run(self, cycles):
        """Run until all has arrived, check every packet, and return the cycles used."""
        used = self.bench.run(self.ends, cycles=cycles, until=self.expected)
        left = {end: self.expected[end] - len(self.ends[end].got) for end in self.ends}
        assert not any(left.values()), f"flits missing after {cycles} cycles: {left}"
        for end, state in self.ends.items():
            self._check(end, state)
        return used

    def _check(self, end, state):
        newest, bodies, seen = {}, {}, set()
        for (_, flit, last), channel in zip(state.got, state.came, strict=True):
            body = bodies.setdefault(channel, [])
            body.append(flit)
            if not last:
                continue
            tag = body[0] >> self.tag_at
            source, targets, sent, channels = self.packets[tag]
            assert body == sent, f"packet {tag} from {source} arrived broken at {end}"
            assert end in targets and tag not in seen, f"packet {tag} came to {end}, not once to {targets}"
            assert channel in channels, f"packet {tag} left its channels {channels}"
            if self.ordered:
                assert newest.get((source, channels), -1) < tag, f"packet {tag} from {source} came late at {end}"
            newest[source, channels] = tag
            seen.add(tag)
            del bodies[channel]
        assert not bodies, f"the last packet at {end} has no end"

    def add_random(self, packets, *, longest, several):
        """Queue packets between random ends; `several` is the share of multicasts."""
        for _ in range(packets):
            source = self.chance.choice(list(self.ends))
            if self.chance.random() < several:
                x0, x1 = sorted(self.chance.randrange(self.width) for _ in range(2))
                y0, y1 = sorted(self.chance.randrange(self.height) for _ in range(2))
                size = self.depth if (x0, y0) != (x1, y1) else longest
                self.add(source, (x0, y0, x1, y1), self.chance.randint(1, size))
            elif source != HOST and self.chance.random() < 0.1:
                self.add(source, HOST, self.chance.randint(1, longest))
            else:
                x, y = self.chance.randrange(self.width), self.chance.randrange(self.height)
                self.add(source, (x, y, x, y), self.chance.randint(1, longest))
