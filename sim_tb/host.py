"""The host's side of a chip: stock AXI models on its ports, and runs as a user sees them."""

import itertools

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge, Timer
from cocotb.utils import get_sim_time, get_time_from_sim_steps
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiStreamBus, AxiStreamSink, AxiStreamSource

PERIOD_NS = 2
POLL_CYCLES = 5000
"""How often STATUS is read while nothing comes out."""
NO_END = 0xFFFF_FFFF
MODES = ("tokens", "logits")


class BeatBus(AxiStreamBus):
    """A stream whose every beat is a frame of its own, with TLAST beside it: a run's tokens appear one by one."""

    _optional_signals = {"tvalid": "tvalid", "tready": "tready", "tuser": "tlast", "tid": "tid"}


class HostAgent:
    """Drives the chip `dut` (ports clk, rst, s_axi_*, s_axis_*, m_axis_*); `manifest` has the numbers.

    The models sleep between beats, so that the simulator runs alone while the chip computes: tokens are offered only
    once they are wanted, unless `eager`. `patience` is the longest wait for progress in cycles (TimeoutError).
    """

    def __init__(self, dut, manifest: dict, *, eager: bool = False, patience: int = 5_000_000):
        self._dut, self._manifest, self._eager, self._patience = dut, manifest, eager, patience
        dut.rst.value = 1
        Clock(dut.clk, PERIOD_NS, "ns", impl="gpi").start()
        self._registers = self._source = self._sink = None
        self._feeding = None
        self._progress = 0
        self.started = 0
        """Cycle in which START was written."""

    @staticmethod
    def cycle() -> int:
        """Clock cycles since the simulation began."""
        return round(get_sim_time("ns") / PERIOD_NS)

    async def reset(self):
        """Reset for 4 cycles, in the middle of whatever goes on."""
        dut = self._dut
        self._stop_feeding()
        dut.rst.value = 1
        await ClockCycles(dut.clk, 4)
        if self._registers is None:  # not before the first reset: the models take no X
            self._registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
            self._source = AxiStreamSource(BeatBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst, byte_lanes=1)
            self._sink = AxiStreamSink(BeatBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst, byte_lanes=1)
        self._source.clear()
        self._sink.clear()
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)

    def pause_output(self, pattern):
        """Take nothing for the first number of cycles of `pattern`, take for the second, and so on, for ever."""

        async def breathe():
            for paused, cycles in zip(itertools.cycle((True, False)), itertools.cycle(pattern), strict=False):
                self._sink.pause = paused
                await Timer(cycles * PERIOD_NS, "ns")

        return cocotb.start_soon(breathe())

    async def write(self, name: str, value: int, offset: int = 0):
        await self._registers.write_dword(self._manifest["registers"][name] + offset, value)

    async def read(self, name: str, offset: int = 0) -> int:
        return await self._registers.read_dword(self._manifest["registers"][name] + offset)

    async def status(self) -> set[str]:
        """Names of the status bits that are set."""
        value = await self.read("STATUS")
        return {name for name, bit in self._manifest["status_bits"].items() if value >> bit & 1}

    async def start(self, prompts, max_tokens, *, eos=None, mode="tokens", start_pos=0):
        """Write the settings and START, and offer the prompts: ids of each stream, none for one that rests.

        `eos`: an id after which a stream ends, or several, at most as many as the manifest's `ends`.
        """
        for stream, prompt in enumerate(prompts):
            if len(prompts) > 1:
                await self.write("STREAM", stream)
            for name, value in (("START_POS", start_pos), ("PROMPT_LEN", len(prompt)), ("MAX_TOKENS", max_tokens)):
                await self.write(name, value[stream] if isinstance(value, list) else value)
        for number, end in enumerate(self._ends(eos)):
            await self.write("ENDS", end, 4 * number)
        for name, value in (("MODE", MODES.index(mode)), ("START", 1)):
            await self.write(name, value)
        self.started = self._progress = self.cycle()
        self._stop_feeding()
        self._waiting = [list(prompt) for prompt in prompts]
        self._running = [bool(prompt) for prompt in prompts]
        self._news = Event()  # a token to offer, or the end of a stream
        self._feeding = cocotb.start_soon(self._offer(mode == "logits"))

    async def run(self, prompts, max_tokens, *, eos=None, mode="tokens", start_pos=0, choose=None):
        """Start and yield (stream, token, cycle of its beat, logits) for every output; return when the chip is done.

        In logits mode `choose(logits)` gives each token (default: the greedy one) and the cycle is that of the
        position's last beat; in tokens mode `logits` is None.
        """
        await self.start(prompts, max_tokens, eos=eos, mode=mode, start_pos=start_pos)
        size = self._manifest["vocab"] if mode == "logits" else 1
        values = []
        while any(self._running):
            beat = await self._beat()
            if beat is None:
                return
            values.append(beat.tdata[0])
            last, stream = bool(beat.tuser), 0 if beat.tid is None else int(beat.tid)
            if last:
                self._running[stream] = False
                self._news.set()
            if len(values) < size:
                continue
            cycle = round(get_time_from_sim_steps(beat.sim_time_end, "ns") / PERIOD_NS)
            if mode == "tokens":
                yield stream, values[0], cycle, None
            else:
                logits = [value - (value >> 31 << 32) for value in values]
                token = (choose or _greedy)(logits)
                if not last:
                    self._waiting[stream].append(token)
                    self._news.set()
                yield stream, token, cycle, logits
            values = []
        while "done" not in await self.status():
            pass

    async def read_counters(self, x: int, y: int) -> list[int]:
        """The 8 performance counters of a tile."""
        await self.write("TILE", y << 16 | x)
        while "counters_valid" not in await self.status():
            pass
        return [await self.read("COUNTERS", 4 * i) for i in range(8)]

    def _ends(self, eos):
        """What goes into the registers ENDS."""
        room = self._manifest.get("ends", 1)
        ids = [] if eos is None else list(dict.fromkeys(eos if isinstance(eos, list) else [eos]))
        if len(ids) > room:
            raise ValueError(f"Ends of a text must be at most {room}, as many as the chip looks for, not {len(ids)}")
        return ids + [NO_END] * (room - len(ids))

    async def _beat(self):
        """The next beat; None if the run ends without one."""
        while self._sink.empty():
            await self._sink.wait(POLL_CYCLES * PERIOD_NS, "ns")
            if not self._sink.empty():
                break
            status = await self.status()
            if "done" in status and self._sink.empty():
                return None
            if self.cycle() - self._progress > self._patience:
                raise TimeoutError(f"The chip must answer within {self._patience} cycles, but its status is {status}")
        self._progress = self.cycle()
        return self._sink.recv_nowait()

    def _stop_feeding(self):
        if self._feeding is not None:
            self._feeding.cancel()

    async def _offer(self, more):
        """Offer the tokens of all streams step by step, in the order in which the chip takes them; `more` may come."""
        while any(self._waiting) or (more and any(self._running)):
            for stream, tokens in enumerate(self._waiting):
                while more and not tokens and self._running[stream]:
                    self._news.clear()
                    await self._news.wait()
                if tokens:
                    await self._offer_token(tokens.pop(0))

    async def _offer_token(self, token):
        ready, source = self._dut.s_axis_tready, self._source
        if not self._eager and not ready.value:
            await RisingEdge(ready)
        self._progress = self.cycle()
        await source.send([token])
        if not self._eager:
            await source.wait()
            await RisingEdge(self._dut.clk)  # from here on tready is that of the next token


def _greedy(logits):
    return logits.index(max(logits))
