"""Searches side by side find what each finds alone, and one that fails ends all."""

import pytest

from bench.explore_queries import best_scores
from bench.lockstep import Lockstep
from explore.action import Codec
from explore.ask_tell import weigher
from explore.problem import Problem
from explore.scenario import Scenario
from explore.space import Space
from explore.workload import read_workload

RUNS = [("random", 200, 0), ("annealing", 120, 1), ("cma_es", 90, 2), ("gradient", 300, 3), ("gradient", 180, 4),
        ("tpe", 30, 5), ("nsga2", 100, 6)]


@pytest.fixture(scope="module")
def problem():
    return Problem(Scenario(read_workload("stories260k"), 28, context=256), Codec(Space()))


def test_searches_find_what_they_find_alone(problem):
    assert best_scores(problem, RUNS) == [best_scores(problem, [run])[0] for run in RUNS]


def test_many_searches_take_as_many_batches_as_the_longest(problem):
    batches = []

    def weigh(rows, slope):
        batches.append((len(rows), slope))
        return weigher(problem, problem.goal)(rows, slope)

    def steps(count):
        def search(weigh):
            for _ in range(count):
                weigh(problem.space.random(2))
        return search

    Lockstep(weigh).run([steps(3), steps(5), steps(1)])
    assert batches == [(6, False), (4, False), (4, False), (2, False), (2, False)]


def test_an_error_of_one_ends_all(problem):
    def fails(weigh):
        weigh(problem.space.random(1))
        raise ValueError("no more")

    def goes_on(weigh):
        while True:
            weigh(problem.space.random(1))

    with pytest.raises(ValueError, match="no more"):
        Lockstep(weigher(problem, problem.goal)).run([goes_on, fails, goes_on])


def test_an_error_of_the_evaluator_ends_all(problem):
    def breaks(rows, slope):
        if len(rows) < 3:
            raise ValueError("evaluator broke")
        return weigher(problem, problem.goal)(rows, slope)

    def steps(count):
        def search(weigh):
            for _ in range(count):
                weigh(problem.space.random(2), False)
        return search

    with pytest.raises(ValueError, match="evaluator broke"):
        Lockstep(breaks).run([steps(1), steps(3)])
