"""A chip folder with the real host port and, instead of a mesh, one tile in Verilog that looks the next token up."""

import json
from pathlib import Path

import jinja2
from small_chip import chip_manifest

from hwgen.emit.verilog import module_files
from hwgen.isa import ENDS
from hwgen.rtl.axi_lite_registers import REGISTERS, STATUS_BITS
from hwgen.rtl.host_packets import KINDS
from hwgen.rtl.host_port import AXI_LITE_PORTS, FIFO_WORDS, HostPort
from hwgen.rtl.packet import PacketFormat
from hwgen.rtl.performance import COUNTERS

TEMPLATES = Path(__file__).parent.parent / "templates"
CONTEXT, VOCAB, SIGNATURE = 64, 32, 0x12345678
NETWORK = {"flit_bits": 64, "width": 1, "height": 1, "buffer_flits": 4, "address_bits": 8, "multicast": True}

_TILE = """
module tile_toy (
  input clk, input rst,
  input in_valid, input [63:0] in_data, input in_last, output in_credit,
  output reg out_valid, output reg [63:0] out_data, output reg out_last, input out_credit
);
  // one message at a time, slow enough never to run out of credit
  reg header, granted; reg [3:0] ctr; reg [31:0] token, flags, wait_left, done_runs; reg [7:0] left, at; reg [2:0] job;
  wire [31:0] next;
  rom #(.WIDTH(32), .DEPTH(VOCAB_), .ADDRESS(5), .INIT_FILE("rom/toy.hex")) table_rom (
    .clk(clk), .read_en(1'b1), .read_addr(token[4:0]), .read_data(next));
  wire [5:0] chosen = (next + flags[5:0]) % VOCAB_;
  assign in_credit = in_valid;
  wire [31:0] number = {24'b0, at};
  wire [31:0] even = done_runs + 2 * number - 2, odd = even + 1, negative = -number;
  always @(posedge clk) begin
    out_valid <= 0;
    if (rst) begin header <= 1; granted <= 0; job <= 0; left <= 0; done_runs <= 0; end
    else begin
      if (in_valid) begin
        header <= in_last;
        if (header) ctr <= in_data[CTR_ +: 4];
        else if (ctr == START_) begin
          token <= in_data[31:0]; flags <= in_data[63:32]; job <= 1; wait_left <= DELAY_; at <= 0;
          done_runs <= in_data[58] ? 1 : done_runs + 1;
        end
        else if (ctr == REPORT_) begin job <= 4; at <= 0; end
        else granted <= 1;
      end
      // 1 compute, 2 wait for a grant, 3 logits, 4 counters
      if (job == 2 && granted) begin job <= 3; granted <= 0; end
      if (job == 1) begin
        wait_left <= wait_left - 1;
        if (wait_left == 1) begin
          out_valid <= 1; out_last <= 0; out_data <= flags[24] ? RESULT_ : DONE_;
          if (flags[24] && flags[25]) begin out_valid <= 0; job <= 2; end
        end
        if (wait_left == 0) begin
          out_valid <= 1; out_last <= 1; out_data <= {26'b0, chosen, 32'd9}; job <= 0;
        end
      end
      if (job == 3) begin // a packet of one word every 8 cycles
        left <= left + 1;
        if (left[2:0] == 0) begin out_valid <= 1; out_last <= 0; out_data <= at == VOCAB_ ? DONE_ : LOGIT_; end
        if (left[2:0] == 1) begin
          out_valid <= 1; out_last <= 1; out_data <= at == chosen ? 64'd9 : {32'b0, negative};
          at <= at + 1; if (at == VOCAB_) job <= 0;
        end
      end
      if (job == 4) begin
        left <= left + 1;
        if (left[2:0] == 0) begin
          out_valid <= 1; out_last <= at == 4; at <= at + 1;
          out_data <= at == 0 ? COUNTERS_ : {odd, even};
          if (at == 4) job <= 0;
        end
      end
    end
  end
endmodule
"""


def next_token(token: int, position: int) -> int:
    return (_next(token) + position) % VOCAB


def tokens(prompt, count):
    """What the toy answers."""
    found, token = [], prompt[-1]
    for position in range(len(prompt) - 1, min(CONTEXT, len(prompt) - 1 + count)):
        token = next_token(token, position)
        found.append(token)
    return found


def write_toy(build: Path, *, delay: int = 200) -> Path:
    """The folder of a toy that takes `delay` cycles a token."""
    for name in ("rtl", "rom"):
        (build / name).mkdir(parents=True)
    port = HostPort(**NETWORK, context=CONTEXT, vocab=VOCAB, signature=SIGNATURE, grant_order=((0, 0, VOCAB),))
    files = module_files({"host_port": port}) | {"tile_toy.v": _tile(delay), "chip.v": _chip()}
    for name in ("rom", "sram"):
        files[f"{name}.v"] = jinja2.Template((TEMPLATES / f"{name}.v.j2").read_text()).render()
    for name, text in files.items():
        (build / "rtl" / name).write_text(text)
    (build / "rom" / "toy.hex").write_text("".join(f"{_next(token):08x}\n" for token in range(VOCAB)))
    manifest = {
        "top": "chip", "files": [f"rtl/{name}" for name in sorted(files)], "width": 1, "height": 1,
        "context": CONTEXT, "vocab": VOCAB, "signature": SIGNATURE, "registers": REGISTERS, "status_bits": STATUS_BITS,
        "counters": COUNTERS, "ends": ENDS,
        "memory_images": [{"file": "rom/toy.hex", "words": VOCAB, "digits": 8}],
    }
    (build / "manifest.json").write_text(json.dumps(chip_manifest() | manifest))  # what no run reads is another chip's
    return build


def _next(token):
    return (token * 5 + 3) % VOCAB


def _tile(delay):
    packet = PacketFormat(**NETWORK)
    values = {
        "CTR_": packet.fields["ctr"][0], "START_": packet.counters.start,
        "REPORT_": packet.counters.report, "VOCAB_": VOCAB,
        "DELAY_": delay, "LOGIT_": packet.pack(host=1, addr=KINDS["logits"]),
        "RESULT_": packet.pack(host=1, addr=KINDS["result"], last=1),
        "DONE_": packet.pack(host=1, addr=KINDS["done"], last=1),
        "COUNTERS_": packet.pack(host=1, addr=KINDS["counters"], last=1),
    }
    text = _TILE
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


def _chip():
    ports = {"clk": ("input", 1), "rst": ("input", 1)}
    for name, port in AXI_LITE_PORTS.items():
        ports[f"s_axi_{name}"] = ("input" if port.flow.name == "In" else "output", port.shape)
    for prefix, forward, back in (("s_axis", "input", "output"), ("m_axis", "output", "input")):
        ports |= {f"{prefix}_tdata": (forward, 32), f"{prefix}_tvalid": (forward, 1), f"{prefix}_tlast": (forward, 1),
                  f"{prefix}_tready": (back, 1)}
    declared = ",\n".join(f"  {way} [{bits - 1}:0] {name}" if bits > 1 else f"  {way} {name}"
                          for name, (way, bits) in ports.items())
    joined = "".join(f"    .{name}({name}),\n" for name in ports)
    links = "".join(f"    .{port}__{part}({port}_{part})" + (",\n" if (port, part) != ("noc_in", "credit") else "\n")
                    for port in ("noc_out", "noc_in") for part in ("valid", "data", "last", "credit"))
    fifo = "".join(f"    .fifo_{name}(fifo_{name}),\n" for name in (
        "write_en", "write_addr", "write_data", "read_en", "read_addr", "read_data"))
    return f"""module chip (
{declared}
);
  wire noc_out_valid, noc_out_last, noc_out_credit, noc_in_valid, noc_in_last, noc_in_credit;
  wire [63:0] noc_out_data, noc_in_data;
  wire fifo_write_en, fifo_read_en;
  wire [6:0] fifo_write_addr, fifo_read_addr;
  wire [31:0] fifo_write_data, fifo_read_data;
  host_port host (
{joined}{fifo}{links}  );
  sram #(.WIDTH(32), .GROUP(32), .DEPTH({FIFO_WORDS}), .ADDRESS(7)) fifo (
    .clk(clk), .read_en(fifo_read_en), .read_addr(fifo_read_addr), .read_data(fifo_read_data),
    .write_en(fifo_write_en), .write_addr(fifo_write_addr), .write_data(fifo_write_data), .write_mask(1'b1));
  tile_toy tile (
    .clk(clk), .rst(rst), .in_valid(noc_out_valid), .in_data(noc_out_data), .in_last(noc_out_last),
    .in_credit(noc_out_credit), .out_valid(noc_in_valid), .out_data(noc_in_data), .out_last(noc_in_last),
    .out_credit(noc_in_credit));
endmodule
"""
