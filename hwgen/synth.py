"""`hwgen synth`: every distinct module of a chip through Yosys, and what the chip adds up to.

Each module is synthesised once with the modules it instantiates as black boxes, so its own logic counts once; totals
follow from the numbers of instances. Memories (`rom`, `sram`) stay black boxes everywhere. Without a Liberty file the
cells are Yosys's generic gates; with one, flip-flops and logic are mapped, buffered and sized, and the path is the
`stime` estimate of ABC: combinational delay between registers or ports of one module, no wires.
"""

import json
import re
from functools import cache
from pathlib import Path

from rich.table import Table

from hwgen.build_folder import read_manifest
from hwgen.errors import HwgenError
from hwgen.liberty import Liberty, read_liberty
from hwgen.report import keep_result
from hwgen.yosys_jobs import YosysFailure, run_scripts
from sim_tb.workplace import scratch_folder

MEMORIES = ("rom", "sram")
ABC_SCRIPT = (
    "+strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;&dch,-f;&nf;&put;buffer,-p;upsize;dnsize;stime,-p"
)
LOAD_FF = 30
"""Load of every output in fF."""


def synthesise(build: Path, liberty: Path | None = None) -> list[dict]:
    """Synthesise all modules of `build`, write synth.json and update report.html; one entry per module.

    Entry: `module`; `kind` logic (has cells of its own), composition (only instances) or memory (black box);
    `instances` in the chip; `parts` (module -> instances in one of it); `by_type`, `cells`, `flip_flops` of its own;
    `all_cells`, `all_flip_flops` with its parts, memories not included; `area` (um2, own), `all_area`, `kge` (all, in
    1000 NAND2) and `path_ps` (own logic), None without a Liberty or logic of its own. The last entry is the chip.
    Raises HwgenError for a folder or a Liberty that Yosys cannot read, NotKept where nothing can be written to `build`.
    """
    build = Path(build)
    files = _module_files(build)
    library = None if liberty is None else read_liberty(liberty)
    with scratch_folder() as work:
        (work / "build").symlink_to(build.resolve())
        if library:
            (work / "cells.lib").write_text(library.text, encoding="utf-8")
            driving = f"set_driving_cell {library.driver}\n" if library.driver else ""
            (work / "constraints").write_text(f"{driving}set_load {LOAD_FF}\n", encoding="utf-8")
        try:
            counts = _structure(files, work)
            mapped = _map(files, counts, library, work)
        except YosysFailure as failure:
            raise HwgenError(f"Yosys must accept the chip in {str(build)!r}, but says of {failure}") from None
    modules = _entries(counts, mapped, library)
    keep_result(build, "synth.json", {"liberty": library.name if library else None, "modules": modules}, modules)
    return modules


def _module_files(build: Path) -> dict[str, str]:
    """Module -> its file, relative to `build`; every file holds the module it is named after."""
    files = {Path(name).stem: name for name in read_manifest(build)["files"] if name.endswith(".v")}
    missing = [name for name in files.values() if not (build / name).is_file()]
    if missing:
        raise HwgenError(f"BUILD must hold the file {missing[0]} that its manifest.json names")
    return files


def _read(files, modules):
    """Commands that read these modules; memories become black boxes."""
    return [f'read_verilog {"-lib " if name in MEMORIES else ""}-DSYNTHESIS "build/{files[name]}"' for name in modules]


def _structure(files: dict[str, str], work: Path) -> dict[str, dict[str, int]]:
    """Module -> cell type -> number, before synthesis, of all modules in the chip's hierarchy."""
    script = [*_read(files, files), "hierarchy -check -top chip", "proc", "tee -q -o structure.json stat -json"]
    run_scripts({"structure": script}, work)
    found = json.loads((work / "structure.json").read_text(encoding="utf-8"))["modules"]
    return {name.lstrip("\\"): entry["num_cells_by_type"] for name, entry in found.items()}


def _parts(counts, module):
    return {kind: n for kind, n in counts[module].items() if kind in counts or kind in MEMORIES}


def _map(files, counts, library: Liberty | None, work: Path) -> dict[str, dict]:
    """Module -> {by_type, area, path_ps} of its own logic, for the modules that have any."""
    own = [name for name in counts if len(_parts(counts, name)) < len(counts[name])]
    # the largest first, so that two processes end at about the same time
    own.sort(key=lambda name: (-sum(counts[name].values()), name))
    scripts = {name: _script(files, counts, name, library) for name in own}
    logs = run_scripts(scripts, work)
    result = {}
    for name in own:
        generic, cells = (json.loads((work / f"{name}.{kind}.json").read_text(encoding="utf-8"))["modules"][f"\\{name}"]
                          for kind in ("generic", "cells"))
        types = generic["num_cells_by_type"]
        delays = re.findall(r"Delay = +([0-9.]+) ps", logs[name])
        result[name] = {
            "by_type": {kind: n for kind, n in cells["num_cells_by_type"].items() if kind not in _parts(counts, name)},
            "flip_flops": sum(n for kind, n in types.items() if "DFF" in kind and kind.startswith("$_")),
            "area": cells.get("area"), "path_ps": float(delays[-1]) if library and delays else None}
    return result


def _script(files, counts, module, library: Liberty | None) -> list[str]:
    parts = _parts(counts, module)
    script = _read(files, [*parts, module])
    script += [f"blackbox {name}" for name in parts if name not in MEMORIES]
    script += [f"hierarchy -top {module}", f"synth -flatten -top {module}",
               f"tee -q -o {module}.generic.json stat -json"]
    if library is None:
        return [*script, f"tee -q -o {module}.cells.json stat -json"]
    avoid = " ".join(f"-dont_use {cell}" for cell in library.avoided)
    return [
        *script, f"dfflibmap -liberty cells.lib {avoid}",
        f"abc -liberty cells.lib -constr constraints {avoid} -script {ABC_SCRIPT}", "opt_clean",
        f"tee -q -o {module}.cells.json stat -liberty cells.lib -json",
    ]


def _entries(counts, mapped, library: Liberty | None) -> list[dict]:
    for own in mapped.values():
        own["cells"] = sum(own["by_type"].values())
    nothing = {"by_type": {}, "flip_flops": 0, "area": 0.0, "path_ps": None, "cells": 0}

    @cache
    def total(module, key):
        parts = sum(n * total(part, key) for part, n in _parts(counts, module).items() if part in counts)
        return mapped.get(module, nothing)[key] + parts

    instances = _instances(counts)
    entries = []
    for module in sorted(instances, key=lambda name: (name in counts, name == "chip", name)):
        kind = "memory" if module not in counts else "logic" if module in mapped else "composition"
        entry = {"module": module, "kind": kind, "instances": instances[module], "parts": {},
                 **mapped.get(module, nothing), "all_cells": 0, "all_flip_flops": 0, "all_area": None, "kge": None}
        if kind != "memory":
            entry |= {"parts": _parts(counts, module), "all_cells": total(module, "cells"),
                      "all_flip_flops": total(module, "flip_flops")}
        if kind != "memory" and library:
            area = total(module, "area")
            entry |= {"all_area": area, "kge": area / library.gate_area / 1000}
        else:
            entry["area"] = None
        entries.append(entry)
    return entries


def _instances(counts) -> dict[str, int]:
    """Module -> how often it occurs in the chip."""
    found = {}

    def visit(module, times):
        found[module] = found.get(module, 0) + times
        for part, n in _parts(counts, module).items() if module in counts else ():
            visit(part, times * n)

    visit("chip", 1)
    return found


def area_text(area: float) -> str:
    """An area in whole units; four digits where it is small, as with cells of a few nanometres."""
    return f"{area:,.0f}" if area >= 1000 else f"{area:.4g}"


def as_table(modules: list[dict]) -> Table:
    """The modules as a table for the terminal; the last line is the whole chip."""
    mapped = modules[-1]["all_area"] is not None
    table = Table(title="Modules" if mapped else "Modules, in generic gates")
    table.add_column("module", overflow="fold")
    columns = ["instances", "cells", "flip-flops", "cells with parts"]
    for name in columns + (["area um2", "kGE with parts", "path ns"] if mapped else []):
        table.add_column(name, justify="right")
    chip = modules[-1]
    for entry in modules if chip["kind"] == "logic" else modules[:-1]:
        row = [entry["module"], f"{entry['instances']:,}"]
        if entry["kind"] == "memory":
            table.add_row(*row, "black box")
            continue
        logic = entry["kind"] == "logic"
        row += [f"{entry['cells']:,}" if logic else "", f"{entry['flip_flops']:,}" if logic else "",
                f"{entry['all_cells']:,}"]
        if mapped:
            path = entry["path_ps"]
            row += [area_text(entry['area']) if logic else "", f"{entry['kge']:,.1f}",
                    f"{path / 1000:.2f}" if path else ""]
        table.add_row(*row)
    table.add_section()
    row = ["whole chip", "", f"{chip['all_cells']:,}", f"{chip['all_flip_flops']:,}", f"{chip['all_cells']:,}"]
    table.add_row(*row, *([area_text(chip['all_area']), f"{chip['kge']:,.1f}", ""] if mapped else []))
    return table
