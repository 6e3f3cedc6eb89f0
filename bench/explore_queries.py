"""Held-out queries for the agent: nodes it was not trained on, a held-out workload, random contexts, goals and budgets.

Run `python -m bench.explore_queries` for regret with no evaluation and after 64, with bootstrap intervals, against the
best that is known: of two long searches through the evaluator and of all that are compared.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from explore.ask_tell import AskTell
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


def long_search(problem: Problem, goal: Goals, evaluations: int, seed: int) -> np.ndarray:
    """Scores in the order of evaluation of the planner's search, asking the evaluator itself; from random designs."""
    generator, scores = torch.Generator().manual_seed(seed), []

    def value(actions):
        scores.append(score(problem.outcomes(actions), goal))
        return scores[-1]

    start = problem.random_actions(2048, generator)
    plan(problem, value, start, generator, rounds=max(1, (evaluations - 2048) // (ISLANDS * 200)), islands=ISLANDS)
    return torch.cat(scores).numpy()


def median_interval(values, draws: int = 2000) -> tuple[float, float, float]:
    """(median, 95 % bootstrap interval)."""
    values, draw = np.asarray(values), np.random.default_rng(0)
    samples = np.median(values[draw.integers(len(values), size=(draws, len(values)))], axis=1)
    return float(np.median(values)), float(np.quantile(samples, 0.025)), float(np.quantile(samples, 0.975))


def measure(designer: Designer, queries: list[Query], *, known: int, methods=("random", "gradient")) -> list[dict]:
    """A row a query: regrets with 0 and 64 evaluations and of `methods` at 1,000, and the best known score.

    `evaluations_to_agent_0`: how many the first of two long searches took to be as good as the agent is with none.
    """
    rows = []
    for number, query in enumerate(queries):
        problem = designer.problem(query.scenario)
        goal: Goals = problem.goal
        found = designer.refine(problem, goal, 64, torch.Generator().manual_seed(number)).scores
        others = {"agent_0": float(found[0]), "agent_64": float(found.max())}
        for name in methods:
            ask = AskTell(problem, evaluations=1000)
            METHODS[name](ask, number)
            others[f"{name}_1000"] = ask.best
        traces = [long_search(problem, goal, known, 1000 + number + seed) for seed in range(2)]
        best = max(*others.values(), *(float(trace.max()) for trace in traces))
        as_good = traces[0] >= others["agent_0"]
        rows.append({"query": query.name, "best": best,
                     "evaluations_to_agent_0": int(as_good.argmax()) + 1 if as_good.any() else len(traces[0])}
                    | {name: float(regret(torch.tensor(value), torch.tensor(best))) for name, value in others.items()})
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.explore_queries", description=__doc__)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--known", type=int, default=60_000, help="evaluations of each long search behind J_best")
    parser.add_argument("--agent", type=Path, default=SHIPPED)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    designer = Designer.load(options.agent)
    rows = measure(designer, frozen_queries(options.queries, designer.codec), known=options.known)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(f"regret on {len(rows)} held-out queries, against the best known of {options.known} evaluations and others")
    for key in rows[0]:
        if key not in ("query", "best", "evaluations_to_agent_0"):
            median, low, high = median_interval([r[key] for r in rows])
            failed = np.mean([r[key] >= 1 for r in rows])
            print(f"{key:16} median {median:7.2%}  (95 % {low:.2%} to {high:.2%})  infeasible {failed:.0%}")
    spent = np.median([r["evaluations_to_agent_0"] for r in rows])
    print(f"a long search is as good as the agent with none after {spent:.0f} evaluations (median)")


if __name__ == "__main__":
    main()
