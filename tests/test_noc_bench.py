"""The network's bench: the emitted mesh carries everything whole, and the scoreboard sees whatever goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.design import Design
from hwgen.errors import HwgenError
from hwgen.noc_bench import MeshBench, keeps_order, measure
from hwgen.noc_report import noc_report

ROOT = Path(__file__).parent.parent
DISTURBANCES = ({}, {"idle": 0.5}, {"backpressure": 0.5}, {"idle": 0.3, "backpressure": 0.4, "spell": 60})


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    design = Design(3, 3, flit_bits=64, buffer_flits=4, multicast=True)
    folder = tmp_path_factory.mktemp("mesh") / "-a b#c;d:e$f'g\"h%i é*j\nk"  # as TMPDIR may be
    folder.mkdir()
    return MeshBench(design, folder, quick=True)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """No multicast, the shortest buffer, 32-bit flits."""
    design = Design(2, 2, flit_bits=32, buffer_flits=2, multicast=False)
    return MeshBench(design, tmp_path_factory.mktemp("narrow"), quick=True)


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=str)
@pytest.mark.parametrize("load", [0.1, 0.9])
def test_mixed_traffic_arrives_whole_and_in_order(mesh, narrow, load, disturbance):
    for bench in (mesh, narrow):
        answer = bench.run("mixed", load=load, cycles=1500, warm=0, seed=1, **disturbance)
        assert answer["flits"] >= 400 and answer["offered"] == pytest.approx(load, rel=0.3)


@pytest.mark.parametrize("stages", [1, pytest.param(2, marks=pytest.mark.full)])
def test_registers_on_links_cost_a_cycle_each(stages, tmp_path):
    design = Design(3, 3, flit_bits=64, buffer_flits=2 + 2 * stages, link_registers=stages)
    bench = MeshBench(design, tmp_path, quick=True)
    bench.run("mixed", load=0.5, cycles=1000, warm=0, backpressure=0.3)
    ways = [4, 2, 4, 2, 2, 4, 2, 4]  # links between a node and its opposite, the middle left out
    latency = bench.run("bit-complement", load=0.002, flits=1, cycles=60000)["latency"]
    assert latency == pytest.approx(1 + (1 + stages) * sum(ways) / 8, rel=0.03)
    assert bench.run("bit-complement", load=1.0, flits=1, cycles=1000)["accepted"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("at", [1, 2, 700])
@pytest.mark.parametrize("broken", ["drop", "corrupt", "repeat", "misdeliver"])
@pytest.mark.parametrize("flits", [1, 4])
def test_one_wrong_flit_is_reported(mesh, flits, broken, at):
    with pytest.raises(HwgenError, match=r"deliver every packet once, whole and in order, but .* cycle \d+: "):
        mesh.run("uniform", load=0.3, flits=flits, cycles=1000, at=at, **{"break": broken})


def test_a_lost_multicast_delivery_is_reported(mesh):
    with pytest.raises(HwgenError, match="deliveries never happen"):
        mesh.run("all-gather", load=0.3, flits=1, cycles=1000, at=500, **{"break": "drop"})


def test_latency_at_low_load_is_the_distance_and_the_length(mesh):
    for flits in (1, 4):
        answer = mesh.run("bit-complement", load=0.01, flits=flits, cycles=3000)
        # between opposite corners of 3x3 a packet passes 5 routers, between the middles of the sides 3
        assert 3.8 < answer["latency"] - (flits - 1) < 4.4
        assert answer["latency_max"] >= 5 + flits - 1


def test_a_port_takes_one_flit_a_cycle(mesh):
    answer = mesh.run("bit-complement", load=1.0, flits=1, cycles=1000)
    assert answer["accepted"] == pytest.approx(1, abs=0.01) and answer["latency"] < 5
    over = mesh.run("hotspot", load=1.0, flits=1, cycles=1000, drain=0)
    assert over["accepted"] < 0.95 * over["offered"] and "latency" not in over


def test_all_gather_respects_its_bound(mesh):
    for way in ("multicast", "unicast"):
        for flits in (1, 4, 20):
            assert 8 * flits < mesh.run(f"gather-{way}", flits=flits)["completion"] < 8 * flits * 2 + 10


def test_same_seed_same_numbers(mesh):
    runs = [mesh.run("mixed", load=0.3, cycles=500, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_sweep_and_page(mesh):
    result = measure(mesh, flits=(1, 4), cycles=300)
    assert json.loads(json.dumps(result)) == result
    found = {(c["pattern"], c["flits"]): c for c in result["curves"]}
    assert len(found) == 12
    for curve in found.values():
        latencies = [point["latency"] for point in curve["points"]]
        # rough: in so few cycles chance moves the load that counts as accepted
        assert 0.05 < curve["saturation"] <= 1 and latencies[0] < 1.2 * min(latencies)
    page = noc_report(result)
    assert page.count("<path class=\"curve") == 12 and "all-gather" in page and "http" not in page


def test_command_writes_numbers_and_page(tmp_path):
    path, out = tmp_path / "design.yaml", tmp_path / "out"
    path.write_text("width: 2\nheight: 2\nflit_bits: 64\ntiles:\n  - name: tile\n")
    command = [sys.executable, "-m", "hwgen.cli", "noc-bench", str(path), "-o", str(out),
               "--patterns", "uniform,hotspot", "--loads", "0.1,0.2", "--flits", "2", "--cycles", "500", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [[point["load"] for point in curve["points"]] for curve in result["curves"]] == [[0.1, 0.2]] * 2
    assert json.loads((out / "noc.json").read_text()) == result
    assert (out / "noc.html").read_text() == noc_report(result)


def test_order_is_promised_where_one_path_has_one_queue_at_each_hop():
    for routing, channels, multicast, kept in [("xy", 1, True, True), ("xy", 2, True, False), ("yx", 2, True, True),
                                               ("o1turn", 2, False, True), ("o1turn", 4, True, False),
                                               ("west-first", 1, False, False)]:
        design = Design(4, 4, routing=routing, virtual_channels=channels, multicast=multicast)
        assert keeps_order(design) == kept


@pytest.mark.parametrize("arguments, message", [
    (["--patterns", "unifrom"], "Pattern must be uniform, transpose, bit-complement, hotspot, neighbour or all-gather"),
    (["--patterns", "transpose"], "Pattern transpose must have a square mesh, not 3x2"),
    (["--patterns", "all-gather"], "Pattern all-gather must have a design with multicast"),
    (["--loads", "0.1,2"], "Load must be above 0 and at most 1 flit per node and cycle, not 2.0"),
    (["--loads", "much"], "Load must be numbers separated by commas, not 'much'"),
    (["--flits", "1,18"], "Packet must be 1 to 17 flits long, not 18"),
    (["--cycles", "5"], "Cycles must be at least 100, not 5"),
], ids=str)
def test_refusals(arguments, message, tmp_path):
    path = tmp_path / "design.yaml"
    path.write_text("width: 3\nheight: 2\nmulticast: false\ntiles:\n  - name: tile\n")
    command = [sys.executable, "-m", "hwgen.cli", "noc-bench", str(path), "-o", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout and not (tmp_path / "out").exists()


def test_a_program_that_is_killed_is_no_defect_of_the_network(mesh, monkeypatch):
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: real(["sh", "-c", "kill -9 $$"], **how))
    with pytest.raises(HwgenError, match="must run to its end, but stopped with status -9 and says: nothing"):
        mesh.run("uniform", load=0.1)


def test_flits_too_narrow_to_tell_packets_apart(tmp_path):
    with pytest.raises(HwgenError, match="flit_bits must be at least 54 .* not 32"):
        MeshBench(Design(64, 64, flit_bits=32), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("routing, channels, multicast", [
    ("xy", 1, True), ("xy", 4, True), ("yx", 1, False), ("yx", 2, True), ("o1turn", 2, False), ("o1turn", 4, True),
    ("west-first", 1, False), ("west-first", 2, True), ("odd-even", 1, False), ("odd-even", 2, True),
    ("odd-even", 4, True),
])
def test_a_million_flits_on_4x4(tmp_path, routing, channels, multicast):
    bench = MeshBench(Design(4, 4, flit_bits=64, buffer_flits=4, routing=routing, virtual_channels=channels,
                             multicast=multicast), tmp_path)
    runs = [bench.run("mixed", load=load, cycles=50000, warm=0, seed=seed, **disturbance)
            for seed, disturbance in enumerate(DISTURBANCES) for load in (0.1, 0.5)]
    assert sum(run["flits"] for run in runs) >= 1_000_000
