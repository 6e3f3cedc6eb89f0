"""Layout of a message on the network: the one place that knows which header bit means what."""

from collections.abc import Sequence

from hwgen.isa import KIND_BITS, STREAMS, VMEM_BITS, counter_numbers
from hwgen.noc.gather import MAX_UNICAST_FLITS, multicast_flits
from hwgen.noc.network import FLIT_BITS, VIRTUAL_CHANNELS, bits_for, channel_classes, routing_widths

MAX_HOST_WORDS = 64
"""Words of a message to the host, which is always one packet: messages of several packets could mix."""


def check_flit_bits(flit_bits: int) -> None:
    """Raise ValueError unless a flit may have this many bits."""
    if flit_bits not in FLIT_BITS:
        raise ValueError(f"Flit width must be {', '.join(map(str, FLIT_BITS[:-1]))} or {FLIT_BITS[-1]}, "
                         f"not {flit_bits!r}")


def check_virtual_channels(virtual_channels: int) -> None:
    """Raise ValueError unless a link may have this many virtual channels."""
    if virtual_channels not in VIRTUAL_CHANNELS or isinstance(virtual_channels, bool):
        raise ValueError(f"Virtual channels must be 1, 2 or 4, not {virtual_channels!r}")


def check_buffer_flits(buffer_flits: int) -> None:
    """Raise ValueError unless a buffer may have this many flits."""
    if not isinstance(buffer_flits, int) or not 2 <= buffer_flits <= 16:
        raise ValueError(f"Buffer depth must be 2 to 16 flits, not {buffer_flits!r}")


def check_streams(streams: int) -> None:
    """Raise ValueError unless a chip may have this many streams in flight."""
    if streams not in STREAMS or isinstance(streams, bool):
        raise ValueError(f"Streams must be 1, 2, 4 or 8, not {streams!r}")


def check_lanes(lanes: int) -> None:
    """Raise ValueError unless a row of vector memory may have this many words."""
    if lanes not in (1, 2, 4, 8, 16):
        raise ValueError(f"Lanes must be 1, 2, 4, 8 or 16, not {lanes!r}")


def row_bits(lanes: int, address_bits: int) -> int:
    """Bits of a row's address in vector memory. Raises ValueError if there is not even one row's worth."""
    check_lanes(lanes)
    least = lanes.bit_length()
    if address_bits < least:
        raise ValueError(f"Address width must be at least {least} bits with {lanes} lanes, not {address_bits!r}")
    return address_bits - least + 1


def check_mesh(width: int, height: int) -> None:
    """Raise ValueError unless a mesh may have this many columns and rows."""
    for name, value in (("width", width), ("height", height)):
        if not isinstance(value, int) or not 1 <= value <= 64:
            raise ValueError(f"Mesh {name} must be 1 to 64, not {value!r}")


def routing_fields(*, width: int, height: int, flit_bits: int, buffer_flits: int,
                   multicast: bool) -> dict[str, tuple[int, int]]:
    """Name -> (least significant bit, width) of the fields routers read. Raises ValueError if a flit is too narrow."""
    return _place(routing_widths(width, height, flit_bits, buffer_flits, multicast), 0)


def _place(widths: dict[str, int], at: int) -> dict[str, tuple[int, int]]:
    fields = {}
    for name, width in widths.items():
        fields[name] = (at, width)
        at += width
    return fields


class PacketFormat:
    """Header and payload of packets: a header of `header_flits` flits, then payload flits of `words_per_flit` words.

    Parameters: mesh `width` x `height` (nodes), `flit_bits`, `buffer_flits` (depth of every input buffer),
    `address_bits` (of a word address in a tile's vector memory), `multicast` (whether packets to several nodes occur),
    `virtual_channels` and `routing` (they decide which channels a packet may use), `streams` in flight.

    Attributes
    ----------
    fields : name -> (least significant bit, width) in the header, counted from bit 0 of its first flit.
        x0, x1, y0, y1: destination rectangle, inclusive (a packet to the host: all zero); host: leaves by the west
        port of (0, 0); flits: flits of the whole packet - 1 for a multicast, else 0; route: 0, for the routers, a bit
        for each port; ctr: arrival counter;
        last: words in the last flit - 1; addr: first word's address, or the kind of a message to the host.
    header_flits : 1, or 2 where the fields do not fit one flit.
    max_multicast_words, max_unicast_words, max_host_words : payload limits of one packet, in words of 32 bits.
    multicast_flits : payload flits of the multicast packets that tiles send (0 without multicast).
    classes : classes of virtual channels, see `hwgen.noc.network`.
    counters : what values of ctr mean, see `hwgen.isa.counter_numbers`.

    Raises ValueError where a parameter is out of range, a header and one flit of payload do not fit a buffer that
    multicast packets must fit, or the channels cannot carry the routing.
    """

    def __init__(self, *, width: int, height: int, flit_bits: int, buffer_flits: int, address_bits: int,
                 multicast: bool, virtual_channels: int = 1, routing: str = "xy", streams: int = 1):
        check_mesh(width, height)
        check_flit_bits(flit_bits)
        check_buffer_flits(buffer_flits)
        check_streams(streams)
        least = KIND_BITS + (streams - 1).bit_length()
        if not least <= address_bits <= VMEM_BITS:
            raise ValueError(f"Address width must be {least} to {VMEM_BITS} bits, not {address_bits!r}")
        self.width, self.height = width, height
        self.flit_bits, self.buffer_flits, self.address_bits = flit_bits, buffer_flits, address_bits
        self.multicast, self.virtual_channels = bool(multicast), virtual_channels
        self.classes = channel_classes(routing, virtual_channels, self.multicast)
        self.streams, self.counters = streams, counter_numbers(streams)
        self.words_per_flit = flit_bits // 32
        self.fields = routing_fields(width=width, height=height, flit_bits=flit_bits, buffer_flits=buffer_flits,
                                     multicast=self.multicast)
        rest = {"ctr": self.counters.bits, "last": bits_for(self.words_per_flit - 1), "addr": address_bits}
        self.fields |= _place(rest, sum(bits for _, bits in self.fields.values()))
        self.header_bits = sum(bits for _, bits in self.fields.values())
        self.header_flits = -(-self.header_bits // flit_bits)
        if multicast and buffer_flits < self.header_flits + 1:
            raise ValueError(
                f"Buffer depth must be {self.header_flits + 1} to 16 flits for multicast with a header of "
                f"{self.header_flits} flits, not {buffer_flits!r}"
            )
        self.max_multicast_words = (buffer_flits - self.header_flits) * self.words_per_flit if multicast else 0
        self.multicast_flits = multicast_flits(buffer_flits, self.header_flits) if multicast else 0
        self.max_unicast_words, self.max_host_words = MAX_UNICAST_FLITS * self.words_per_flit, MAX_HOST_WORDS

    def pack(self, **values: int) -> int:
        """The header as one integer; absent fields are 0. Raises ValueError for a value that does not fit."""
        header = 0
        for name, value in values.items():
            if name not in self.fields:
                raise ValueError(f"Header field must be one of {', '.join(self.fields)}, not {name!r}")
            at, bits = self.fields[name]
            if not 0 <= value < 1 << bits:
                raise ValueError(f"Header field {name} must be 0 to {(1 << bits) - 1}, not {value!r}")
            header |= value << at
        return header

    def unpack(self, header: int) -> dict[str, int]:
        """Inverse of `pack`, with every field present."""
        return {name: header >> at & ((1 << bits) - 1) for name, (at, bits) in self.fields.items()}

    def packet(self, words: Sequence[int], *, x0: int = 0, y0: int = 0, x1: int | None = None, y1: int | None = None,
               host: int = 0, ctr: int = 0, addr: int = 0) -> list[int]:
        """The flits of one packet; a rectangle without x1, y1 is the node (x0, y0). Raises ValueError if too long."""
        x1, y1 = x0 if x1 is None else x1, y0 if y1 is None else y1
        several = (x0, y0) != (x1, y1)
        limit = self.max_multicast_words if several else self.max_host_words if host else self.max_unicast_words
        if not 1 <= len(words) <= limit:
            raise ValueError(f"Payload must be 1 to {limit} words, not {len(words)}")
        per_flit = self.words_per_flit
        count = -(-len(words) // per_flit)
        header = self.pack(
            x0=x0, x1=x1, y0=y0, y1=y1, host=host, flits=self.header_flits + count - 1 if several else 0, ctr=ctr,
            last=(len(words) - 1) % per_flit, addr=addr,
        )
        mask = (1 << self.flit_bits) - 1
        flits = [header >> i * self.flit_bits & mask for i in range(self.header_flits)]
        for i in range(count):
            part = words[i * per_flit:(i + 1) * per_flit]
            flits.append(sum((word & 0xFFFFFFFF) << 32 * lane for lane, word in enumerate(part)))
        return flits

    def words(self, flits: Sequence[int]) -> tuple[dict[str, int], list[int]]:
        """Header fields and payload words of a whole packet: inverse of `packet`."""
        header = sum(flit << i * self.flit_bits for i, flit in enumerate(flits[:self.header_flits]))
        fields = self.unpack(header)
        words = [flit >> 32 * lane & 0xFFFFFFFF for flit in flits[self.header_flits:]
                 for lane in range(self.words_per_flit)]
        return fields, words[:len(words) - self.words_per_flit + fields["last"] + 1]
