"""Designs that the evaluator scores in a second of CPU time: python -m bench.evaluator_speed [WORKLOAD] [--batch N].

One thread, Llama 3.1 8B at 3 nm unless told otherwise, the same random batch again and again.
"""

import argparse
import time

import torch

from explore.evaluate import default_space, evaluate
from explore.scenario import Scenario
from explore.workload import read_workload


def speed(workload: str, batch: int, rounds: int = 20) -> float:
    """Designs a CPU second."""
    torch.set_num_threads(1)
    model = read_workload(workload)
    scenario = Scenario(model, 3, context=min(2048, model.max_context))
    designs = default_space().random(batch, torch.Generator().manual_seed(0))
    evaluate(designs, scenario)
    begin = time.process_time()
    for _ in range(rounds):
        evaluate(designs, scenario)
    return rounds * batch / (time.process_time() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="?", default="llama-3.1-8b")
    parser.add_argument("--batch", type=int, default=4096)
    options = parser.parse_args()
    rate = speed(options.workload, options.batch)
    print(f"{options.workload}, batches of {options.batch}: {rate:,.0f} designs per CPU second")


if __name__ == "__main__":
    main()
