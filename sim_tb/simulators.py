"""Verilator and Icarus under cocotb: compile a chip once, run a bench on it and read what the bench reports.

A build folder holds `manifest.json` (keys used here: top, files) and what it names. Nothing in this package depends
on the software that made the folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

from sim_tb.verilate import (
    OPTIMISATION,
    QUICK,
    SimulatorError,
    complaint,
    end_process,
    run_steps,
    verilator_steps,
)

SIMULATORS = ("verilator", "icarus")

PORTS = ("clk", "rst", "s_axi*", "m_axis*")
"""Of a chip's top."""
# Every port of the top, and nothing else, is visible to the bench: blanket public access would cost half the speed.
_CONTROL_FILE = """`verilator_config
{ports}
no_inline -module "node_*"
no_inline -module "tile_*"
no_inline -module "matrix_unit*"
no_inline -module "vector_unit*"
no_inline -module "vector_lane*"
no_inline -module "router*"
no_inline -module "sram*"
"""
_ICARUS_FLAGS = ("-g2005", "-DHWGEN_TRACE")
_ICARUS_OPTIONS = "+timescale+1ns/1ps\n"


def compile_chip(build: Path, sim: str, *, folder: Path | None = None, quick: bool = False, ports=PORTS) -> Path:
    """The compiled chip of `build`, made now unless the same sources have been compiled before.

    It lies in `folder` (default BUILD/sim/SIM) under the digest of sources and flags. `ports` are those of the top,
    with wildcards. Raises SimulatorError.
    """
    build = build.resolve()
    folder = (folder or build / "sim" / sim).resolve()
    manifest = json.loads((build / "manifest.json").read_text())
    tool, steps = _steps(sim, manifest, QUICK if quick else OPTIMISATION)
    public = (f'public_flat_rw -module "{manifest["top"]}" -var "{port}"' for port in ports)
    control = _CONTROL_FILE.format(ports="\n".join(public))
    target = folder / f"{manifest['top']}_{_digest(build, manifest, (steps, control, _ICARUS_OPTIONS))}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial_") as scratch:
        scratch = Path(scratch)
        (scratch / "control.vlt").write_text(control)
        (scratch / "options.f").write_text(_ICARUS_OPTIONS)
        run_steps(sim, steps, build, scratch, tool, "vpi" if sim == "verilator" else "")
        for old in folder.glob(f"{manifest['top']}_*"):
            old.unlink()
        (scratch / "chip").rename(target)
    return target


def _digest(build, manifest, settings):
    """Of everything that the compiled chip depends on."""
    digest = hashlib.sha256(repr(settings).encode())
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
    libs, share = cocotb_tools.config.libs_dir, cocotb_tools.config.share_dir
    return verilator_steps(top, [
        "+define+HWGEN_TRACE", "--vpi", "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(share / "lib" / "verilator" / "verilator.cpp"), "{scratch}/control.vlt", *files,
    ], optimisation)


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
            end_process(process)
        log.seek(0)
        text = log.read()
        if process.returncode or not _passed(Path(scratch, "results.xml")):
            raise SimulatorError(f"The bench must pass in {sim}, but ended with: {complaint(text)}")


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
