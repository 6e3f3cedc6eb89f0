"""All measurements, one after the other: python -m bench."""

import subprocess
import sys

for command in ("chip_speed", "tool_speed", "matrix_area", "router_area", "evaluator_speed", "calibration",
                "calibration streams", "explore_suite --small"):
    print(f"== {command}", flush=True)
    module, *options = command.split()
    subprocess.run([sys.executable, "-m", f"bench.{module}", *options], check=True)
