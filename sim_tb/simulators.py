"""Verilator and Icarus under cocotb: compile a chip once, run a bench on it and read what the bench reports.

A build folder holds `manifest.json` (keys used here: top, files) and what it names. Nothing in this package depends
on the software that made the folder.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

from sim_tb.chip_folder import read_manifest
from sim_tb.errors import SimulatorError
from sim_tb.recipe import Recipe, complaint, end_process, first_line, package_version
from sim_tb.verilate import OPTIMISATION, QUICK, follow_with_runtime, verilator_recipe
from sim_tb.workplace import cache_folder, held, keep, lasting_folder, link, scratch_folder, sweep, tool_environment

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
_UNUSED_S = 30 * 86400
"""Age at which a compiled chip in the user's cache folder goes."""


@contextlib.contextmanager
def compiled_chip(build: Path, sim: str, **options):
    """The answer of `compile_chip`, which no other process removes during the block."""
    while True:
        compiled = compile_chip(build, sim, **options)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks, or a file that is gone again
                stack.enter_context(held(compiled))
            if compiled.exists():
                yield compiled
                return


def compile_chip(build: Path, sim: str, *, quick: bool = False, ports=PORTS) -> Path:
    """The compiled chip of `build`, made now unless the same sources have been compiled before by the same tools.

    It lies in BUILD/sim/SIM under the digest of sources, flags and versions, the others there go unless somebody runs
    them. Where that cannot be it lies in the user's cache folder or, until this process ends, among temporary files.
    `ports` are those of the top, with wildcards. Raises SimulatorError.
    """
    build = build.resolve()
    manifest = read_manifest(build)
    recipe = _recipe(sim, manifest, QUICK if quick else OPTIMISATION)
    recipe.links["build"] = build
    public = (f'public_flat_rw -module "{manifest["top"]}" -var "{port}"' for port in ports)
    control = _CONTROL_FILE.format(ports="\n".join(public))
    name = f"{manifest['top']}_{_digest(build, manifest, (recipe.key(), control, _ICARUS_OPTIONS))}"
    places = [build / "sim" / sim]
    cache = cache_folder()
    if cache:
        places.append(cache / "chips" / sim)
    for place in places:
        if _can_run(place / name, sim):
            return place / name
    with scratch_folder() as scratch:
        (scratch / "control.vlt").write_text(control, encoding="utf-8")
        (scratch / "options.f").write_text(_ICARUS_OPTIONS, encoding="utf-8")
        made = follow_with_runtime(recipe, scratch, "vpi") if sim == "verilator" else recipe.follow(scratch)
        for place in places:
            with contextlib.suppress(OSError):
                keep(made, place / name)
                sweep(place, f"{manifest['top']}_*", 0 if place == places[0] else _UNUSED_S, but=name)
                if _can_run(place / name, sim):
                    return place / name
        return Path(shutil.move(made, lasting_folder() / name))


def _can_run(compiled, sim):
    """Also asks whether a program may run at all where it lies."""
    return os.access(compiled, os.R_OK | (os.X_OK if sim == "verilator" else 0))


def _digest(build, manifest, settings):
    """Of everything that the compiled chip depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    for name in manifest["files"]:
        try:
            digest.update((build / name).read_bytes())
        except OSError as error:
            raise SimulatorError(f"BUILD must hold the file {name} that its manifest.json names, but: "
                                 f"{error.strerror}") from None
    return digest.hexdigest()[:16]


def _recipe(sim, manifest, optimisation) -> Recipe:
    """How the chip is compiled; {scratch}/build is its folder."""
    files, top = ["build/" + name for name in manifest["files"]], manifest["top"]
    if sim == "icarus":
        if not shutil.which("iverilog"):
            raise SimulatorError("Simulator icarus must be installed (apt install iverilog)")
        options = ["-f", "options.f", "-s", top, "-o", "chip"]
        versions = [first_line("iverilog", "-V"), first_line("vvp", "-V")]
        return Recipe(sim, [["iverilog", *_ICARUS_FLAGS, *options, *files]], versions)
    if sim != "verilator":
        raise SimulatorError(f"Simulator must be {' or '.join(SIMULATORS)}, not {sim!r}")
    recipe = verilator_recipe(top, [
        "+define+HWGEN_TRACE", "--vpi",
        "-LDFLAGS", "-L{scratch}/cocotb/libs -Wl,-rpath-link,{scratch}/cocotb/libs -lcocotbvpi_verilator",
        "cocotb.cpp", "control.vlt", *files,
    ], optimisation)
    recipe.links["cocotb"] = _cocotb()
    # a link of its own: Verilator tells make the real folders of C++ sources
    recipe.links["cocotb.cpp"] = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    recipe.versions.append(package_version("cocotb"))
    return recipe


def _cocotb():
    """Folder of cocotb's package, with its libraries."""
    return cocotb_tools.config.libs_dir.parent


def run_bench(build: Path, sim: str, compiled: Path, request: dict, on_report, *, module: str = "sim_tb.bench",
              trace: Path | None = None, trace_beat: int = 0) -> None:
    """Run a bench until it ends; `on_report` gets each JSON object that it writes, as soon as it is written.

    `trace`, a plain name, takes the tiles' activity between output beat `trace_beat` (0: reset) and the next, see
    `chip.v`.

    The simulator runs in `build`, where the images' paths start. Raises SimulatorError if it fails; whatever ends
    the call ends the simulator.
    """
    top = read_manifest(build)["top"]
    process = None
    with scratch_folder() as scratch, open(scratch / "log", "w+", encoding="utf-8", errors="replace") as log:
        (scratch / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [*_bench_command(sim, compiled.resolve(), scratch),
                   *([f"+trace={Path(trace).resolve()}", f"+trace_beat={trace_beat}"] if trace else [])]
        read, write = os.pipe()
        with os.fdopen(read, encoding="utf-8") as reports:
            try:
                environment = _bench_environment(sim, scratch, module) | {
                    "BENCH_REQUEST": str(scratch / "request.json"), "BENCH_REPORT_FD": str(write),
                    "BENCH_MANIFEST": str(build.resolve() / "manifest.json"), "COCOTB_TOPLEVEL": top,
                }
                process = _start(command, build, environment, write, log)
                for line in reports:
                    on_report(json.loads(line))
                process.wait()
            finally:
                end_process(process)
        log.seek(0)
        text = log.read()
        if process.returncode or not _passed(scratch / "results.xml"):
            raise SimulatorError(f"The bench must pass in {sim}, but ended with: {complaint(text)}")


def _start(command, build, environment, write, log):
    """The simulator's process, which alone has the end `write` of a pipe."""
    try:
        return subprocess.Popen(command, cwd=build, env=environment, pass_fds=(write,), stdin=subprocess.DEVNULL,
                                stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    finally:
        os.close(write)


def _passed(results):
    """Whether a test ran and none failed."""
    if not results.exists():
        return False
    tests, failures = get_results(results)
    return tests > 0 and failures == 0


def _bench_command(sim, compiled, scratch):
    if sim == "icarus":
        library = scratch / "cocotb" / "libs" / cocotb_tools.config.lib_name_path("vpi", sim).name
        return ["vvp", "-n", "-m", str(library), str(compiled), "-none"]
    # registers that no reset reaches start with random values: nothing may rely on them
    return [str(compiled), "+verilator+rand+reset+2", "+verilator+seed+1"]


def _bench_environment(sim, scratch, module):
    libpython = find_libpython.find_libpython() or os.environ.get("LIBPYTHON_LOC")
    if not libpython:
        raise SimulatorError("Python must have its shared library (apt install libpython3-dev)")
    libraries = link(scratch, "cocotb", _cocotb()) / "libs"
    python = link(scratch, "libpython", Path(libpython).parent) / Path(libpython).name
    # the folder that holds this package comes first: a bench copied elsewhere runs from there
    here = str(Path(__file__).resolve().parent.parent)
    environment = tool_environment(scratch) | {
        "GPI_USERS": f"{python};{scratch}/cocotb/{_simulator_module()},initialize",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": _search_path([here, *(path for path in sys.path if path)], scratch),
        "PYTHONUTF8": "1",
        "GPI_LOG_LEVEL": "WARNING",
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RANDOM_SEED": "1",
        "COCOTB_RESULTS_FILE": str(scratch / "results.xml"),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_ANSI_OUTPUT": "0",
        "COCOTB_TRUST_INERTIAL_WRITES": "1" if sim == "verilator" else "0",
        "TOPLEVEL_LANG": "verilog",
    }
    environment["LD_LIBRARY_PATH"] = _joined([str(libraries), environment.get("LD_LIBRARY_PATH", "")])
    if "PYTHONHOME" in os.environ and not sys.flags.ignore_environment:
        environment["PYTHONHOME"] = os.environ["PYTHONHOME"]
    return environment


def _simulator_module():
    """File of cocotb's compiled module; not imported, as cocotb then reads the variables of its user."""
    for suffix in EXTENSION_SUFFIXES:
        if (_cocotb() / f"simulator{suffix}").exists():
            return f"simulator{suffix}"
    raise SimulatorError("Simulation must have cocotb with its compiled module for this Python (pip install cocotb)")


def _search_path(folders, scratch):
    """PYTHONPATH of folders, one whose name would be taken for two by another name."""
    plain = []
    for number, folder in enumerate(map(os.path.abspath, folders)):
        plain.append(str(link(scratch, f"path_{number}", Path(folder))) if os.pathsep in folder else folder)
    return _joined(plain)


def _joined(paths):
    return os.pathsep.join(filter(None, paths))
