"""Header layout: every field in its place, limits refused with their rule."""

import random

import pytest

from hwgen.rtl.packet import PacketFormat, routing_fields, row_bits

GOOD = {"width": 4, "height": 2, "flit_bits": 64, "buffer_flits": 4, "address_bits": 12, "multicast": True}


def test_fields_follow_each_other_from_bit_0():
    form = PacketFormat(**GOOD)
    assert form.fields == {
        "x0": (0, 2), "x1": (2, 2), "y0": (4, 1), "y1": (5, 1), "host": (6, 1), "flits": (7, 2), "route": (9, 5),
        "ctr": (14, 4), "last": (18, 1), "addr": (19, 12),
    }
    assert (form.header_flits, form.words_per_flit) == (1, 2)
    assert (form.max_multicast_words, form.max_unicast_words, form.max_host_words) == (6, 32, 64)


@pytest.mark.parametrize("width, height, flit_bits, address_bits, header", [
    (64, 64, 32, 16, 2), (64, 64, 64, 16, 1), (1, 1, 32, 16, 1), (2, 2, 32, 16, 1), (4, 4, 32, 16, 2),
])
def test_header_takes_a_second_flit_only_where_needed(width, height, flit_bits, address_bits, header):
    form = PacketFormat(width=width, height=height, flit_bits=flit_bits, buffer_flits=4, address_bits=address_bits,
                        multicast=True)
    assert form.header_flits == header
    assert all(at + bits <= 32 for name, (at, bits) in form.fields.items() if name in ("x1", "y1", "host", "flits"))


def test_routing_fields_must_fit_the_first_flit():
    largest = {"width": 64, "height": 64, "flit_bits": 32, "buffer_flits": 16}
    assert sum(bits for _, bits in routing_fields(**largest, multicast=False).values()) == 29
    assert sum(bits for _, bits in routing_fields(**(largest | {"buffer_flits": 4}), multicast=True).values()) == 32
    with pytest.raises(ValueError, match="^Flit width must be at least 34 bits for multicast in a mesh of 64 x 64 with "
                                         "buffers of 16 flits, not 32$"):
        routing_fields(**largest, multicast=True)


@pytest.mark.parametrize("depth, header, payload", [(2, 1, 1), (3, 1, 2), (4, 1, 2), (8, 1, 6), (4, 2, 2), (5, 2, 2)])
def test_multicast_packets_leave_a_flit_of_a_buffer_free_from_three_of_payload_on(depth, header, payload):
    mesh = {"width": 64, "height": 32, "flit_bits": 32} if header == 2 else {}
    form = PacketFormat(**(GOOD | mesh | {"buffer_flits": depth}))
    assert (form.header_flits, form.multicast_flits) == (header, payload)


def test_classes_of_channels_are_those_of_the_network():
    form = PacketFormat(**(GOOD | {"virtual_channels": 4, "routing": "o1turn"}))
    assert [c.channels for c in form.classes] == [(0,), (1, 2), (3,)] and form.virtual_channels == 4
    with pytest.raises(ValueError, match="^Routing odd-even with multicast must have at least 2 "):
        PacketFormat(**(GOOD | {"routing": "odd-even"}))


def test_pack_and_unpack_are_inverse():
    chance = random.Random(1)
    form = PacketFormat(**(GOOD | {"width": 64, "height": 33, "flit_bits": 32}))
    for _ in range(100):
        values = {name: chance.getrandbits(bits) if bits else 0 for name, (_, bits) in form.fields.items()}
        assert form.unpack(form.pack(**values)) == values


@pytest.mark.parametrize("flit_bits", [32, 64, 128, 256, 512])
def test_packet_and_words_are_inverse(flit_bits):
    chance = random.Random(2)
    form = PacketFormat(**(GOOD | {"flit_bits": flit_bits, "width": 64, "height": 64}))
    for x1, limit in ((3, form.max_unicast_words), (5, form.max_multicast_words)):
        for count in range(1, limit + 1):
            words = [chance.getrandbits(32) for _ in range(count)]
            flits = form.packet(words, x0=3, y0=7, x1=x1, y1=7, ctr=9, addr=1234)
            payload = -(-count // form.words_per_flit)
            fields, back = form.words(flits)
            assert back == words and len(flits) == form.header_flits + payload
            assert fields["flits"] == (len(flits) - 1 if x1 == 5 else 0)
            assert (fields["x0"], fields["x1"], fields["y0"], fields["ctr"], fields["addr"]) == (3, x1, 7, 9, 1234)


@pytest.mark.parametrize("change, message", [
    ({"flit_bits": 48}, "Flit width must be 32, 64, 128, 256 or 512, not 48"),
    ({"buffer_flits": 1}, "Buffer depth must be 2 to 16 flits, not 1"),
    ({"width": 0}, "Mesh width must be 1 to 64, not 0"),
    ({"height": 65}, "Mesh height must be 1 to 64, not 65"),
    ({"address_bits": 21}, "Address width must be 3 to 20 bits, not 21"),
    ({"width": 64, "height": 64, "flit_bits": 32, "buffer_flits": 2},
     "Buffer depth must be 3 to 16 flits for multicast with a header of 2 flits, not 2"),
])
def test_refuses_bad_parameters(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        PacketFormat(**(GOOD | change))


def test_long_header_without_multicast_fits_any_buffer():
    form = PacketFormat(**(GOOD | {"width": 64, "height": 64, "flit_bits": 32, "buffer_flits": 2, "multicast": False}))
    assert form.max_multicast_words == 0
    with pytest.raises(ValueError, match="^Payload must be 1 to 0 words, not 1$"):
        form.packet([1], x0=0, y0=0, x1=1, y1=0)


def test_refuses_values_that_do_not_fit():
    form = PacketFormat(**GOOD)
    with pytest.raises(ValueError, match="^Header field x0 must be 0 to 3, not 4$"):
        form.pack(x0=4)
    with pytest.raises(ValueError, match="^Header field must be one of x0, .*, not 'x2'$"):
        form.pack(x2=0)
    with pytest.raises(ValueError, match="^Payload must be 1 to 32 words, not 33$"):
        form.packet([0] * 33)
    with pytest.raises(ValueError, match="^Payload must be 1 to 64 words, not 65$"):
        form.packet([0] * 65, host=1)


def test_rows_of_vector_memory():
    assert row_bits(4, 12) == 10 and row_bits(1, 12) == 12
    with pytest.raises(ValueError, match="^Lanes must be 1, 2, 4, 8 or 16, not 3$"):
        row_bits(3, 12)
    with pytest.raises(ValueError, match="^Address width must be at least 5 bits with 16 lanes, not 4$"):
        row_bits(16, 4)
