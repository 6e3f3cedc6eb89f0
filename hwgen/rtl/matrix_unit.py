"""Matrix unit: streams weight or key-value words against operand words, one block dot product a cycle."""

import numpy as np
from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.arithmetic.mx import BLOCK, SCALE_BIAS
from hwgen.arithmetic.mxfp4 import FORMATS
from hwgen.rtl.block_shift import BlockShift
from hwgen.rtl.dot_product import VLENS, DotProduct
from hwgen.rtl.e2m1 import e2m1_elements
from hwgen.rtl.operand_issue import OperandIssue, command_layout
from hwgen.rtl.result_queue import ResultQueue, result_layout
from hwgen.rtl.row_accumulator import RowAccumulator

_INSTRUCTIONS = 3
"""Instructions whose results may be under way: enough for instructions of three words and more to follow closely."""


class MatrixUnit(wiring.Component):
    """Executes MATMUL and GATHER (ARCHITECTURE.md, sections 1, 3, 4) in order, one operand word a cycle.

    No bubble between rows or between instructions of 3 and more words. A result follows the read of its row's last word
    by LATENCY cycles. While results are not taken, up to 5 rows stay in a queue and then no word is read.

    Parameters: `vlen` (8, 16, 32, 64, 128, 256), `weights` (mxint8, or mxfp4: the ROM has words of 4-bit codes, too),
    `streams` in flight, address widths of the three memories (weight ROM and KV at most 24).

    Members
    -------
    cmd: In(stream of command_layout)
        `base`, `rows`, `kwords` final (index and dyn_* resolved), rows and kwords 1 or more; taken with the last word.
    rom_en, rom_addr, rom_data; kv_en, kv_addr, kv_data; x_en, x_addr, x_data
        Synchronous reads of MX words (of ROM words): data one cycle after `en`, held while `en` is low.
    result: Out(stream of result_layout)
        Per output row: int32, dst + r, last of its instruction, push.
    mac_busy: Out(1)
        A valid operand word is accepted this cycle.
    overflow: Out(1)
        Pulses after a block value or the exact sum of a row was no int32.
    """

    LATENCY = DotProduct.LATENCY + 4

    def __init__(self, *, vlen: int, weights: str = "mxint8", streams: int = 1, rom_address_bits: int = 24,
                 kv_address_bits: int = 20, x_address_bits: int = 16):
        if vlen not in VLENS:
            raise ValueError(f"VLEN must be 8, 16, 32, 64, 128 or 256, not {vlen!r}")
        if weights not in FORMATS:
            raise ValueError(f"Weights must be {' or '.join(FORMATS)}, not {weights!r}")
        for name, bits, most in (
            ("Weight ROM", rom_address_bits, 24), ("KV", kv_address_bits, 24), ("Operand", x_address_bits, 16),
        ):
            if not 1 <= bits <= most:
                raise ValueError(f"{name} address width must be 1 to {most}, not {bits!r}")
        self.vlen, self.weights, self.blocks = vlen, weights, max(1, vlen // BLOCK)
        self.streams = streams
        word = 8 * (vlen + self.blocks)
        rom_word = word if weights == "mxint8" else word + 8 * self.blocks
        super().__init__({
            "cmd": In(stream.Signature(command_layout(weights, streams))),
            "result": Out(stream.Signature(result_layout(streams))),
            "rom_en": Out(1), "rom_addr": Out(rom_address_bits), "rom_data": In(rom_word),
            "kv_en": Out(1), "kv_addr": Out(kv_address_bits), "kv_data": In(word),
            "x_en": Out(1), "x_addr": Out(x_address_bits), "x_data": In(word),
            "mac_busy": Out(1), "overflow": Out(1),
        })

    @staticmethod
    def model(w, w_scales, x, x_scales):
        """(int32 rows, overflow) of w int8 [rows, blocks, n <= 32] times x [blocks, n].

        Scale codes are [rows, blocks] and [blocks]. A GATHER is the case of one element a block: w the element of
        each limb, x = 64, x_scales = 127.
        """
        codes = np.asarray(x_scales, np.int64) + np.asarray(w_scales, np.int64)
        values = BlockShift.model(DotProduct.model(x, w), codes)
        return RowAccumulator.model(*values)

    def elaborate(self, platform):
        m = Module()
        m.submodules.issue = issue = OperandIssue(vlen=self.vlen, weights=self.weights, streams=self.streams)
        # a row's credit is out from acceptance until its result leaves
        m.submodules.queue = queue = ResultQueue(
            depth=self.LATENCY - 1, instructions=_INSTRUCTIONS, streams=self.streams)
        wiring.connect(m, wiring.flipped(self.cmd), issue.cmd)
        wiring.connect(m, issue.start, queue.start)
        wiring.connect(m, queue.result, wiring.flipped(self.result))
        word, accept, rom_addr = issue.word.payload, Signal(), issue.weight_addr
        if self.weights == "mxfp4":
            rom_addr = Mux(self.cmd.p.narrow, rom_addr >> 1, rom_addr)
        m.d.comb += [
            self.rom_en.eq(issue.rom_en), self.kv_en.eq(issue.kv_en), self.x_en.eq(issue.x_en),
            self.rom_addr.eq(rom_addr), self.kv_addr.eq(issue.weight_addr), self.x_addr.eq(issue.x_addr),
            issue.word.ready.eq(~word.row_end | queue.credit), accept.eq(issue.word.valid & issue.word.ready),
            self.mac_busy.eq(accept), queue.take.eq(accept & word.row_end),
        ]

        w, w_scales, x, x_scales = self._operands(m, word)
        m.submodules.dot = dot = DotProduct(vlen=self.vlen)
        m.submodules.shift = shift = BlockShift(blocks=self.blocks, ahead=DotProduct.LATENCY)
        m.submodules.rows = rows = RowAccumulator(blocks=self.blocks)
        early = self._delay(m, Cat(accept, accept & word.block_end, accept & word.row_end, word.end), 1)
        if self.vlen < BLOCK:
            m.d.comb += [dot.valid.eq(early[0]), dot.end.eq(early[1])]
        middle = self._delay(m, early[1:], DotProduct.LATENCY)
        valid, last, end = self._delay(m, middle, 1)
        m.d.comb += [
            dot.x.eq(x), dot.w.eq(w), shift.dots.eq(dot.totals), shift.valid.eq(middle[0]),
            shift.x_scales.eq(x_scales), shift.w_scales.eq(w_scales),
            rows.value.eq(shift.value), rows.half.eq(shift.half), rows.overflowed.eq(shift.overflow),
            rows.valid.eq(valid), rows.last.eq(last), self.overflow.eq(rows.overflow),
            queue.put.eq(last), queue.data.eq(rows.total), queue.last.eq(end),
        ]
        return m

    @staticmethod
    def _delay(m, bits, cycles):
        for _ in range(cycles):
            register = Signal(len(bits))
            m.d.sync += register.eq(bits)
            bits = register
        return bits

    def _operands(self, m, word):
        """Operand registers: the weight source, and a one-hot operand worth 1 for a GATHER.

        The operand is kept inverted: its gates come for less so, and the multiplier takes either.
        """
        width, scales = 8 * self.vlen, 8 * self.blocks
        source = Mux(word.kv, self.kv_data, self._rom_word(m, word, width, scales))
        w, x = Signal(width, reset_less=True), Signal(width, reset_less=True)
        w_scales, x_scales = Signal(scales, reset_less=True), Signal(scales, reset_less=True)
        one = C(SCALE_BIAS, 8).replicate(self.blocks)
        gathered = Cat(Cat(C(0, 6), word.gather & (word.lane == lane), C(0, 1)) for lane in range(self.vlen))
        m.d.sync += [
            w.eq(source[:width]), w_scales.eq(Mux(word.bare, one, source[width:])),
            x.eq(~((self.x_data[:width] & ~word.gather.replicate(width)) | gathered)),
            x_scales.eq(Mux(word.gather, one, self.x_data[width:])),
        ]
        return w, w_scales, ~x, x_scales

    def _rom_word(self, m, word, width, scales):
        """The MX word in the ROM's: elements and scales as they are, or either half of the codes with its scales."""
        if self.weights == "mxint8":
            return self.rom_data
        elements, first, second = self.rom_data[:width], self.rom_data[width:][:scales], self.rom_data[width + scales:]
        codes = Mux(word.second, elements[width // 2:], elements[: width // 2])
        return Cat(Mux(word.narrow, e2m1_elements(m, codes), elements), Mux(word.second, second, first))
