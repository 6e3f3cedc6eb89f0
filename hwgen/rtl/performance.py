"""Performance counters of a tile."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

COUNTERS = (
    "running", "mac_busy", "matrix_waits_token", "matrix_waits_message", "vector_busy", "vector_waits_message",
    "send_waits_network", "issue_blocked",
)
"""What each counter counts: cycles in which the signal of that name is high."""


class PerformanceCounters(wiring.Component):
    """Eight 32-bit counters of cycles, one for each name in `COUNTERS`; they wrap.

    Members: an input for every name; `clear` (one cycle, wins over counting); `value0`..`value7`.
    """

    def __init__(self):
        values = {f"value{i}": Out(32) for i in range(len(COUNTERS))}
        super().__init__({name: In(1) for name in COUNTERS} | {"clear": In(1)} | values)

    def elaborate(self, platform):
        m = Module()
        for i, name in enumerate(COUNTERS):
            event, value = Signal(name=f"event{i}"), getattr(self, f"value{i}")
            # counted a cycle late: events end long paths
            m.d.sync += event.eq(getattr(self, name))
            with m.If(self.clear):
                m.d.sync += value.eq(0)
            with m.Elif(event):
                m.d.sync += value.eq(value + 1)
        return m
