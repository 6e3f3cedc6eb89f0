"""`hwgen generate`: an integer graph and a design become a folder with the whole chip."""

import json
from collections.abc import Iterable
from pathlib import Path

from hwgen.compiler.compile import CompiledChip, compile_chip
from hwgen.design import Design
from hwgen.emit.chip import ChipSpec, chip_files
from hwgen.emit.constraints import constraints
from hwgen.emit.write import write_folder
from hwgen.images import listing, program_image, rom_image
from hwgen.integer_graph import IntegerGraph
from hwgen.manifest import chip_spec, manifest
from hwgen.reference import Reference
from hwgen.report import report_html
from hwgen.testbench import testbench_files
from hwgen.tokenizer import readable

EXAMPLE_TOKENS = 3
"""New tokens of the request that the emitted testbench checks."""


def generate(graph: IntegerGraph, design: Design, output: Path, *, images: bool = True, force: bool = False) -> dict:
    """Write the chip to folder `output` and return a summary. Nothing appears there unless all of it could be made."""
    chip = compile_chip(graph, design)
    files = build_files(chip, images=images)
    write_folder(output, files, force=force)
    return {
        "output": str(output), "tiles": design.tiles,
        "modules": sum(path.startswith("rtl/") for path in files),
        "instructions": sum(len(t.program) for t in chip.tiles),
        "classes": json.loads(files["manifest.json"])["classes"],
    }


def build_files(chip: CompiledChip, *, images: bool = True) -> dict[str, str | Iterable[str]]:
    """Everything of a BUILD folder: path -> text, or pieces of text where it is long."""
    files: dict[str, str | Iterable[str]] = dict(chip_files(chip_spec(chip)))
    verilog = [path for path in files if path.endswith(".v")]
    numbers = manifest(chip, verilog, images)
    files[numbers["constraints"]] = constraints(chip.design.clock_mhz, chip.design.streams)
    files["manifest.json"] = json.dumps(numbers, indent=1) + "\n"
    width = chip.design.width
    for tile in range(chip.design.tiles):
        place = tile % width, tile // width
        program = ChipSpec.program_image(*place)
        files[str(Path(program).with_suffix(".s"))] = listing(chip, tile)
        if images:
            files[program] = program_image(chip, tile)
            files[ChipSpec.rom_image(*place)] = rom_image(chip, tile)
    if tokenizer := readable(chip.graph.tokenizer):
        files["tokenizer.json"] = tokenizer.to_json()
    if images:
        files |= testbench_files(_example(chip.graph, chip.design.streams))
    return files | {"report.html": report_html(numbers)}


def _example(graph: IntegerGraph, streams: int) -> dict:
    """A short request and the reference's answer, for the bench that goes with the chip."""
    bos, vocab = graph.config.bos, graph.config.vocab
    first = bos if bos is not None and bos < vocab else 0
    prompts = [[(first + stream) % vocab] for stream in range(streams)]
    tokens = [Reference(graph).generate(prompt, EXAMPLE_TOKENS, eos=None) for prompt in prompts]
    if streams == 1:
        prompts, tokens = prompts[0], tokens[0]
    return {"prompt_ids": prompts, "max_tokens": EXAMPLE_TOKENS, "expected": tokens}
