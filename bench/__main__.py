"""All measurements, one after the other: python -m bench."""

import subprocess
import sys

for module in ("bench.chip_speed", "bench.tool_speed", "bench.matrix_area", "bench.router_area"):
    print(f"== {module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
