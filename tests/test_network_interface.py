# amaranth: UnusedElaboratable=no
"""Sender and receiver of a tile, alone and joined by a link, against a vector memory in Python."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from interface_bench import Reader, Writer, command, flits_of, receive, send, split

from hwgen.isa import VMEM_BITS
from hwgen.rtl.packet_receiver import PacketReceiver
from hwgen.rtl.packet_sender import PacketSender

SHAPE = {"width": 4, "height": 4, "flit_bits": 64, "lanes": 4, "address_bits": 10, "buffer_flits": 4,
         "multicast": True}


@pytest.mark.parametrize("flit_bits, lanes, width, depth", [
    (32, 1, 4, 2), (32, 4, 64, 4), (64, 4, 4, 4), (64, 2, 4, 2), (128, 2, 4, 3), (256, 1, 4, 4), (256, 16, 4, 16),
    (32, 16, 4, 3), (512, 16, 4, 5), (512, 4, 4, 2),
])
def test_sender_splits_into_packets(flit_bits, lanes, width, depth):
    shape = SHAPE | {"flit_bits": flit_bits, "lanes": lanes, "buffer_flits": depth, "width": width, "height": width}
    sender = PacketSender(**shape)
    form = sender.packet
    multi, single = form.multicast_flits * form.words_per_flit, form.max_unicast_words
    chance = random.Random(3)
    commands, expected = [], 0
    for _ in range(12):
        n = chance.choice([1, 2, 3, 7, 16, 33, 63])
        several, host = chance.random() < 0.5, chance.random() < 0.2
        far = {"x1": 3, "y1": 2} if several else {}
        commands.append(command(chance.randrange(0, 256, lanes), n, chance.randrange(512) if not host else 1, 1, 2,
                                **far, ctr=chance.randrange(14), host=int(host)))
        expected += flits_of(form, n, 64 if host else form.multicast_flits if several else 16)
    reader, flits, _, _ = send(sender, commands, grant=0.7, take=0.6, expected=expected)
    packets = iter(split(form, flits))
    for cmd in commands:
        several = cmd["x1"] != cmd["x0"] and not cmd["host"]
        longest = form.max_host_words if cmd["host"] else multi if several else single
        for at in range(0, cmd["n"], longest):
            fields, words, packet = next(packets)
            assert words == reader.words[cmd["src"] + at:cmd["src"] + min(cmd["n"], at + longest)]
            assert fields["host"] == cmd["host"] and fields["flits"] == (len(packet) - 1 if several else 0)
            place = [fields[name] for name in ("x0", "y0", "x1", "y1")]
            if cmd["host"]:
                assert place == [0, 0, 0, 0] and fields["addr"] == 1 and fields["ctr"] == 0
            else:
                assert place == [cmd[name] for name in ("x0", "y0", "x1", "y1")]
                assert fields["addr"] == cmd["dst"] + at and fields["ctr"] == cmd["ctr"]


@pytest.mark.parametrize("flit_bits, lanes", [(32, 1), (32, 8), (64, 2), (64, 4), (256, 8), (256, 16), (512, 16)])
def test_one_flit_a_cycle_from_first_to_last_command(flit_bits, lanes):
    sender = PacketSender(**(SHAPE | {"flit_bits": flit_bits, "lanes": lanes}))
    form = sender.packet
    commands = [command(0, 50, 0), command(64, 40, 3, 0, 0, 2, 2), command(0, 3, 0), command(16, 1, 0)]
    expected = sum(flits_of(form, c["n"], form.multicast_flits if c["x1"] else 16) for c in commands)
    _, flits, _, stalled = send(sender, commands, expected=expected)
    cycles = [cycle for cycle, *_ in flits]
    assert cycles == list(range(cycles[0], cycles[0] + expected)) and cycles[0] <= 2 and not stalled


@pytest.mark.parametrize("address_bits", [10, 20])
def test_what_is_sent_lies_anywhere_in_vector_memory(address_bits):
    """Messages reach as far as their header says, spans to be sent lie in all that instructions can address."""
    sender = PacketSender(**(SHAPE | {"address_bits": address_bits}))
    origin, there = (1 << VMEM_BITS) - 1024, (1 << address_bits) - 256
    reader, flits, _, _ = send(sender, [command(origin + 64, 70, there + 9)], origin=origin,
                               expected=flits_of(sender.packet, 70, 16))
    sent = split(sender.packet, flits)
    assert [word for _, words, _ in sent for word in words] == reader.words[64:134]
    assert [fields["addr"] for fields, *_ in sent] == [there + 9, there + 41, there + 73]


def test_done_follows_the_last_read_and_stalls_are_counted():
    sender = PacketSender(**SHAPE)
    _, flits, done, stalled = send(sender, [command(0, 8, 0, push=5), command(8, 1, 0, push=2), command(8, 1, 0)],
                                   expected=5 + 2 + 2, take=0.1)
    assert [push for _, push in done] == [5, 2]
    third = [cycle for cycle, *_ in flits][4]
    assert done[0][0] < third and stalled


def test_report_goes_between_commands_with_the_flags():
    for flit_bits in (32, 64, 256, 512):
        sender = PacketSender(**(SHAPE | {"flit_bits": flit_bits}))
        form = sender.packet
        words = [100 + i for i in range(8)]
        counters = sum(word << 32 * i for i, word in enumerate(words))
        commands = [command(0, 20, 0, 1, 1, ctr=3), command(32, 4, 2, 1, 1, ctr=3)]
        expected = sum(flits_of(form, n, 16) for n in (20, 4, 8))
        _, flits, _, _ = send(sender, commands, expected=expected, report_at=4, counters=counters, take=0.5)
        packets = split(form, flits)
        assert [fields["host"] for fields, _, _ in packets].count(1) == 1
        at = next(i for i, (fields, _, _) in enumerate(packets) if fields["host"])
        assert packets[at][1] == words and packets[at][0]["addr"] == 4 and 0 < at < len(packets) - 1


@pytest.mark.parametrize("routing, channels, multicast", [
    ("xy", 2, True), ("yx", 2, True), ("o1turn", 4, True), ("o1turn", 2, False), ("odd-even", 4, True),
    ("west-first", 4, False),
])
def test_packets_stay_in_a_channel_of_their_class(routing, channels, multicast):
    sender = PacketSender(**(SHAPE | {"routing": routing, "virtual_channels": channels, "multicast": multicast}))
    form, chance = sender.packet, random.Random(7)
    commands, expected = [], 0
    for _ in range(40):
        n, several = chance.choice([1, 5, 40]), multicast and chance.random() < 0.5
        commands.append(command(0, n, 0, 1, 2, *((3, 2) if several else ()), ctr=3))
        expected += flits_of(form, n, form.multicast_flits if several else 16)
    _, flits, _, _ = send(sender, commands, take=0.4, expected=expected)
    used, at = {}, 0
    for fields, _, packet in split(form, flits):
        several = fields["x1"] != fields["x0"]
        mine = [c for c in form.classes if (c.multicast if several else c.unicast)]
        channel, = {vc for *_, vc in flits[at:at + len(packet)]}
        at += len(packet)
        assert channel in [channel for c in mine for channel in c.channels]
        used.setdefault(several, set()).add(channel)
    for several, found in used.items():
        classes = [c for c in form.classes if (c.multicast if several else c.unicast)]
        assert found == {channel for c in classes for channel in c.channels}
    assert set(used) == ({False, True} if multicast else {False})


@pytest.mark.parametrize("flit_bits, lanes, width, channels", [
    (32, 1, 4, 1), (32, 4, 64, 1), (64, 1, 4, 1), (64, 4, 4, 1), (128, 2, 4, 1), (128, 16, 4, 1), (256, 1, 4, 1),
    (256, 4, 4, 1), (256, 8, 4, 1), (256, 16, 64, 1), (512, 4, 4, 1), (512, 16, 4, 2), (32, 4, 64, 2), (64, 2, 4, 4),
    (256, 4, 4, 4),
])
def test_receiver_writes_at_any_alignment(flit_bits, lanes, width, channels):
    receiver = PacketReceiver(**(SHAPE | {"flit_bits": flit_bits, "lanes": lanes, "width": width, "height": width,
                                          "virtual_channels": channels}))
    form, chance = receiver.packet, random.Random(5)
    packets, memory, counts, at = [], {}, [0] * 16, 1
    for i in range(40):
        words = [chance.getrandbits(32) for _ in range(chance.randint(1, min(20, form.max_unicast_words)))]
        ctr = chance.randrange(14)
        counts[ctr] += len(words)
        packets.append(form.packet(words, x0=1, y0=1, ctr=ctr, addr=at))
        memory |= {at + j: word for j, word in enumerate(words)}
        at += len(words) + chance.randrange(4)
        assert at < 1000, i
    writer, _ = receive(receiver, packets, grant=0.7, idle=0.3)
    assert writer.words == memory and writer.counters == counts


@pytest.mark.parametrize("flit_bits, lanes, channels", [
    (32, 4, 1), (64, 2, 1), (256, 16, 1), (128, 4, 1), (64, 2, 2), (64, 4, 4),
])
def test_receiver_takes_one_flit_a_cycle_if_aligned(flit_bits, lanes, channels):
    receiver = PacketReceiver(**(SHAPE | {"flit_bits": flit_bits, "lanes": lanes, "virtual_channels": channels}))
    form = receiver.packet
    n = 8 * form.words_per_flit
    packets = [form.packet(list(range(n)), x0=1, y0=1, addr=i * n) for i in range(5)]
    _, used = receive(receiver, packets)
    assert used == sum(len(packet) for packet in packets)


@pytest.mark.parametrize("flit_bits", [32, 64, 512])
def test_start_and_report_messages(flit_bits):
    receiver = PacketReceiver(**(SHAPE | {"flit_bits": flit_bits}))
    form = receiver.packet
    info = 77 | 1 << 24 | 1 << 26
    packets = [
        form.packet([0xABCDE, info], ctr=15, addr=0), form.packet([9], ctr=14, addr=0),
        form.packet([1, 2], ctr=2, addr=6), form.packet([0, 0xFFFFF], ctr=15, addr=0),
    ]
    writer, _ = receive(receiver, packets, grant=0.5)
    assert writer.events == [("start", 0xABCDE, 77, 1, 0, 1), ("report",), ("start", 0, 0xFFFFF, 0, 0, 0)]
    assert writer.words == {6: 1, 7: 2}


@pytest.mark.parametrize("flit_bits", [32, 128])
def test_a_start_waits_for_those_of_all_streams(flit_bits):
    receiver = PacketReceiver(**(SHAPE | {"flit_bits": flit_bits, "streams": 2}))
    form = receiver.packet
    second = form.packet([7, 9 | 1 << 25 | 1 << 26], ctr=form.counters.start, addr=2)  # only the first's clear counts
    first = form.packet([5, 8 | 1 << 24 | 1 << 27], ctr=form.counters.start, addr=0)
    writer, _ = receive(receiver, [second, form.packet([3], ctr=15, addr=4), first, first, second], grant=0.5)
    start = ("start", 5 | 7 << 20, 8 | 9 << 20, 0b01, 0b10, 0)
    assert writer.events == [start, start] and writer.words == {4: 3}
    assert form.counters.start == 31 and receiver.start.shape().size == 2 + 2 * 43


def test_halves_of_a_start_message_come_in_any_order():
    receiver = PacketReceiver(**(SHAPE | {"flit_bits": 32}))
    form = receiver.packet
    token, flags = (form.packet([0x12345], ctr=15, addr=0), form.packet([5 | 1 << 25], ctr=15, addr=1))
    between = form.packet([1, 2, 3], ctr=2, addr=6)
    writer, _ = receive(receiver, [token, between, flags, flags, between, token, token, flags])
    assert writer.events == [("start", 0x12345, 5, 0, 1, 0)] * 3


@pytest.mark.parametrize("flit_bits, lanes, far_lanes, depth, channels", [
    (32, 4, 2, 2, 1), (64, 4, 16, 4, 1), (128, 1, 8, 5, 1), (256, 16, 1, 3, 1), (256, 8, 8, 2, 1), (512, 8, 16, 2, 1),
    (64, 4, 2, 3, 2), (32, 4, 8, 2, 4),
])
def test_sender_to_receiver(flit_bits, lanes, far_lanes, depth, channels):
    """A span arrives as it was sent, between tiles of different lanes, under slow memories."""
    shape = SHAPE | {"flit_bits": flit_bits, "buffer_flits": depth, "virtual_channels": channels}
    sender, receiver = PacketSender(**(shape | {"lanes": lanes})), PacketReceiver(**(shape | {"lanes": far_lanes}))
    chance = random.Random(depth)
    reader, writer = Reader(sender, chance, 0.6), Writer(receiver, chance, 0.6)
    commands, memory, total = [], {}, 0
    for at, n in ((1, 1), (7, 65), (100, 32), (133, 3), (139, 130)):
        src = chance.randrange(0, 512, lanes)
        commands.append(command(src, n, at, 1, 1, chance.choice([1, 2]), 1, ctr=4))
        memory |= {at + i: reader.words[src + i] for i in range(n)}
        total += n
    m = Module()
    m.submodules.sender, m.submodules.receiver = sender, receiver
    connect(m, sender.link, receiver.link)

    async def bench(ctx):
        pending = list(commands)
        for _ in range(4000):
            reader.before(ctx)
            writer.before(ctx)
            ctx.set(sender.cmd.valid, bool(pending))
            if pending:
                ctx.set(sender.cmd.payload, pending[0])
            _, _, ready, r_en, r_addr, *values = await ctx.tick().sample(
                sender.cmd.ready, sender.r_en, sender.r_addr, *writer.signals())
            reader.after(ctx, r_en, r_addr)
            writer.after(values)
            if ready and pending:
                pending.pop(0)
            if writer.counters[4] == total:
                return

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert writer.words == memory and writer.counters[4] == total


def test_refuse_bad_parameters():
    for component in (PacketSender, PacketReceiver):
        with pytest.raises(ValueError, match="^Lanes must be 1, 2, 4, 8 or 16, not 5$"):
            component(**(SHAPE | {"lanes": 5}))
        with pytest.raises(ValueError, match="^Flit width must be 32, 64, 128, 256 or 512, not 40$"):
            component(**(SHAPE | {"flit_bits": 40}))
