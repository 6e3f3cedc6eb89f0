"""What `hwgen explore` shows: amounts, tables, plots, refusals, and the command line that repeats a run."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import explore.command
from explore.action import Codec
from explore.amounts import amount, column, plain, rounded_up
from explore.command import _choice, command_line
from explore.command import explore as run
from explore.kept import Kept
from explore.plots import even_ticks, front_svg, log_ticks, progress_svg
from explore.problem import Problem
from explore.report import figures_of as figures_of_design
from explore.report import limits, nodes_table, report_html
from explore.scenario import Scenario
from explore.search import search
from explore.space import Space
from explore.workload import read_workload
from hwgen.commands import app
from hwgen.commands.explore import _print_table
from hwgen.errors import HwgenError

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
stories = partial(run, "stories260k", nm=7, goal="high-performance", evaluations=64)
draw = np.random.default_rng(1)


@pytest.mark.parametrize(("value", "unit", "shown"), [
    (0.0056551, "W", "5.655 mW"), (0.99996, "W", "1 W"), (1234.4, "W", "1,234 W"), (9.8164e-5, "s", "98.16 µs"),
    (0.00099996, "s", "1 ms"), (5.55e-7, "J", "555 nJ"), (0, "W", "0 W"), (1e-15, "J", "0.001 pJ"),
    (570120.3, "tokens/s", "570,120 tokens/s"), (0.1359, "mm2", "0.1359 mm2"), (7.16e-5, "mm2", "71.6 µm2"),
    (0.0114, "USD", "0.0114 USD"), (3.412e-8, "USD", "34.12 nUSD")])
def test_amounts_as_people_read_them(value, unit, shown):
    assert amount(value, unit) == shown


def test_a_column_has_one_unit():
    assert column([0.0012, 0.61, 0.0345], "W") == ("mW", ["1.2", "610", "34.5"])
    assert column([1.163, 0.0009209], "W") == ("W", ["1.163", "0.0009209"])


def test_amounts_keep_four_digits_and_rounding_up_is_never_below():
    for value in 10 ** draw.uniform(-12, 2.9, 500):
        number, unit = amount(value, "W").split()
        assert 1 <= float(number) < 1000 or unit == "pW"
        back = float(number) * 1000.0 ** -["W", "mW", "µW", "nW", "pW"].index(unit)
        assert back == pytest.approx(value, rel=6e-4)
        assert value <= rounded_up(value) <= 1.0011 * value


def test_axes_have_three_labels_or_more():
    for low, span in zip(draw.uniform(-9, 6, 500), draw.uniform(0.1, 6, 500), strict=True):
        ticks = log_ticks(low, low + span)
        assert 3 <= len(ticks) <= 13 and ticks == sorted(set(ticks))
        assert all(low <= np.log10(tick) + 1e-9 and np.log10(tick) <= low + span + 1e-9 for tick in ticks)
        even = even_ticks(low, low + span)
        assert 3 <= len(even) <= 7 and low - 1e-9 <= even[0] and even[-1] <= low + span + 1e-9
    assert log_ticks(0, 2) == [1, 2, 5, 10, 20, 50, 100] and log_ticks(0, 6)[:2] == [1, 10]


def found_of(scenario, space):
    return search(Problem(scenario, Codec(space)), None, 200, seed=0)


@pytest.fixture(scope="module")
def one_tile():
    return found_of(Scenario(read_workload("stories260k"), 7, context=64), Space(fixed={"width": 1, "height": 1}))


def test_the_front_has_axes_and_a_scale_of_area(one_tile):
    svg = front_svg(one_tile)
    assert svg.count("log scale") == 3 and "die area (mm2)" in svg and "speed (tokens/s" in svg and "power (W)" in svg
    labels = re.findall(r'text-anchor="(\w+)">([^<]*)<', svg)
    assert sum(anchor == "end" and label.endswith("W") for anchor, label in labels) >= 3
    assert sum(anchor == "middle" and label[0].isdigit() for anchor, label in labels) >= 6
    assert svg.count('class="grid"') >= 6 and 'class="chosen"' in svg
    fills = set(re.findall(r'r="3.4" fill="([^"]*)"', svg))
    assert len(fills) > 1 and "var(--" in svg
    progress = progress_svg(one_tile)
    assert "evaluations, log scale" in progress and "best score" in progress and progress.count('class="grid"') >= 6


def test_a_report_of_one_tile_says_numbers_and_no_squares(one_tile):
    page = " ".join(report_html(one_tile, {}).split())
    assert "(dark)" not in page and "on every tile" not in page and "WMEM, KiB</h3>" in page
    assert "along a row" not in page and "busiest link into a tile" in page and "-0.0 %" not in page
    assert "The score that was maximised: 0.4 ln(tok/s) - 0.4 ln(W) - 0.2 ln(mm²)" in page


def test_a_floor_says_when_it_holds_the_vision_tower():
    scenario = Scenario(read_workload("smolvlm-256m"), 7, context=80, prompt=16)
    found = found_of(scenario, Space(2, side=4))
    words = dict(limits(found, figures_of_design(found.figures(found.best))))
    assert " mm2 of weights and vision tower and " in words["floor of area"]
    assert words["time"].startswith("the largest part of a step is ")


def test_no_number_of_the_nodes_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    row = {"node": 28, "width": 64, "height": 64, "streams": 8, "pipeline_stages": 32, "clock_mhz": 1234.567,
           "tok_s": 5.7012e5, "tok_s_stream": 71265.4, "power": 1.78e-5, "area": 3557.1, "energy_per_token": 5.55e-7,
           "cost_per_mtok": 3.41e-8, "score": None, "feasible": False}
    header, cells = nodes_table([row, row | {"power": 2.5e-6, "score": 6.16, "feasible": True}])
    assert "µW" in header and "nJ/\ntoken" in header and "nUSD/\nMtok" in header
    _print_table(header, cells)
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.replace(", ", ",").split() for line in lines] == [
        [cell.replace(", ", ",") for cell in row] for row in cells]
    assert {"570,120", "17.8", "34.1", "-", "no"} <= set(cells[0]) and {"2.5", "6.1600", "yes"} <= set(cells[1])


def test_the_choice_of_a_node_is_explained():
    def node(nm, score):
        return SimpleNamespace(problem=SimpleNamespace(scenario=SimpleNamespace(nm=nm)), scores=torch.tensor([score]))

    cheap, good = node(28, 1.0), node(3, 2.0)
    assert _choice(good, [cheap, good]) == "chosen: 3 nm, the least USD per million tokens"
    assert _choice(cheap, [cheap, good]).endswith("; the best score is that of 3 nm")


@pytest.mark.parametrize(("budget", "goal", "figure"), [
    ("power_max", "0,1,0", "power"), ("area_max", "0,0,1", "area"), ("latency_max", "1,0,0", "latency_s")])
def test_a_refusal_names_what_is_possible(budget, goal, figure):
    flag, free = "--" + budget.replace("_", "-"), stories(goal=goal)[figure]
    with pytest.raises(HwgenError, match="Budgets must be possible together") as refused:
        stories(**{budget: 0.1 * free})
    text = str(refused.value)
    assert f"stories260k on 7 nm, not {flag} {0.1 * free:.12g}: " in text
    least = float(re.search(rf"the least found, each alone: {flag} (\S+) (W|mm2|s)$", text)[1])
    assert least <= 1.01 * free
    assert stories(**{budget: least})[figure] <= least


def test_a_refusal_finds_the_nearest_of_several_budgets():
    with pytest.raises(HwgenError) as refused:
        stories(power_max=3e-5, area_max=0.2)
    text = str(refused.value)
    assert "not --power-max 3e-05 --area-max 0.2: power must be within the budget; the nearest design takes " in text
    assert re.search(r"takes 3\d\.\d+ µW, 0\.1\d+ mm2 and .* a step; the least found, each alone: --power-max \S+ W, "
                     r"--area-max \S+ mm2$", text)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--nodes", ""], "Nodes must be of .*, not ''"),
    (["--node", "28", "--nodes", "7"], "At most one of --node and --nodes must be given"),
    (["--clock-max", "0.001"], "--clock-max must be at least 1 MHz, .*, not 0.001"),
    (["-o", "/proc/x"], "Output folder must be .*, not /proc/x"),
    (["--context", "0"], "Context must be 1 to 512, not 0")], ids=str)
def test_what_cannot_be_is_refused_before_the_search(arguments, sentence, monkeypatch):
    monkeypatch.setattr(explore.command, "search", None)
    with pytest.raises(HwgenError, match=sentence):
        app(["explore", "stories260k", *arguments], standalone_mode=False)


def test_trying_an_output_folder_leaves_nothing(tmp_path):
    Kept(tmp_path / "a/b/run", {})
    assert not list(tmp_path.iterdir())
    (tmp_path / ".run.nodes").mkdir()
    Kept(tmp_path / "run", {})
    assert [p.name for p in tmp_path.iterdir()] == [".run.nodes"]


def test_an_image_may_fill_most_of_the_context(monkeypatch):
    seen = []

    def stop(problem, *_, **__):
        seen.append((problem.scenario.context, problem.scenario.prompt))
        raise KeyboardInterrupt

    monkeypatch.setattr(explore.command, "search", stop)
    for context in (65, 80, 2048):
        with pytest.raises(KeyboardInterrupt):
            run("smolvlm-256m", nm=7, goal="low-power", context=context)
    assert seen == [(65, 1), (80, 16), (2048, 32)]
    with pytest.raises(HwgenError, match="^Context must be above 64, the tokens of an image, not 64$"):
        run("smolvlm-256m", nm=7, goal="low-power", context=64)


def test_a_summary_says_how_to_repeat_the_run(tmp_path, monkeypatch):
    summary = stories(nodes="28,7", goal="0.2,0.3,0.5", weights="mxfp4", context=100, power_max=1.5, clock_max=200,
                      side=4, seed=3, output=tmp_path / "one")
    line = command_line(summary["query"])
    assert line.startswith("hwgen explore stories260k --nodes 28,7 --goal 0.2,0.3,0.5 --weights mxfp4 ")
    assert line in " ".join((tmp_path / "one/report.html").read_text().split())
    monkeypatch.chdir(tmp_path)
    app(shlex.split(line.replace("RUN", "two"))[1:], standalone_mode=False)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    saved = json.loads((tmp_path / "two/summary.json").read_text())
    assert saved["query"]["weights"] == "mxfp4" and saved["query"]["clock_max"] == 200 and saved["query"]["seed"] == 3
    assert saved["objective"] == [0.2, 0.3, 0.5] and str(tmp_path) not in json.dumps(saved)


def command(*arguments):
    return [sys.executable, "-m", "hwgen.cli", "explore", *map(str, arguments)]


def test_a_run_in_a_pipe_is_whole_and_quiet():
    done = subprocess.run(command("examples/model", "--side", 4, "--evaluations", 64, "--nodes", "28,7"), cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "…" not in done.stdout
    assert re.search(r"^chosen: (28|7) nm, the least USD per million tokens", done.stdout, re.M)
    assert not re.search(r"\de[-+]\d", done.stdout)


def test_an_interrupt_says_that_the_same_command_goes_on(tmp_path):
    process = subprocess.Popen(command("examples/model", "--side", 4, "--evaluations", 2048, "--nodes", "28,7", "-o",
                                       tmp_path / "run"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob(".run.nodes/*.pt")):
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 2
    assert "hwgen: interrupted; the same command goes on from the nodes that are finished" in errors


def test_plain_numbers_have_no_exponent_where_people_look():
    assert [plain(v) for v in (86196.4, 0.25331, 13.2627, 999.97)] == ["86,196", "0.2533", "13.26", "1,000"]
