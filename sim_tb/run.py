"""Run a request on a chip without the software that made it: python -m sim_tb.run --sim icarus --build .. request.json

Prints tokens as they appear, then cycles. Exit status 1 if the request holds `expected` tokens and the chip's differ,
2 if the chip cannot be simulated.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from sim_tb.chip_folder import check_images, read_manifest
from sim_tb.errors import SimulatorError
from sim_tb.simulators import SIMULATORS, compiled_chip, run_bench

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments=None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Run a request on a chip.")
    parser.add_argument("--sim", choices=SIMULATORS, default="icarus")
    parser.add_argument("--build", type=Path, default=Path(".."), help="folder with the chip's manifest.json")
    parser.add_argument("request", type=Path)
    options = parser.parse_args(arguments)
    for number in _INTERRUPTS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as it is under nohup
            signal.signal(number, _interrupt)
    try:
        request = _read_request(options.request)
        return _compare(request, _run(options.build, options.sim, request))
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        # nobody reads any more: what is left to print goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"The chip must be simulated, but: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _interrupt(number, frame):
    raise KeyboardInterrupt


def _read_request(path):
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SimulatorError(f"Request must be a readable JSON file, not {str(path)!r} "
                             f"({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(request, dict) or not {"prompt_ids", "max_tokens"} <= request.keys():
        raise SimulatorError(f"Request must have prompt_ids and max_tokens, which {str(path)!r} has not")
    return request


def _run(build, sim, request):
    """The bench's result; tokens are printed as they come."""
    result = {}

    def report(line):
        result.update(line.get("result", {}))
        if "token" in line:
            print(line["token"], end=" ", flush=True)

    check_images(build, read_manifest(build))
    with compiled_chip(build, sim) as compiled:
        run_bench(build, sim, compiled, request, report)
    return result


def _compare(request, result):
    print(f"\n{result['cycles']} cycles", flush=True)
    if result["tokens"] != request.get("expected", result["tokens"]):
        print(f"Tokens must be {request['expected']}, not {result['tokens']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
