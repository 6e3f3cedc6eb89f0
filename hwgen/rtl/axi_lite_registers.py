"""The host port's register map, and the AXI4-Lite slave that reaches it."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ADDRESS_BITS = 8
REGISTERS = {
    "START": 0x00, "STATUS": 0x04, "START_POS": 0x08, "PROMPT_LEN": 0x0C, "MAX_TOKENS": 0x10, "EOS_ID": 0x14,
    "MODE": 0x18, "CYCLES": 0x1C, "CONTEXT": 0x20, "VOCAB": 0x24, "MESH": 0x28, "SIGNATURE": 0x2C, "TILE": 0x30,
    "STREAM": 0x34, "COUNTERS": 0x40, "ENDS": 0x80,
}
"""Name -> byte address; COUNTERS is the first of eight, ENDS of `isa.ENDS`, of which EOS_ID is the first once more."""
STATUS_BITS = {
    "busy": 0, "done": 1, "err_busy": 2, "overflow": 3, "fault": 4, "counters_valid": 5, "err_range": 6,
}
NO_EOS = 0xFFFF_FFFF
"""In a register for an id that ends a text: none."""

AXI_LITE_PORTS = {
    "awaddr": In(ADDRESS_BITS), "awprot": In(3), "awvalid": In(1), "awready": Out(1),
    "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1),
    "bresp": Out(2), "bvalid": Out(1), "bready": In(1),
    "araddr": In(ADDRESS_BITS), "arprot": In(3), "arvalid": In(1), "arready": Out(1),
    "rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1),
}
"""AXI4-Lite signals as the slave sees them, without prefix."""


class AxiLiteSlave(wiring.Component):
    """AXI4-Lite slave with one write and one read in flight, always answered OKAY.

    A write is performed in the one cycle in which address and data are both there (`write`); its response follows a
    cycle later. A read samples `read_data`, a function of `read_address` without latency, and answers a cycle later.
    `awprot` and `arprot` are ignored.

    Members
    -------
    (AXI4-Lite, see `AXI_LITE_PORTS`)
    write: Out(1), write_address: Out(6), write_data: Out(32), write_mask: Out(4)
        Register number (byte address / 4), data and byte enables of a write, valid for one cycle.
    read_address: Out(6), read_data: In(32)
        Register number being read and its value, in the same cycle.
    """

    def __init__(self):
        super().__init__(
            AXI_LITE_PORTS
            | {
                "write": Out(1), "write_address": Out(ADDRESS_BITS - 2), "write_data": Out(32), "write_mask": Out(4),
                "read_address": Out(ADDRESS_BITS - 2), "read_data": In(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rdata = Signal(32, reset_less=True)
        m.d.comb += [
            self.rdata.eq(rdata),
            self.write.eq(self.awvalid & self.wvalid & ~self.bvalid),
            self.awready.eq(self.write),
            self.wready.eq(self.write),
            self.write_address.eq(self.awaddr[2:]),
            self.write_data.eq(self.wdata),
            self.write_mask.eq(self.wstrb),
            self.arready.eq(~self.rvalid),
            self.read_address.eq(self.araddr[2:]),
        ]
        m.d.sync += self.bvalid.eq(self.write | (self.bvalid & ~self.bready))
        with m.If(self.arvalid & self.arready):
            m.d.sync += [self.rvalid.eq(1), rdata.eq(self.read_data)]
        with m.Elif(self.rready):
            m.d.sync += self.rvalid.eq(0)
        return m
