"""Benches of the network interface: commands to its sender, packets to its receiver, and what comes of them."""

import random

from amaranth.hdl import Const
from amaranth.sim import Simulator


def command(src, n, dst, x0=0, y0=0, x1=None, y1=None, ctr=0, host=0, push=0):
    return {"src": src, "n": n, "dst": dst, "x0": x0, "y0": y0, "x1": x0 if x1 is None else x1,
            "y1": y0 if y1 is None else y1, "ctr": ctr, "host": host, "push": push}


class Reader:
    """Vector memory of a sender: row r of lane l holds word r * lanes + l of `words`, which begin at `origin`; grants
    by chance."""

    def __init__(self, sender, chance, grant, origin=0):
        self.sender, self.chance, self.grant, self.origin = sender, chance, grant, origin
        self.words = [chance.getrandbits(32) for _ in range(1024)]
        self.ready = False

    def row(self, number):
        lanes = self.sender.lanes
        at = number * lanes - self.origin
        assert 0 <= at < len(self.words), f"reads row {number}"
        return sum(word << 32 * i for i, word in enumerate(self.words[at:at + lanes]))

    def before(self, ctx):
        self.ready = self.chance.random() < self.grant
        ctx.set(self.sender.r_ready, self.ready)

    def after(self, ctx, r_en, r_addr):
        """Only in the cycle after a granted read the row is there."""
        garbage = self.chance.getrandbits(32 * self.sender.lanes)
        ctx.set(self.sender.r_data, self.row(r_addr) if r_en and self.ready else garbage)


def send(sender, commands, *, grant=1.0, take=1.0, seed=0, cycles=5000, expected, report_at=None, counters=0,
         origin=0):
    """Run the sender alone; return its flits as (cycle, data, last, channel), the done pulses, the cycles stalled."""
    chance, flits, done, stalled = random.Random(seed), [], [], []
    reader, channels = Reader(sender, chance, grant, origin), sender.packet.virtual_channels
    channel_of = sender.link.vc if channels > 1 else Const(0)

    async def bench(ctx):
        pending, held = list(commands), [0] * channels
        ctx.set(sender.counters.as_value(), counters)
        for cycle in range(cycles):
            reader.before(ctx)
            ctx.set(sender.cmd.valid, bool(pending))
            if pending:
                ctx.set(sender.cmd.payload, pending[0])
            ctx.set(sender.report, cycle == report_at)
            credits = [count > 0 and chance.random() < take for count in held]
            held = [count - credit for count, credit in zip(held, credits, strict=True)]
            ctx.set(sender.link.credit, sum(credit << i for i, credit in enumerate(credits)))
            link = sender.link
            _, _, ready, r_en, r_addr, valid, data, last, vc, push, stall, fault = await ctx.tick().sample(
                sender.cmd.ready, sender.r_en, sender.r_addr, link.valid, link.data, link.last, channel_of, sender.done,
                sender.stalled, sender.fault)
            reader.after(ctx, r_en, r_addr)
            assert not fault
            if ready and pending:
                pending.pop(0)
            if valid:
                flits.append((cycle, data, last, vc))
                held[vc] += 1
                assert held[vc] <= sender.packet.buffer_flits, "sent without a credit"
            if push:
                done.append((cycle, push))
            if stall:
                stalled.append(cycle)
            if len(flits) == expected:
                break
        for _ in range(10):
            ctx.set(sender.cmd.valid, 0)
            _, _, valid, busy = await ctx.tick().sample(sender.link.valid, sender.busy)
            assert not valid and not busy, "the sender goes on after the last flit"

    simulator = Simulator(sender)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(flits) == expected, f"{len(flits)} flits came, not {expected}"
    return reader, flits, done, stalled


def split(form, flits):
    packets, body = [], []
    for _, data, last, _ in flits:
        body.append(data)
        if last:
            packets.append(body)
            body = []
    assert not body
    return [(*form.words(packet), packet) for packet in packets]


def flits_of(form, n, longest):
    """Flits of a SEND of n words in packets of at most `longest` payload flits."""
    payload = -(-n // form.words_per_flit)
    return payload + -(-payload // longest) * form.header_flits


class Writer:
    """Vector memory of a receiver: checks that a word is counted in the cycle after its write and never again."""

    def __init__(self, receiver, chance, grant):
        self.receiver, self.chance, self.grant = receiver, chance, grant
        self.words, self.counters, self.written, self.events = {}, [0] * 16, None, []
        self.writes = 0

    def before(self, ctx):
        self.ready = self.chance.random() < self.grant
        ctx.set(self.receiver.w_ready, self.ready)

    def signals(self):
        r = self.receiver
        return (r.w_en, r.w_addr, r.w_data, r.w_mask, r.counter_add, r.start, r.report, r.fault)

    def after(self, values):
        w_en, w_addr, w_data, w_mask, add, start, report, fault = values
        assert not fault
        counted = add.words if add.valid else None
        assert counted == self.written, "words are counted in the cycle after their write"
        if add.valid:
            self.counters[add.ctr] += add.words
        self.written = None
        if w_en and self.ready:
            lanes = self.receiver.lanes
            self.written = w_mask.bit_count()
            self.writes += 1
            for lane in range(lanes):
                if w_mask >> lane & 1:
                    self.words[w_addr * lanes + lane] = w_data >> 32 * lane & 0xFFFFFFFF
        if start.valid:
            self.events.append(("start", start.token, start.position, start.output, start.logits, start.clear))
        if report:
            self.events.append(("report",))


def receive(receiver, packets, *, grant=1.0, idle=0.0, seed=0, cycles=3000):
    """Feed packets, dealt out to the channels, flits mixed; return the writer and the cycles until all were taken."""
    chance, channels = random.Random(seed), receiver.packet.virtual_channels
    writer = Writer(receiver, chance, grant)
    flits = [[(flit, i == len(packet) - 1) for packet in packets[vc::channels] for i, flit in enumerate(packet)]
             for vc in range(channels)]
    total, used = sum(map(len, flits)), []

    async def bench(ctx):
        credits, back, quiet = [receiver.packet.buffer_flits] * channels, 0, 0
        for cycle in range(cycles):
            writer.before(ctx)
            able = [vc for vc in range(channels) if flits[vc] and credits[vc]]
            go = bool(able) and chance.random() >= idle
            ctx.set(receiver.link.valid, go)
            if go:
                vc = chance.choice(able)
                flit, last = flits[vc].pop(0)
                credits[vc] -= 1
                ctx.set(receiver.link.data, flit)
                ctx.set(receiver.link.last, last)
                if channels > 1:
                    ctx.set(receiver.link.vc, vc)
            _, _, credit, *values = await ctx.tick().sample(receiver.link.credit, *writer.signals())
            writer.after(values)
            credits = [count + (credit >> i & 1) for i, count in enumerate(credits)]
            back += credit.bit_count()
            if back == total:
                used or used.append(cycle)
                quiet += 1
            if quiet > 3:
                assert credits == [receiver.packet.buffer_flits] * channels
                return
        raise AssertionError(f"{back} of {total} flits taken")

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return writer, used[0]
