"""Mutants that Yosys makes of the emitted router: which ones the router's bench catches, which are no change at all.

    python -m verify.mutants [--count 300] [--seed 1] [--routing xy --virtual-channels 1 --no-multicast ...]

All mutants lie in one netlist and an input selects one, so that one compiled model serves for all. A mutant that the
bench does not catch is held against the router by abc: outputs that are equal whatever the inputs make it equivalent.
What is left has survived. Both are listed; status 1 if the bench catches too few.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hwgen.noc.network import Network
from hwgen.yosys_jobs import run_scripts
from verify.router_bench import RouterBench, router_verilog

SEEDS = ((60, 1), (400, 2), (2000, 3))
"""(cycles of each run, seed) of the bench's passes: the next one is for what the last one did not catch."""
PATIENCE = 300
"""Seconds for one proof of equivalence; what takes longer counts as another router."""
CAUGHT = 0.95
"""Share of the mutants that are none by proof which the bench must catch."""


@dataclass(frozen=True)
class Outcome:
    """Of one mutant: `change` as Yosys writes it; `verdict` "killed", "equivalent" or "survived", `how` in words."""

    number: int
    change: str
    verdict: str
    how: str = ""


def make_mutants(verilog: str, count: int, seed: int, folder: Path) -> tuple[str, list[str]]:
    """(module `router` with an input `mutant`, what each value 1.. of it changes)."""
    (folder / "plain.v").write_text(verilog)
    bits = count.bit_length()
    run_scripts({"mutate": [
        "read_verilog plain.v", "hierarchy -top router", "proc", "opt_clean",
        f"mutate -list {count} -seed {seed} -ctrl mutant {bits} 1 -o mutants.ys",
        "script mutants.ys", "opt_clean", "write_verilog -noattr mutants.v",
    ]}, folder)
    changes = [_described(line) for line in (folder / "mutants.ys").read_text().splitlines() if line.strip()]
    return (folder / "mutants.v").read_text(), changes


def _described(line):
    options = dict(re.findall(r"-(mode|cell|port|portbit|ctrlbit) (\S+)", line))
    return " ".join(options.values())


def hunt(network: Network, count: int, seed: int, folder: Path) -> list[Outcome]:
    """The outcome of each of `count` mutants of the network's router."""
    verilog, changes = make_mutants(router_verilog(network), count, seed, folder)
    bench = RouterBench(network, folder, verilog, mutants=True)
    outcomes, left = {}, list(range(1, len(changes) + 1))
    for cycles, bench_seed in SEEDS:
        if error := bench.run(cycles=cycles, seed=bench_seed, mutant=0).error:
            raise SystemExit(f"The router itself must keep its laws, but: {error}")
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(lambda n, c=cycles, s=bench_seed: bench.run(cycles=c, seed=s, mutant=n), left)
        outcomes |= {n: Outcome(n, changes[n - 1], "killed", answer.error)
                     for n, answer in zip(left, answers, strict=True) if answer.error}
        left = [n for n in left if n not in outcomes]
    same = equivalent(left, len(changes), folder)
    outcomes |= {n: Outcome(n, changes[n - 1], "equivalent" if n in same else "survived") for n in left}
    return [outcomes[n] for n in sorted(outcomes)]


def equivalent(numbers: list[int], count: int, folder: Path) -> set[int]:
    """Those of the mutants in FOLDER/mutants.v that can never be told from the router, as abc shows.

    Both start with all registers 0, which no reset has to be the first to follow: whatever comes at the inputs, resets
    too, all outputs are equal in every cycle.
    """
    bits = count.bit_length()
    script = ["read_verilog mutants.v", "proc", "opt_clean", "techmap", "dffunmap", "opt_clean", "copy router gold",
              "rename router gate", "cd gold", *_select(bits, 0), "cd", "design -save both"]
    for number in numbers:
        script += [
            "design -load both", "cd gate", *_select(bits, number), "cd", "miter -equiv -flatten gold gate miter",
            "hierarchy -top miter", "opt_clean", "setundef -zero -init", "simplemap", "aigmap", "opt_clean",
            f"write_aiger miter{number}.aig",
        ]
    run_scripts({"miters": script}, folder)
    return {number for number in numbers if _never_raised(folder / f"miter{number}.aig")}


def _select(bits, number):
    return ["delete -port w:mutant", f"connect -set mutant {bits}'d{number}"]


def _never_raised(circuit):
    """Whether induction over equal signals (abc's scorr) leaves nothing of the one output but a constant 0."""
    proven = circuit.with_suffix(".proven")
    abc = Path(find_spec("pyosys").origin).parent / "yosys-abc"
    commands = f"read_aiger {circuit}; strash; scorr; dc2; scorr; write_aiger {proven}"
    try:
        run = subprocess.run([abc, "-c", commands], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    if not proven.exists():
        raise RuntimeError(f"abc failed: {(run.stdout + run.stderr)[-500:]}")
    header, output = proven.read_bytes().split(b"\n")[:2]
    latches, ands = (int(header.split()[i]) for i in (3, 5))
    return latches == ands == 0 and output == b"0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--routing", default="xy")
    parser.add_argument("--virtual-channels", type=int, default=1)
    parser.add_argument("--flit-bits", type=int, default=64)
    parser.add_argument("--buffer-flits", type=int, default=4)
    parser.add_argument("--multicast", action=argparse.BooleanOptionalAction, default=True)
    options = vars(parser.parse_args())
    count, seed = options.pop("count"), options.pop("seed")
    network = Network(4, 4, **options)
    with tempfile.TemporaryDirectory(prefix="hwgen-mutants-") as folder:
        outcomes = hunt(network, count, seed, Path(folder))
    found = Counter(outcome.verdict for outcome in outcomes)
    for outcome in outcomes:
        if outcome.verdict != "killed":
            print(f"{outcome.verdict:<12}{outcome.number:>4}  {outcome.change}")
    real = len(outcomes) - found["equivalent"]
    print(f"{len(outcomes)} mutants of the router ({', '.join(f'{k} {v}' for k, v in options.items())}, seed {seed}): "
          f"{found['killed']} killed, {found['equivalent']} equivalent by proof, {found['survived']} survived; "
          f"{100 * found['killed'] / max(1, real):.1f} % of those that differ are caught")
    return int(found["killed"] < CAUGHT * real)


if __name__ == "__main__":
    sys.exit(main())
