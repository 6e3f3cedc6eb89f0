"""Imports point one way: from the model to the integer graph to the compiler to the RTL to emission, never back.

The explorer stands beside that line: it uses what hwgen exports, and only its own command uses the explorer.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HWGEN = [
    {"errors", "formats", "interrupts", "process", "template_files", "whole_files"},
    {"isa", "arithmetic", "noc"},
    {"model_config", "safetensors_file", "tokenizer", "rope"},
    {"float_model", "hf_config", "load_hf", "load_gguf", "load"},
    {"integer_graph", "ranges"},
    {"fold", "balance", "calibrate", "quantize"},
    {"reference", "evaluate", "explain"},
    {"design"},
    {"compiler"},
    {"emulate_tile", "images"},
    {"emulate"},
    {"rtl"},
    {"emit"},
    {"manifest", "bound", "build_folder", "figures"},
    {"liberty", "yosys_jobs", "report", "noc_report", "testbench", "router_timing"},
    {"noc_bench", "synth", "generate", "simulate"},
    {"run", "router_report"},
    {"commands"},
    {"cli"},
]
EXPLORE = [
    {"node", "operator", "program_shape", "vision", "workload", "scenario", "goal"},
    {"amounts", "arrangement", "space", "canonical", "stages", "straight", "design_file", "formats"},
    {"tile_load", "network_load", "logic_area", "area", "cycles", "energy", "limits", "evaluate", "tile_map", "floors",
     "paper_design"},
    {"networks", "action", "napkin", "archive", "state", "practice", "problem", "replay", "ask_tell", "environment"},
    {"baselines"},
    {"surrogate", "plan", "refine", "climb", "agent", "designer", "training", "train"},
    {"search", "kept", "plots", "report"},
    {"command"},
]
LAYERS = {"hwgen": HWGEN, "explore": EXPLORE}
OUTSIDE = {"hwgen": {"bench", "tests", "verify"}, "explore": {"bench", "tests", "verify", "sim_tb"}}
"""Folders that a package leaves alone."""


def _imports(path):
    """(module, name) of everything a file imports; the name is empty where it is the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def _files(package):
    return sorted((ROOT / package).rglob("*.py"))


def _modules(path, package="hwgen"):
    """First names after `hwgen.` (or another package) of everything a file imports."""
    for module, name in _imports(path):
        if module == package and {f"{name}.py", name} & {p.name for p in (ROOT / package).iterdir()}:
            yield name
        elif module.startswith(f"{package}."):
            yield module.split(".")[1]


def _name(path):
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


@pytest.mark.parametrize("package", LAYERS)
def test_every_module_has_its_place(package):
    names = [name for layer in LAYERS[package] for name in layer]
    assert sorted(names) == sorted({_name(p) for p in _files(package)} - {"__init__", "templates", "designs"})


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_one_way(package):
    rank = {name: number for number, layer in enumerate(LAYERS[package]) for name in layer}
    wrong = [f"{p.relative_to(ROOT)} imports {m}" for p in _files(package) for m in _modules(p, package)
             if _name(p) != "__init__" and rank[m] > rank[_name(p)]]
    assert not wrong


@pytest.mark.parametrize("package", ["explore", "bench"])
def test_no_module_needs_itself(package):
    needs = {}
    for path in _files(package):
        needs.setdefault(_name(path), set()).update(set(_modules(path, package)) - {_name(path)})
    assert len(list(TopologicalSorter(needs).static_order())) >= len(needs)  # raises CycleError


@pytest.mark.parametrize("package", OUTSIDE)
def test_packages_point_one_way(package):
    wrong = [f"{p.relative_to(ROOT)} imports {m}" for p in _files(package) for m, _ in _imports(p)
             if m.split(".")[0] in OUTSIDE[package]]
    assert not wrong


def test_only_its_command_uses_the_explorer():
    users = {str(p.relative_to(ROOT)) for p in _files("hwgen") if any(True for _ in _modules(p, "explore"))}
    assert users == {"hwgen/commands/explore.py"}


@pytest.mark.parametrize("package", ["explore", "bench"])
def test_the_explorer_uses_what_hwgen_exports(package):
    wrong = [f"{p.relative_to(ROOT)} imports {m} {name}" for p in _files(package) for m, name in _imports(p)
             if m.split(".")[0] == "hwgen" and (name.startswith("_") or m.startswith(("hwgen.commands", "hwgen.cli")))]
    assert not wrong


def test_the_reference_never_sees_a_design():
    seen, pending = set(), ["reference"]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        path = ROOT / "hwgen" / f"{name}.py"
        for file in [path] if path.exists() else (ROOT / "hwgen" / name).rglob("*.py"):
            pending += _modules(file)
    assert "design" not in seen and "compiler" not in seen
