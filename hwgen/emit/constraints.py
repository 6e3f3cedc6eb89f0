"""Timing constraints of a chip as SDC: what a flow needs besides the Verilog, and all that `clock_mhz` decides."""

from amaranth.hdl import Shape
from amaranth.lib.wiring import In

from hwgen.rtl.axi_lite_registers import AXI_LITE_PORTS

IO_SHARE = 0.3
"""Part of the clock period that lies outside the chip, before every input and behind every output."""
_STREAM = {"tdata": 32, "tvalid": 1, "tlast": 1}


def constraints(clock_mhz: float, streams: int) -> str:
    """SDC of the top module `chip`: its clock, and delays of all other ports as a share of the period.

    Plain commands with every port named, as OpenSTA and OpenROAD read them. The reset is synchronous, so it has an
    input delay like the rest and no false path. Loads and driving cells are the library's affair and not set.
    """
    period = 1000 / clock_mhz
    delay = f"{period * IO_SHARE:.6g}"
    inputs, outputs = _ports(streams)
    return (
        f"# chip at {clock_mhz:g} MHz\n"
        "# times in ns; with a library in other units, OpenSTA needs set_cmd_units -time ns first\n"
        "set_units -time ns\n"
        f"create_clock -name clk -period {period:.6g} [get_ports {{clk}}]\n"
        f"# {IO_SHARE:.0%} of the period outside the chip; rst is sampled at the clock's edge like every other input\n"
        + "".join(f"set_input_delay {delay} -clock clk [get_ports {{{port}}}]\n" for port in inputs)
        + "".join(f"set_output_delay {delay} -clock clk [get_ports {{{port}}}]\n" for port in outputs))


def _ports(streams):
    """Names of the inputs but for the clock, and of the outputs; those of several bits as patterns."""
    lite = {f"s_axi_{name}": port for name, port in AXI_LITE_PORTS.items()}
    inputs = {"rst": 1} | {name: Shape.cast(p.shape).width for name, p in lite.items() if p.flow == In}
    outputs = {name: Shape.cast(p.shape).width for name, p in lite.items() if p.flow != In}
    inputs |= {f"s_axis_{name}": width for name, width in _STREAM.items()} | {"m_axis_tready": 1}
    outputs |= {"s_axis_tready": 1} | {f"m_axis_{name}": width for name, width in _STREAM.items()}
    if streams > 1:
        outputs["m_axis_tid"] = (streams - 1).bit_length()
    # a vector of one bit is a scalar in some netlists
    return ([name if width == 1 and name != "m_axis_tid" else f"{name}*" if width == 1 else f"{name}[*]"
             for name, width in ports.items()] for ports in (inputs, outputs))
