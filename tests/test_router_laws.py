# amaranth: UnusedElaboratable=no
"""The emitted router held to its laws in every cycle, and the bench that does so held to mutants of the router."""

import subprocess

import pytest

from hwgen.noc.network import Network
from verify.mutants import equivalent, hunt, make_mutants
from verify.router_bench import RouterBench, router_verilog

NETWORKS = [
    Network(4, 4, buffer_flits=4, flit_bits=64, multicast=False),
    Network(4, 3, buffer_flits=2, flit_bits=64, multicast=True, routing="odd-even", virtual_channels=2),
]
MORE = [
    Network(3, 4, buffer_flits=3, flit_bits=32, multicast=True),
    Network(4, 4, buffer_flits=16, flit_bits=128, multicast=True),
    Network(3, 3, buffer_flits=2, flit_bits=32, multicast=True, virtual_channels=2),
    Network(4, 3, buffer_flits=3, flit_bits=32, multicast=False, routing="yx"),
    Network(4, 4, buffer_flits=4, flit_bits=64, multicast=False, routing="west-first"),
    Network(3, 4, buffer_flits=2, flit_bits=64, multicast=False, routing="odd-even", virtual_channels=4),
    Network(3, 3, buffer_flits=3, flit_bits=64, multicast=True, routing="o1turn", virtual_channels=4),
    Network(4, 2, buffer_flits=2, flit_bits=512, multicast=True, routing="west-first", virtual_channels=2),
]
SMALL = Network(4, 4, buffer_flits=2, flit_bits=32, multicast=True)


@pytest.mark.parametrize("network", [*NETWORKS, *(pytest.param(n, marks=pytest.mark.full) for n in MORE)], ids=str)
def test_router_keeps_its_laws_in_every_cycle(network, tmp_path):
    bench = RouterBench(network, tmp_path, quick=True)
    for cycles, seed in ((100, 1), (1000, 2)):
        answer = bench.run(cycles=cycles, seed=seed)
        assert not answer.error and answer.flits > 50 * cycles


def test_the_bench_catches_mutants_of_the_router(tmp_path):
    """A few of those that `make mutation` makes by the hundred."""
    outcomes = hunt(SMALL, count=40, seed=1, folder=tmp_path)
    found = [outcome.verdict for outcome in outcomes]
    assert len(found) == 40 and found.count("killed") >= 35 and found.count("survived") <= 2
    assert len({outcome.how for outcome in outcomes if outcome.verdict == "killed"}) > 5


def test_a_mutant_that_is_none_is_told_from_one(tmp_path):
    make_mutants(router_verilog(SMALL), count=2, seed=3, folder=tmp_path)
    # no mutation has number 3
    assert equivalent([1, 3], 2, tmp_path) == {3}


def test_assertions_are_plain_verilog_and_not_in_what_is_synthesised(tmp_path):
    plain, checked = router_verilog(SMALL), router_verilog(SMALL, checks=True)
    assert "$stop" not in plain and "assert" not in plain + checked
    assert checked.count("$stop") == 25  # for each port: its buffer, its credits, their two counts, its output
    (tmp_path / "router.v").write_text(checked)
    done = subprocess.run(["iverilog", "-g2005", "-Wall", "-o", tmp_path / "x.vvp", tmp_path / "router.v"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
