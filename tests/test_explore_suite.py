"""The explorer's benchmark: its scenarios can be met, its statistics are right, and small spaces are solved."""

import numpy as np
import pytest
import torch

from bench.explore_suite import SMALL, every_design, exhaustive, iqm, iqm_interval, measure, methods, small_space, suite
from bench.explore_suite import summary as lines_of
from bench.row_file import RowFile
from explore.action import Codec
from explore.designer import SHIPPED
from explore.goal import INFEASIBLE
from explore.problem import Problem
from explore.search import search
from explore.space import Space
from explore.train import HELD_OUT_NODES, HELD_OUT_WORKLOADS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec():
    return Codec(Space())


def test_there_are_twelve_scenarios_some_of_them_held_out():
    scenarios = suite()
    assert len(scenarios) == 12 and len({repr(s) for s in scenarios}) == 12
    held = [s for s in scenarios if s.nm in HELD_OUT_NODES and s.workload.name in HELD_OUT_WORKLOADS]
    assert len(held) >= 2 and any(s.nm not in HELD_OUT_NODES for s in scenarios)


@pytest.mark.parametrize("number", range(12))
def test_every_scenario_can_be_met(codec, number):
    found = search(Problem(suite()[number], codec), None, 1500, seed=0)
    assert float(found.scores.max()) > INFEASIBLE


def test_interquartile_mean_and_its_interval():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert iqm_interval([[1.0, 1.0], [3.0, 3.0]]) == (2.0, 2.0, 2.0)
    draw = np.random.default_rng(1)
    mean, low, high = iqm_interval([draw.normal(5, 1, 40), draw.normal(5, 1, 40)])
    assert low < mean < high and high - low < 1 and abs(mean - 5) < 0.4


def test_a_table_has_a_line_for_every_method(codec):
    chosen = {name: run for name, run in methods({}).items() if name in ("random", "gradient", "random-policy+refine")}
    rows = measure([suite()[SMALL[0]]], chosen, codec, evaluations=200, seeds=2)
    assert len(rows) == 6 and all(0 <= row["regret"] <= 1 and row["evaluations"] <= 200 for row in rows)
    assert min(row["regret"] for row in rows) == 0 and any(row["hypervolume"] > 0 for row in rows)
    lines = lines_of(rows)
    assert [line["method"] for line in lines] == sorted(chosen, key=lambda m: next(
        line["regret"] for line in lines if line["method"] == m))


def test_rows_of_another_agent_are_run_again(codec):
    runs, ran = {name: methods({})[name] for name in ("random", "random-policy+refine")}, []

    def rows(agent, done):
        ran.clear()
        return measure([suite()[0]], runs, codec, evaluations=16, seeds=1, made_by={"random-policy+refine": agent},
                       done=done, on_run=lambda row: ran.append(row["method"]))

    first = rows("a", [])
    assert ran == list(runs) and rows("a", first) == first and not ran
    assert rows("b", first) != first and ran == ["random-policy+refine"]


def test_an_agent_of_others_runs_on_the_environment(codec):
    rows = measure([suite()[0]], {"sb3-sac": methods({})["sb3-sac"]}, codec, evaluations=300, seeds=1)
    assert rows[0]["evaluations"] == 300 and rows[0]["score"] > INFEASIBLE


def test_a_bench_that_was_stopped_goes_on_where_it_was(codec, tmp_path):
    path, runs = tmp_path / "rows.jsonl", {name: methods({})[name] for name in ("random", "sobol")}

    def bench(stop=None):
        def add(row):
            file.add(row)
            if len(path.read_text().splitlines()) == stop:
                raise KeyboardInterrupt
        with RowFile(path, {"evaluations": 64}) as file:
            return len(file.rows), measure([suite()[0]], runs, codec, evaluations=64, seeds=3, known=2248,
                                           done=file.rows, on_run=add)

    with pytest.raises(KeyboardInterrupt):
        bench(stop=5)
    path.write_text(path.read_text()[:-20])  # the last line was cut off
    earlier, rows = bench()
    with pytest.raises(SystemExit):
        RowFile(path, {"evaluations": 65})
    path.unlink()
    fresh, again = bench()
    assert (earlier, fresh, len(rows)) == (3, 0, 7)
    assert [r | {"cpu_s": 0} for r in rows] == [r | {"cpu_s": 0} for r in again]


def test_the_small_space_is_enumerated():
    designs = every_design(small_space())
    assert len(designs) == len(torch.unique(designs, dim=0)) == 8 * 8 * 4 * 3 * 6 * 5
    some = range(0, len(designs), 97)
    assert len({small_space().decode(designs[i]) for i in some}) == len(some)


@pytest.mark.parametrize(("queries", "evaluations"), [(4, 512), pytest.param(20, 2048, marks=pytest.mark.full)])
def test_searches_of_the_small_space_end_at_the_optimum(queries, evaluations):
    """With the shipped agent; a space of 23,040 designs has one optimum for each query."""
    found = exhaustive(SHIPPED, queries=queries, evaluations=evaluations)
    assert found["optimal"] >= 0.9 and found["queries"] == queries
