"""Imports point one way: from the model to the integer graph to the compiler to the RTL to emission, never back."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "hwgen"
LAYERS = [
    {"errors", "interrupts", "template_files"},
    {"isa", "arithmetic", "noc"},
    {"model_config", "safetensors_file", "tokenizer", "rope"},
    {"float_model", "load_hf", "load_gguf", "load"},
    {"integer_graph", "ranges"},
    {"fold", "balance", "calibrate", "quantize"},
    {"reference", "evaluate"},
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
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def _modules(path):
    """First names after `hwgen.` of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hwgen."):
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("hwgen.")]
        yield from (name.split(".")[1] for name in names)


def _name(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_its_place():
    found = {_name(p) for p in PACKAGE.rglob("*.py")} - {"__init__", "templates", "designs"}
    assert found == set(RANK)


def test_imports_point_one_way():
    wrong = [f"{p.relative_to(PACKAGE)} imports {m}" for p in PACKAGE.rglob("*.py") for m in _modules(p)
             if _name(p) != "__init__" and RANK[m] > RANK[_name(p)]]
    assert not wrong


def test_the_reference_never_sees_a_design():
    seen, pending = set(), ["reference"]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        path = PACKAGE / f"{name}.py"
        for file in [path] if path.exists() else (PACKAGE / name).rglob("*.py"):
            pending += _modules(file)
    assert "design" not in seen and "compiler" not in seen
