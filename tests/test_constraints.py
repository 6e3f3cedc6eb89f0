"""The SDC file that goes with a chip: every port of the top has a clock or a delay, and the clock is the design's."""

import re

import pytest

from hwgen.emit.constraints import IO_SHARE, constraints
from hwgen.emit.templates import render


def top_ports(streams):
    """Port -> (direction, bits) of the emitted top."""
    spec = type("Spec", (), {"width": 1, "height": 1, "streams": streams})
    text = render("chip.v.j2", spec=spec, tiles=[], links=[], stages=[], axi=[], fifo_words=2, fifo_address=1,
                  channels=1)
    header = text[text.index("module chip ("):text.index(");")]
    found = re.findall(r"(input|output) (?:\[(\d+):0\] )?(\w+)", header)
    return {name: (way, int(high or 0) + 1) for way, high, name in found}


def named(text, command):
    """Port patterns that `command` names, in order."""
    return re.findall(rf"^{command} .*\[get_ports {{(\S+)}}\]$", text, re.M)


@pytest.mark.parametrize("streams", [1, 2, 8])
def test_every_port_is_constrained_once(streams):
    text, ports = constraints(500.0, streams), top_ports(streams)
    assert named(text, "create_clock") == ["clk"]
    for command, wanted in (("set_input_delay", "input"), ("set_output_delay", "output")):
        patterns = named(text, command)
        of_way = {name: bits for name, (way, bits) in ports.items() if way == wanted and name != "clk"}
        assert sorted(re.sub(r"\[\*\]|\*", "", p) for p in patterns) == sorted(of_way)
        assert all(("*" in p) == (of_way[re.sub(r"\[\*\]|\*", "", p)] > 1) for p in patterns if "tid" not in p)
    commands = {line.split()[0] for line in text.splitlines()}
    assert commands == {"#", "set_units", "create_clock", "set_input_delay", "set_output_delay"}


@pytest.mark.parametrize(("mhz", "period"), [(500.0, 2), (1, 1000), (5000, 0.2), (300, 10 / 3), (133.3, 1000 / 133.3)])
def test_times_follow_the_clock(mhz, period):
    text = constraints(mhz, 1)
    assert float(re.search(r"-period (\S+) ", text)[1]) == pytest.approx(period, rel=1e-5)
    delays = {float(delay) for delay in re.findall(r"^set_\w+_delay (\S+) -clock clk", text, re.M)}
    assert [*delays] == [pytest.approx(period * IO_SHARE, rel=1e-5)]
