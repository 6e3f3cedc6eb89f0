"""Held-out queries for the agent: nodes it was not trained on, a held-out workload, random contexts, goals and budgets.

Run `python -m bench.explore_queries` for regret with no evaluation and after 64, with bootstrap intervals, against the
best that is known: of the agent, of two long searches through the evaluator, of random search, Sobol points, annealing,
NSGA-II, CMA-ES and gradient ascent at 10,000 evaluations with three seeds, and, for ten queries, of TPE and of SAC of
Stable-Baselines3 at 1,000.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.lockstep import Lockstep
from bench.row_file import RowFile, digest
from bench.stable_baselines import by_stable_baselines
from explore.ask_tell import AskTell, weigher
from explore.baselines import METHODS
from explore.designer import SHIPPED, Designer
from explore.goal import Goals, draw_goals, regret, score
from explore.plan import plan
from explore.problem import Problem, observe
from explore.scenario import Scenario
from explore.train import HELD_OUT_NODES, HELD_OUT_WORKLOADS
from explore.workload import read_workload

SEED = 20261124
ISLANDS = 6
CONTEXTS = (256, 512, 1024, 2048, 4096)
BASELINES = ("random", "sobol", "annealing", "nsga2", "cma_es", "gradient")
SLOW = ("tpe", "sb3_sac")
"""Methods that cost seconds for every hundred evaluations, run with 1,000 on the first of the queries."""


@dataclass(frozen=True)
class Query:
    """One scenario with its own goal; every fourth is of the held-out workload, all are on held-out nodes."""

    scenario: Scenario

    @property
    def name(self) -> str:
        s = self.scenario
        budgets = "".join(k for k, v in zip("PAL", (s.power_max, s.area_max, s.latency_max), strict=True) if v)
        return f"{s.workload.name}@{s.nm}/{s.context} {budgets or '-'}"


def frozen_queries(count: int, codec, seed: int = SEED) -> list[Query]:
    """The same queries for the same seed. Budgets are met by a random feasible design, so that none is impossible."""
    generator = torch.Generator().manual_seed(seed)
    names = ("smollm2-135m", "llama-3.2-1b", "smolvlm-256m", HELD_OUT_WORKLOADS[0])
    queries = []
    while len(queries) < count:
        i = len(queries)
        nm = HELD_OUT_NODES[i % len(HELD_OUT_NODES)]
        context = CONTEXTS[int(torch.randint(len(CONTEXTS), (), generator=generator))]
        scenario = Scenario(read_workload(names[i // 2 % len(names)]), nm, context=context)
        problem = Problem(scenario, codec)
        designs = problem.space.random(1024, generator)
        outcomes = observe(problem.evaluate_designs(designs))[:, :5]
        feasible = (outcomes[:, 4] <= 0).nonzero().squeeze(1)
        if not len(feasible):
            names = tuple(n for n in names if n != scenario.workload.name) or names
            continue
        pick = outcomes[feasible[torch.randint(len(feasible), (1,), generator=generator)]]
        goal = draw_goals(1, generator, pick)
        limits = [float(x) if np.isfinite(float(x)) else None for x in goal.budgets[0]]
        weights = tuple(float(w) for w in goal.weights[0])
        weights = (weights[0], weights[1], 1 - weights[0] - weights[1])
        queries.append(Query(Scenario(scenario.workload, nm, context=context, weights=weights, power_max=limits[0],
                                      area_max=limits[1], latency_max=limits[2])))
    return queries


def long_search(problem: Problem, goal: Goals, evaluations: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and outcomes, in order: the planner's search by the evaluator's word, from 2,048 random designs."""
    generator, scores, seen = torch.Generator().manual_seed(seed), [], []

    def value(actions):
        seen.append(problem.outcomes(actions[: evaluations - sum(map(len, seen))]))
        scores.append(score(seen[-1], goal))
        if sum(map(len, seen)) == evaluations:
            raise StopIteration
        return scores[-1]

    with suppress(StopIteration):
        plan(problem, value, problem.random_actions(2048, generator), generator, rounds=evaluations, islands=ISLANDS)
    return torch.cat(scores), torch.cat(seen)


def median_interval(values, draws: int = 2000) -> tuple[float, float, float]:
    """(median, 95 % bootstrap interval)."""
    values, draw = np.asarray(values), np.random.default_rng(0)
    samples = np.median(values[draw.integers(len(values), size=(draws, len(values)))], axis=1)
    return float(np.median(values)), float(np.quantile(samples, 0.025)), float(np.quantile(samples, 0.975))


def policy_designs(designer: Designer, problem: Problem, seed: int, samples: int = 256) -> torch.Tensor:
    """Canonical actions of the policy without any planning: its mode, then `samples`."""
    state = designer.state(problem, problem.goal)
    return problem.canonical(designer.agent.candidates(state, samples, torch.Generator().manual_seed(seed)))


def best_scores(problem: Problem, runs: Sequence[tuple[str, int, int]]) -> list[float]:
    """The best score that each run (method, evaluations, seed) finds; but for SAC they go side by side."""
    asked = {run: AskTell(problem, evaluations=run[1]) for run in runs if run[0] != "sb3_sac"}

    def search(run):
        def follow(weigh):
            asked[run].weigh = weigh
            METHODS[run[0]](asked[run], run[2])
        return follow

    Lockstep(weigher(problem, problem.goal)).run([search(run) for run in asked])
    return [asked[run].best if run in asked else float(by_stable_baselines(problem, *run[1:])[0].max()) for run in runs]


def measure(designer: Designer, queries: list[Query], *, known: int, evaluations: int = 0, seeds: int = 3,
            slow: int = 0, done: Sequence[dict] = (), on_row: Callable[[dict], None] | None = None) -> list[dict]:
    """A row a query: regrets with 0 and 64 evaluations, of each method, and the best known score.

    `policy_1` is the policy's mode, without planning, `policy_257` the best of that and 256 samples.
    Random search and gradient ascent have 1,000 evaluations; `BASELINES` have `evaluations` (0: are left out), and
    count by the best of `seeds`; `SLOW` have 1,000 on the first `slow` queries.
    `evaluations_to_agent_0`: how many the first of two long searches took to be as good as the agent is with none.
    `done`: rows of the first queries, which need not be run again; `on_row` is told of each new one.
    """
    rows = list(done)
    for number, query in list(enumerate(queries))[len(rows):]:
        problem = designer.problem(query.scenario)
        goal: Goals = problem.goal
        refined = designer.refine(problem, goal, 64, torch.Generator().manual_seed(number)).scores
        own = score(problem.outcomes(policy_designs(designer, problem, number)), goal)
        others = {"agent_0": float(refined[0]), "agent_64": float(refined.max()), "policy_1": float(own[0]),
                  "policy_257": float(own.max())}
        runs = [(name, 1000, number) for name in ("random", "gradient", *(SLOW if number < slow else ()))]
        if evaluations:
            runs += [(name, evaluations, 100 * number + seed) for name in BASELINES for seed in range(seeds)]
        for (name, count, _), found in zip(runs, best_scores(problem, runs), strict=True):
            key = f"{name}_{count}"
            others[key] = max(found, others.get(key, found))
        traces = [long_search(problem, goal, known, 1000 + number + seed)[0].numpy() for seed in range(2)]
        best = max(*others.values(), *(float(trace.max()) for trace in traces))
        as_good = traces[0] >= others["agent_0"]
        rows.append({"query": query.name, "best": best,
                     "evaluations_to_agent_0": int(as_good.argmax()) + 1 if as_good.any() else len(traces[0])}
                    | {name: float(regret(torch.tensor(value), torch.tensor(best))) for name, value in others.items()})
        if on_row:
            on_row(rows[-1])
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.explore_queries", description=__doc__)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--known", type=int, default=20_000, help="evaluations of each long search behind J_best")
    parser.add_argument("--evaluations", type=int, default=10_000, help="of each baseline behind J_best; 0: none")
    parser.add_argument("--seeds", type=int, default=3, help="of each baseline")
    parser.add_argument("--slow", type=int, default=10, help="queries on which TPE and SB3's SAC run, too")
    parser.add_argument("--agent", type=Path, default=SHIPPED)
    parser.add_argument("-o", "--output", type=Path, help="file of a JSON line for every query, to go on from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    designer = Designer.load(options.agent)
    about = {name: getattr(options, name) for name in ("known", "evaluations", "seeds", "slow")}
    with RowFile(options.output, about | {"agent": digest(options.agent)}) as file:
        rows = measure(designer, frozen_queries(options.queries, designer.codec), known=options.known,
                       evaluations=options.evaluations, seeds=options.seeds, slow=options.slow, done=file.rows,
                       on_row=file.add)
    print(f"regret on {len(rows)} held-out queries, against the best known")
    for key in rows[0]:
        if key not in ("query", "best", "evaluations_to_agent_0"):
            values = [r[key] for r in rows if key in r]
            median, low, high = median_interval(values)
            failed = np.mean([value >= 1 for value in values])
            print(f"{key:16} median {median:7.2%}  (95 % {low:.2%} to {high:.2%})  infeasible {failed:.0%}"
                  + (f"  on {len(values)} queries" if len(values) < len(rows) else ""))
    spent = np.median([r["evaluations_to_agent_0"] for r in rows])
    print(f"a long search is as good as the agent with none after {spent:.0f} evaluations (median)")


if __name__ == "__main__":
    main()
