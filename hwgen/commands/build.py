"""Commands on a chip: generate, sim, synth."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hwgen.commands.terminal import (
    AllowWrap,
    Context,
    Force,
    Json,
    MaxTokens,
    Model,
    Prompts,
    PromptsIds,
    answer,
    app,
    ids_of_streams,
    note,
    read_graph,
    read_model,
    result_of,
    show,
    step,
)


@app.command(epilog="Example: hwgen generate examples/model examples/designs/2x2.yaml -o build/story")
def generate(
    model: Model,
    design: Annotated[Path, typer.Argument(help="Design file (YAML)")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make")],
    context: Context = None,
    images: Annotated[bool, typer.Option(help="Write ROM images (without, config.json alone is enough)")] = True,
    allow_wrap: AllowWrap = False,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Emit a chip: Verilog, ROM images, programs, testbench, manifest and report."""
    from hwgen.design import read_design
    from hwgen.emit.write import check_output
    from hwgen.generate import generate as emit

    plan = read_design(design)
    check_output(output, force=force)
    graph = read_graph(model, context, allow_wrap) if images else _shape(model, context)
    with step(f"generating {output}"):
        summary = emit(graph, plan, output, images=images, force=force)
    answer(json_, summary, "{output}: {tiles} tiles, {modules} modules, {instructions} instructions".format(**summary))


def _shape(model: str, context: int | None):
    """A graph of the right sizes without weights, where none are needed."""
    from hwgen.integer_graph import is_graph_file, shape_only
    from hwgen.quantize import check_context

    path = Path(model)
    if path.is_file() and is_graph_file(path):
        return read_graph(model, context)
    config = read_model(path, weights=False).config
    return shape_only(config, check_context(config, context))


@app.command(epilog="Example: hwgen sim build/story --sim verilator --prompt 'Once upon a time' --max-tokens 32")
def sim(
    build: Annotated[Path, typer.Argument(help="Folder that `hwgen generate` made")],
    sim: Annotated[str, typer.Option(help="verilator or icarus")] = "verilator",
    prompt: Prompts = None,
    prompt_ids: PromptsIds = None,
    max_tokens: MaxTokens = 64,
    json_: Json = False,
) -> None:
    """Simulate the chip through its AXI ports, with a prompt for each stream; the text of one appears as it comes."""
    from hwgen.build_folder import read_manifest
    from hwgen.run import run

    ids = ids_of_streams(prompt, prompt_ids)
    read_manifest(build)
    _say_unless_kept(build)
    with _stages() as stage:
        result, failure = result_of(lambda: run(
            build, sim=sim, prompt_ids=ids, max_tokens=max_tokens, stream=None if json_ else _print_piece,
            on_stage=stage))
    if json_:
        print(json.dumps(result))
    else:
        tokens = result["tokens"]
        count = sum(map(len, tokens)) if len(ids) > 1 else len(tokens)
        print(f"\n{count} tokens, {result['cycles']} cycles", file=sys.stderr)
    if failure:
        raise failure


def _say_unless_kept(build: Path):
    """A note before the work whose result can only be printed."""
    from hwgen.build_folder import why_unwritable

    if why := why_unwritable(build):
        note(f"the result will be printed only, as {build} cannot be written: {why}")


@contextlib.contextmanager
def _stages():
    """A callback that says on stderr what is under way until text appears."""
    with contextlib.ExitStack() as stack:
        def stage(name):
            stack.close()
            if name == "compile":
                stack.enter_context(step("compiling the simulation (once per chip)"))

        yield stage


def _print_piece(piece: str):
    print(piece, end="", flush=True)


@app.command(epilog="Example: hwgen synth build/story --liberty cells.lib")
def synth(
    build: Annotated[Path, typer.Argument(help="Folder that `hwgen generate` made")],
    liberty: Annotated[Path | None, typer.Option(help="Cell library; default generic gates")] = None,
    json_: Json = False,
) -> None:
    """Synthesise every distinct module with Yosys and print a table of cells."""
    from hwgen.build_folder import read_manifest
    from hwgen.synth import as_table, synthesise

    read_manifest(build)
    _say_unless_kept(build)
    with step("synthesising"):
        modules, failure = result_of(lambda: synthesise(build, liberty))
    if json_:
        print(json.dumps({"modules": modules}))
    else:
        show(as_table(modules))
    if failure:
        raise failure
