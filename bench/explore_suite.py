"""The explorer against other ways to search: python -m bench.explore_suite [--small] [-o rows.jsonl].

Twelve frozen scenarios, three of them on held-out nodes with a held-out workload, every method with the same number of
evaluations, ten seeds each. Regret is against the best that any run of the table or the long searches (`--known`)
found for that scenario. Interquartile means over all runs, with 95 % intervals from resampling seeds within scenarios.
Ablations of training are further agents: `--agent no-mixture=runs/x/agent.pt` (`explore.train --set experts=1`);
the agent's own discount is 0, so that one is `--set discount=0.9`. Every run is a line of the file of `-o`; started
again with that file, the bench goes on where it was.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.explore_queries import long_search, policy_designs
from bench.row_file import RowFile, digest
from bench.stable_baselines import by_stable_baselines
from explore.action import Codec
from explore.archive import hypervolume
from explore.ask_tell import AskTell
from explore.baselines import METHODS
from explore.designer import SHIPPED, Designer
from explore.goal import INFEASIBLE, draw_goals, regret, score
from explore.problem import Problem, observe
from explore.refine import refine
from explore.scenario import GOALS, Scenario
from explore.search import search
from explore.space import Space
from explore.workload import read_workload

FAST, LOW = GOALS["high-performance"], GOALS["low-power"]
EVEN = (1 / 3, 1 / 3, 1 / 3)
REFERENCE = torch.tensor([0.1, 1000.0, 830.0]).log()
"""tok/s, W and mm2 from which the volume of a front counts, in logarithms."""
SMALL = (0, 3, 6)
"""Scenarios of the small suite."""
LONG = "long-search"
ASKING = ("no-refinement", "policy-alone", "random-policy+refine")
"""Methods that ask the first agent, too."""


def suite() -> list[Scenario]:
    """The frozen scenarios. 22 and 5 nm and SmolLM2-360M with SmolVLM-500M are held out from training."""
    def at(name, nm, context, weights, **budgets):
        workload = read_workload(name)
        return Scenario(workload, nm, context=context, prompt=32, weights=weights, **budgets)

    return [
        at("stories260k", 28, 256, FAST), at("stories260k", 14, 512, LOW), at("smollm2-135m", 28, 512, FAST),
        at("smollm2-135m", 7, 2048, EVEN), at("smollm2-135m", 10, 1024, LOW, clock_max=50.0),
        at("smolvlm-256m", 7, 2048, LOW, clock_max=10.0), at("smollm2-360m", 22, 1024, FAST),
        at("smollm2-360m", 5, 4096, LOW), at("smolvlm-500m", 5, 2048, FAST, area_max=400.0),
        at("llama-3.2-1b", 5, 2048, FAST), at("llama-3.2-1b", 3, 4096, (0.8, 0.1, 0.1), power_max=100.0),
        at("llama-3.2-1b", 7, 1024, LOW, latency_max=0.05),
    ]


def by_agent(designer: Designer) -> Callable:
    """Proposals of an agent and their refinement."""
    def run(problem, evaluations, seed):
        found = designer.refine(problem, problem.goal, evaluations, torch.Generator().manual_seed(seed))
        return found.scores, found.outcomes
    return run


def by_proposals(designer: Designer) -> Callable:
    """All evaluations on proposals of an agent, planned anew where they are too few."""
    def run(problem, evaluations, seed):
        generator, actions = torch.Generator().manual_seed(seed), []
        while sum(map(len, actions)) < evaluations:
            actions.append(designer.propose(problem, problem.goal, evaluations, generator))
        return scored(problem, torch.cat(actions)[:evaluations])
    return run


def by_policy_alone(designer: Designer) -> Callable:
    """All evaluations on samples of an agent's policy."""
    def run(problem, evaluations, seed):
        return scored(problem, policy_designs(designer, problem, seed, evaluations - 1))
    return run


def by_random_policy(designer: Designer | None) -> Callable:
    """The same refinement from random proposals, with the agent's world model if there is an agent."""
    def run(problem, evaluations, seed):
        generator = torch.Generator().manual_seed(seed)
        found = refine(problem, problem.goal, problem.random_actions(evaluations, generator), evaluations, generator,
                       surrogate=designer.agent.surrogate if designer else None)
        return found.scores, found.outcomes
    return run


def scored(problem, actions):
    """(scores [N], outcomes [N, 5 + ...]) of actions."""
    outcomes = problem.outcomes(actions)
    return score(outcomes, problem.goal), outcomes


def by_baseline(name: str) -> Callable:
    """A method of `explore.baselines`."""
    def run(problem, evaluations, seed):
        ask = AskTell(problem, evaluations=evaluations)
        METHODS[name](ask, seed)
        return torch.as_tensor(ask.scores), ask.outcomes
    return run


def by_long_search(problem, evaluations, seed):
    """The planner's search by the evaluator's word."""
    return long_search(problem, problem.goal, evaluations, seed)


def methods(agents: dict[str, Designer]) -> dict[str, Callable]:
    """Name -> run(problem, evaluations, seed) -> (scores [N], outcomes [N, 5 + ...]) in order of evaluation."""
    found: dict[str, Callable] = {}
    for name, designer in agents.items():
        found[name] = by_agent(designer)
    first = next(iter(agents.values()), None)
    if first is not None:
        found |= {"no-refinement": by_proposals(first), "policy-alone": by_policy_alone(first)}
    found["random-policy+refine"] = by_random_policy(first)
    return found | {name: by_baseline(name) for name in METHODS} | {"sb3-sac": by_stable_baselines}


def measure(scenarios: Sequence[Scenario], runs: dict[str, Callable], codec: Codec, *, evaluations: int, seeds: int,
            known: int = 0, made_by: dict[str, str] | None = None, done: Sequence[dict] = (),
            on_run: Callable[[dict], None] | None = None) -> list[dict]:
    """A row for every scenario, method and seed: best score, regret, feasible share, hypervolume, CPU seconds.

    `known`: evaluations of one long search for each scenario, a method of its own. `made_by`: the agent that a method
    asks, if any. `done`: rows of an earlier call, which need not be run again where the agent is the same; `on_run` is
    told of each new one.
    """
    made_by, rows = made_by or {}, []
    earlier = {(r["scenario"], r["method"], r["seed"]): r for r in done if r.get("agent") == made_by.get(r["method"])}
    for number, scenario in enumerate(scenarios):
        problem, mine = Problem(scenario, codec), []
        plan = [(name, seed, evaluations) for name in runs for seed in range(seeds)]
        plan += [(LONG, 0, known)] if known else []
        for name, seed, count in plan:
            row = earlier.get((number, name, seed))
            if row is None:
                begin = time.process_time()
                scores, outcomes = runs.get(name, by_long_search)(problem, count, seed)
                row = {"scenario": number, "method": name, "seed": seed, "score": float(scores.max()),
                       "evaluations": len(scores), "feasible": float((scores > INFEASIBLE).float().mean()),
                       "hypervolume": hypervolume(outcomes[:, :5], REFERENCE),
                       "cpu_s": round(time.process_time() - begin, 3)}
                row |= {"agent": made_by[name]} if name in made_by else {}
                if on_run:
                    on_run(row)
            mine.append(row)
        best = max(row["score"] for row in mine)
        rows += [row | {"regret": regret_of(row["score"], best)} for row in mine]
    return rows


def regret_of(found: float, best: float) -> float:
    """Share of the weighted product that is lost, from 0."""
    return float(regret(torch.tensor(found), torch.tensor(best)).clamp(min=0))


def iqm(values) -> float:
    """Mean of the middle half."""
    ordered = np.sort(np.asarray(values, dtype=float))
    cut = len(ordered) // 4
    return float(ordered[cut: len(ordered) - cut].mean())


def iqm_interval(groups: Sequence[Sequence[float]], draws: int = 1000) -> tuple[float, float, float]:
    """(interquartile mean over all, 95 % interval), resampling seeds within each scenario's group."""
    draw, table = np.random.default_rng(0), [np.asarray(g, dtype=float) for g in groups]
    means = [iqm(np.concatenate([g[draw.integers(len(g), size=len(g))] for g in table])) for _ in range(draws)]
    return iqm(np.concatenate(table)), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def summary(rows: Sequence[dict]) -> list[dict]:
    """A line a method, least regret first."""
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        groups = [[r["regret"] for r in own if r["scenario"] == s] for s in dict.fromkeys(r["scenario"] for r in own)]
        mean, low, high = iqm_interval(groups)
        lines.append({"method": name, "regret": mean, "low": low, "high": high,
                      **{key: float(np.mean([r[key] for r in own]))
                         for key in ("hypervolume", "feasible", "evaluations", "cpu_s")}})
    return sorted(lines, key=lambda line: line["regret"])


def small_space() -> Space:
    """A sub-space to enumerate: one class of tile and 23,040 designs."""
    kept = {"virtual_channels": 1, "buffer_flits": 4, "routing": "xy", "multicast": True, "clock_mhz": 100.0,
            "pipeline_stages": 1, "streams": 1,
            "arrangement": "rows", "part.0": 1.0, "stations.0": 4, "attention.0": 1.0, "ffn.0": 1.0,
            "vocabulary.0": 1.0}
    for tile in (1, 2):  # no tiles of the other classes
        kept |= {f"part.{tile}": 0.0, f"fetch.{tile}": 1, f"stations.{tile}": 4, f"vlen.{tile}": 32,
                 f"lanes.{tile}": 1, f"attention.{tile}": 1.0, f"ffn.{tile}": 1.0, f"vocabulary.{tile}": 1.0}
    return Space(3, side=8, fixed=kept)


def every_design(space: Space) -> Tensor:
    """All designs [N, D] of a space without free continuous knobs."""
    axes = [torch.tensor([(i + 0.5) / len(k.values) for i in range(len(k.values))], dtype=torch.float64)
            if k.kind != "continuous" else torch.tensor([0.5], dtype=torch.float64) for k in space.knobs]
    return torch.cartesian_prod(*axes)


def exhaustive(agent: Path | None, *, queries: int, evaluations: int, seed: int = 0) -> dict:
    """How often a search of so many evaluations ends at the true optimum of `small_space`, and its regret."""
    space, generator = small_space(), torch.Generator().manual_seed(seed)
    designer = Designer.load(agent, space) if agent else None
    codec, designs, regrets = designer.codec if designer else Codec(space), every_design(space), []
    names, nodes = ("stories260k", "smollm2-135m", "smollm2-360m"), (28, 22, 7, 5)
    for number in range(queries):
        goal = draw_goals(1, generator)
        weights = [float(w) for w in goal.weights[0].double()]
        scenario = Scenario(read_workload(names[number % len(names)]), nodes[number % len(nodes)], context=256,
                            weights=(weights[0], weights[1], 1 - weights[0] - weights[1]))
        problem = Problem(scenario, codec)
        truth = float(score(observe(problem.evaluate_designs(designs)), problem.goal).max())
        found = float(search(problem, designer, evaluations, seed=number).scores.max())
        regrets.append(regret_of(found, truth))
    return {"designs": len(designs), "queries": queries, "evaluations": evaluations,
            "optimal": float(np.mean([r < 1e-5 for r in regrets])), "worst_regret": max(regrets)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.explore_suite", description=__doc__)
    parser.add_argument("--small", action="store_true", help="three scenarios, 2 seeds, 256 evaluations: some minutes")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--known", type=int, default=10_000, help="evaluations of a long search behind the best known")
    parser.add_argument("--agent", action="append", default=[], metavar="NAME=FILE", help="a further agent")
    parser.add_argument("--methods", help="only these, comma-separated")
    parser.add_argument("-o", "--output", type=Path, help="file of a JSON line for every run, to go on from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.small:
        options.seeds, options.evaluations = 2, 256
    agents = {"agent": SHIPPED, **dict(pair.split("=", 1) for pair in options.agent)}
    designers = {name: Designer.load(Path(path)) for name, path in agents.items()}
    runs = methods(designers)
    if options.methods:
        runs = {name: runs[name] for name in options.methods.split(",")}
    scenarios = [suite()[i] for i in SMALL] if options.small else suite()
    about = {"small": options.small, "evaluations": options.evaluations, "known": options.known}
    made_by = {name: digest(path) for name, path in agents.items()} | dict.fromkeys(ASKING, digest(agents["agent"]))
    with RowFile(options.output, about) as file:
        rows = measure(scenarios, runs, designers["agent"].codec, evaluations=options.evaluations, seeds=options.seeds,
                       known=options.known, made_by=made_by, done=file.rows, on_run=file.add)
    print(f"{len(scenarios)} scenarios, {options.seeds} seeds, {options.evaluations} evaluations each")
    print(f"{'method':22}{'regret (IQM)':>14}{'95 % interval':>20}{'volume':>9}{'feasible':>10}{'CPU s':>8}"
          f"{'evaluations':>13}")
    for line in summary(rows):
        print(f"{line['method']:22}{line['regret']:14.2%}{line['low']:11.2%} -{line['high']:7.2%}"
              f"{line['hypervolume']:9.1f}{line['feasible']:10.0%}{line['cpu_s']:8.2f}{line['evaluations']:13,.0f}")
    found = exhaustive(SHIPPED, queries=20 if options.small else 50, evaluations=2048)
    print("sub-space of {designs:,} designs: {optimal:.0%} of {queries} searches of {evaluations} evaluations end at "
          "the true optimum, worst regret {worst_regret:.2%}".format(**found))


if __name__ == "__main__":
    main()
