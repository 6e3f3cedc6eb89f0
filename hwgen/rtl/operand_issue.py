"""Address generation of the matrix unit: walks the operand words of an instruction."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hwgen.isa import VMEM_BITS
from hwgen.rtl.result_queue import destination_layout
from hwgen.rtl.starts import push_bits

BASE_BITS, COUNT_BITS, WORD_BITS = 24, 16, 12


def command_layout(weights: str, streams: int = 1) -> data.StructLayout:
    """A matrix instruction; for MXFP4 with `narrow`: base and stride count words of 4-bit codes, two in a ROM word."""
    return data.StructLayout({
        "x": 16, "base": 24, "rows": 16, "kwords": 12, "stride": 16, "dst": VMEM_BITS,
        "kv": 1, "bare": 1, "gather": 1, "two_limb": 1, "push": push_bits(streams),
        **({"narrow": 1} if weights == "mxfp4" else {}),
    })


def word_layout(vlen: int, weights: str = "mxint8") -> data.StructLayout:
    """What travels with an operand word: ends of block, row and instruction, its source, the lane of a GATHER.

    For MXFP4 also whether it is of 4-bit codes, and then whether it is the second in its ROM word.
    """
    narrow = {"narrow": 1, "second": 1} if weights == "mxfp4" else {}
    return data.StructLayout({
        "block_end": 1, "row_end": 1, "end": 1, "kv": 1, "bare": 1, "gather": 1, "lane": exact_log2(vlen), **narrow,
    })


class OperandIssue(wiring.Component):
    """Reads one operand word a cycle, without a gap between rows and instructions.

    The command stays at `cmd` until its last word is read and is read combinationally into the addresses: the
    station's copy is the only one. `rows` and `kwords` are 1 or more.

    Parameters: `vlen`; `weights`, the format that the ROM is made for; `streams` in flight.

    Members
    -------
    cmd: In(stream of command_layout)
    start: Out(stream of destination_layout)
        Every instruction, with its first word; nothing is read until it is taken.
    weight_addr: Out(24), x_addr: Out(16), rom_en, kv_en, x_en: Out(1)
        Memory reads of this cycle; none of the ROM for the second half of a word that was just read.
    word: Out(stream of word_layout)
        One cycle after the read, as long as the memories hold their data; while it is not taken nothing is read.
    """

    def __init__(self, *, vlen: int, weights: str = "mxint8", streams: int = 1):
        self.vlen, self.weights = vlen, weights
        super().__init__({
            "cmd": In(stream.Signature(command_layout(weights, streams))),
            "start": Out(stream.Signature(destination_layout(streams))),
            "weight_addr": Out(BASE_BITS), "x_addr": Out(16), "rom_en": Out(1), "kv_en": Out(1), "x_en": Out(1),
            "word": Out(stream.Signature(word_layout(vlen, weights))),
        })

    def elaborate(self, platform):
        m = Module()
        cmd = self.cmd.payload
        row, k, first = Signal(COUNT_BITS), Signal(WORD_BITS), Signal(init=1)
        room, read = Signal(), Signal()
        m.d.comb += [
            room.eq(~self.word.valid | self.word.ready),
            self.start.valid.eq(self.cmd.valid & first & room), self.start.p.dst.eq(cmd.dst),
            self.start.p.push.eq(cmd.push), read.eq(self.cmd.valid & room & (~first | self.start.ready)),
        ]

        words, next_row = Signal(WORD_BITS), Signal(COUNT_BITS + 1)
        at_last, row_end, end = Signal(), Signal(), Signal()
        m.d.comb += [
            words.eq(Mux(cmd.gather, 1 + cmd.two_limb, cmd.kwords)), next_row.eq(row + 1),
            row_end.eq(Mux(first, words == 1, at_last)), end.eq(row_end & (next_row == cmd.rows)),
        ]
        with m.If(read):
            # whether the next word is its row's last is known one word ahead: the addresses wait for it
            m.d.sync += [
                k.eq(Mux(row_end, 0, k + 1)), first.eq(end),
                at_last.eq(Mux(row_end, words == 1, k + 2 == words)),
            ]
        with m.If(read & row_end):
            m.d.sync += row.eq(Mux(end, 0, next_row))

        lane = Signal(exact_log2(self.vlen))
        m.d.comb += lane.eq(cmd.x + row)
        self._addresses(m, first, row_end, words, lane, k, read)

        valid = Signal()
        held = Signal(word_layout(self.vlen, self.weights), reset_less=True)
        span = max(1, 32 // self.vlen)
        with m.If(room):
            m.d.sync += [
                valid.eq(read), held.row_end.eq(row_end), held.end.eq(end), held.kv.eq(cmd.kv),
                held.bare.eq(cmd.bare), held.gather.eq(cmd.gather), held.lane.eq(lane),
                held.block_end.eq(row_end | cmd.gather | (k[: exact_log2(span)] == span - 1)),
            ]
        from_rom = read & ~cmd.kv
        if self.weights == "mxfp4":
            second = cmd.narrow & self.weight_addr[0]
            with m.If(room):
                m.d.sync += [held.narrow.eq(cmd.narrow), held.second.eq(second)]
            from_rom = from_rom & ~(second & k.any())
        m.d.comb += [
            self.cmd.ready.eq(read & end), self.word.valid.eq(valid), self.word.payload.eq(held),
            self.rom_en.eq(from_rom), self.kv_en.eq(read & cmd.kv), self.x_en.eq(read & ~cmd.gather),
        ]
        return m

    def _addresses(self, m, first, row_end, words, lane, k, read):
        """A row begins `stride` after the row before; a GATHER's at the next word when the lane wraps."""
        cmd = self.cmd.payload
        address, current = Signal(BASE_BITS, reset_less=True), Signal(BASE_BITS)
        element_word = cmd.x >> exact_log2(self.vlen)
        offset = Mux(cmd.gather, Mux(cmd.two_limb, element_word << 1, element_word), 0)
        stride = Mux(cmd.gather, Mux(lane.all(), words, 0), cmd.stride)
        m.d.comb += [
            current.eq(Mux(first, cmd.base, address)), self.weight_addr.eq(current + offset),
            self.x_addr.eq(cmd.x + k),
        ]
        with m.If(read):
            # at the row's end k = words - 1, so that stride - k is the way to the next row's first word
            m.d.sync += address.eq(current + Mux(row_end, stride, 1) - Mux(row_end, k, 0))
