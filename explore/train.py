"""Trains the agent that ships: `python -m explore.train -o RUN`. Kill it at any time; the same command goes on.

Held out, for `bench.explore_queries`: the nodes 22 and 5 nm, and the language part of SmolLM2-360M, which SmolVLM-500M
shares. Half of the scenarios are of shipped workloads, half of random Llama-like shapes between and around them; half
of each have MXFP4 weights.
"""

import argparse
import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

from explore.action import Codec
from explore.agent import HyperParameters
from explore.goal import Goals, score
from explore.node import node_sizes
from explore.plan import plan
from explore.practice import Practice
from explore.problem import Problem
from explore.scenario import Scenario
from explore.space import Space
from explore.training import Training
from explore.workload import Workload, read_workload, shipped_workloads
from hwgen.errors import HwgenError
from hwgen.model_config import ModelConfig
from hwgen.quantize import narrow_matrices

HELD_OUT_NODES = (22, 5)
HELD_OUT_WORKLOADS = ("smollm2-360m", "smolvlm-500m")
CASES = 32
"""Archived designs of each scenario that go into agent.pt."""
FORMATS = (("mxint8", "mxint8"), ("mxfp4", "mxint8"), ("mxfp4", "mxfp4"))
"""Of the weights of layers, and of embedding and head."""
ROUNDS = 40
"""Of the search for a first feasible design where chance finds none."""


def random_shape(index: int, generator: torch.Generator) -> Workload:
    """A Llama-like model, mostly of 0.2 M to 3 G parameters, sizes independent but for their order."""
    def between(low, high):
        return low * (high / low) ** float(torch.rand((), generator=generator))

    head_dim = 2 ** int(torch.randint(3, 8, (), generator=generator))
    kv_heads = int(torch.randint(1, 9, (), generator=generator))
    group = (1, 2, 3, 4, 8)[int(torch.randint(5, (), generator=generator))]
    hidden = 32 * max(1, round(kv_heads * group * head_dim * between(0.7, 1.4) / 32))
    return Workload(f"shape{index}", ModelConfig(
        vocab=512 * round(between(1, 200)), hidden=hidden, layers=round(between(2, 32)), heads=kv_heads * group,
        kv_heads=kv_heads, head_dim=head_dim, ffn=32 * max(1, round(hidden * between(2, 4.5) / 32)), norm_eps=1e-5,
        max_context=8192, tied=bool(torch.rand((), generator=generator) < 0.6)))


def training_scenarios(count: int, seed: int) -> list[Scenario]:
    """Scenarios without what is held out; every third has a slower system clock than the node allows."""
    generator = torch.Generator().manual_seed(seed)

    def pick(options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    names = [n for n in shipped_workloads() if n not in HELD_OUT_WORKLOADS]
    nodes = [nm for nm in node_sizes() if nm not in HELD_OUT_NODES]
    result = []
    for i in range(count):
        workload = read_workload(names[i // 2 % len(names)]) if i % 2 == 0 else random_shape(i, generator)
        context = round(2 ** float(7 + 5.5 * torch.rand((), generator=generator)))
        weights, head = FORMATS[0] if i // 2 % 2 == 0 else pick(FORMATS[1:])
        workload = replace(workload, mxfp4=narrow_matrices(workload.config, weights, head))
        slow = 10 ** float(1 + 2 * torch.rand((), generator=generator)) if i % 3 == 0 else None
        context = min(context, workload.max_context)
        result.append(Scenario(workload, pick(nodes), context=context, prompt=min(32, context), clock_max=slow))
    return result


def make_training(hp: HyperParameters, scenarios: list[Scenario], codec: Codec) -> tuple[Training, dict[str, int]]:
    """(a run that begins with 2048 random designs of each scenario, evaluations of those that are left out).

    Where no random design is feasible, a search for one comes first; what has none after it is left out. Raises
    HwgenError where that leaves none.
    """
    problems = [Problem(s, codec) for s in scenarios]
    fields = [p.practice(_name(s), seed=hp.seed * 1000 + i)
              for i, (p, s) in enumerate(zip(problems, scenarios, strict=True))]
    for number, (problem, practice) in enumerate(zip(problems, fields, strict=True)):
        if not practice.archive.feasible:
            _evolve(problem, practice, torch.Generator().manual_seed(hp.seed * 1000 + number))
    if not any(f.archive.feasible for f in fields):
        names = ", ".join(f.name for f in fields) or "none"
        raise HwgenError(f"Scenarios must include one with a feasible design, not {names}")
    return (Training([f for f in fields if f.archive.feasible], hp, codec.shape),
            {f.name: f.seen for f in fields if not f.archive.feasible})


def _name(scenario):
    workload = scenario.workload
    formats = "" if not workload.mxfp4 else "+fp4" if "embed" in workload.mxfp4 else "+fp4/8"
    return f"{workload.name}{formats}@{scenario.nm}/{scenario.context}"


def _evolve(problem: Problem, practice: Practice, generator: torch.Generator) -> None:
    """The planner's search by the evaluator's word, all weights alike; the practice learns all that it sees."""
    goal = Goals.of((1 / 3, 1 / 3, 1 / 3))

    def value(actions):
        outcomes = problem.outcomes(actions)
        practice.learn(actions, outcomes)
        return score(outcomes, goal)

    plan(problem, value, practice.recent[:, 1: 1 + practice.shape.size], generator, rounds=ROUNDS)


def parse_setting(text: str) -> tuple[str, int | float]:
    """(name, value) of "NAME=VALUE". Raises HwgenError for what is no hyper-parameter or no value of it."""
    name, _, value = text.partition("=")
    kinds = {f.name: type(f.default) for f in fields(HyperParameters)}
    if name not in kinds:
        raise HwgenError(f"Hyper-parameter must be {', '.join(kinds)}, not {name!r}")
    try:
        return name, kinds[name](value)
    except ValueError:
        raise HwgenError(f"{name} must be of type {kinds[name].__name__}, not {value!r}") from None


def main(arguments: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m explore.train", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of checkpoint, log and agent.pt")
    parser.add_argument("--scenarios", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None, help="stop, resumably, after so much wall time")
    parser.add_argument("--save-seconds", type=float, default=60, help="wall time between checkpoints")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyper-parameter")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    hp = replace(HyperParameters(seed=options.seed), **dict(map(parse_setting, options.set)))
    codec = Codec(Space())
    options.output.mkdir(parents=True, exist_ok=True)
    training, left_out = make_training(hp, training_scenarios(options.scenarios, hp.seed), codec)
    checkpoint = options.output / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    begun, saved = time.monotonic(), time.monotonic()
    stop = None if options.minutes is None else begun + 60 * options.minutes

    def on_step(run: Training):
        nonlocal saved
        now = time.monotonic()
        if run.step % 100 == 0:
            print(_line(run, now - begun), flush=True)
        if now - saved > options.save_seconds:
            run.save(checkpoint)
            saved = now
        if stop and now > stop:
            run.save(checkpoint)
            raise SystemExit(f"stopped after step {run.step}; the same command goes on")

    training.run(on_step=on_step)
    training.save(checkpoint)
    finish(training, codec, options.output, left_out)


def _line(run: Training, seconds: float) -> str:
    part = [r["policy_regret"] for r in run.log[-100:] if "policy_regret" in r]
    regret = sum(part) / max(1, len(part))
    last = " ".join(f"{k} {v:.3g}" for k, v in run.log[-1].items() if isinstance(v, float))
    return f"{run.step} of {run.hp.steps}  {seconds:.0f} s  regret of the policy's batches {regret:.4f}  {last}"


def finish(training: Training, codec: Codec, folder: Path, left_out: dict[str, int]) -> None:
    """Writes agent.pt, and training.jsonl: what was run, then every hundredth step's figures, means of the steps."""
    training.agent.save_policy(folder / "agent.pt", codec.layout, training.cases(CASES))
    first = {"scenarios": [p.name for p in training.fields], "steps": training.step,
             "evaluations": sum(p.seen for p in training.fields) + sum(left_out.values()), "left_out": left_out}
    rows = [json.dumps(first)]
    for start in range(0, len(training.log), 100):
        part = training.log[start: start + 100]
        keys = sorted({k for r in part for k, v in r.items() if isinstance(v, float)})
        means = {k: round(sum(v) / len(v), 5) for k in keys if (v := [r[k] for r in part if r.get(k) is not None])}
        rows.append(json.dumps({"step": part[-1]["step"] + 1, "evaluations": part[-1]["evaluations"]} | means))
    (folder / "training.jsonl").write_text("\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HwgenError as refused:
        print(f"explore.train: {refused}", file=sys.stderr)
        sys.exit(2)
