"""Run a request on a chip without the software that made it: python -m sim_tb.run --sim icarus --build .. request.json

Prints tokens as they appear, then cycles. Exit status 1 if the request holds `expected` tokens and the chip's differ,
2 if the chip cannot be simulated.
"""

import argparse
import json
import sys
from pathlib import Path

from sim_tb.simulators import SIMULATORS, SimulatorError, compile_chip, run_bench


def main(arguments=None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Run a request on a chip.")
    parser.add_argument("--sim", choices=SIMULATORS, default="icarus")
    parser.add_argument("--build", type=Path, default=Path(".."), help="folder with the chip's manifest.json")
    parser.add_argument("request", type=Path)
    options = parser.parse_args(arguments)
    request = json.loads(options.request.read_text())
    result = {}

    def report(line):
        result.update(line.get("result", {}))
        if "token" in line:
            print(line["token"], end=" ", flush=True)

    try:
        run_bench(options.build, options.sim, compile_chip(options.build, options.sim), request, report)
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"\n{result['cycles']} cycles")
    if result["tokens"] != request.get("expected", result["tokens"]):
        print(f"Tokens must be {request['expected']}, not {result['tokens']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
