"""Command line: `hwgen COMMAND --help` shows an example of each."""

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hwgen.errors import HwgenError
from hwgen.interrupts import interruptible

# Products here are small: a second BLAS thread would only spin. Set before NumPy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Turn a transformer checkpoint into a chip.")
progress = Console(stderr=True)

Model = Annotated[str, typer.Argument(help="Hugging Face folder, GGUF file, or a Q file that `hwgen quantize` wrote")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr")]
Context = Annotated[int | None, typer.Option(help="Positions to build for; default the model's, capped at 512")]
Weights = Annotated[str, typer.Option(help="Format of the layers' matrices: mxint8 or mxfp4")]
Head = Annotated[str, typer.Option(help="Format of embedding and head: mxint8 or mxfp4")]
AllowWrap = Annotated[bool, typer.Option(help="Accept sums that may leave Q19.12 (they wrap, flagged)")]
Prompt = Annotated[str | None, typer.Option(help="Text; BOS is added if the tokenizer does")]
PromptIds = Annotated[str | None, typer.Option(help="Token ids, comma-separated, taken literally")]
MaxTokens = Annotated[int, typer.Option(help="New tokens at most")]
Force = Annotated[bool, typer.Option(help="Overwrite an output folder that hwgen made")]


def main() -> None:
    """Entry point: one sentence and exit status 2 for whatever the user can cause, Ctrl-C and SIGTERM included."""
    sys.exit(interruptible(_run))


def _run():
    """Exit status of the command."""
    try:
        return app(standalone_mode=False) or 0
    except HwgenError as error:
        _fail(str(error))
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename} must be within reach, but: {error.strerror}")
    except Exception as error:
        # The library's own errors, known by their interface: which package defines them depends on its version.
        if hasattr(error, "format_message"):
            _fail(error.format_message())
        if hasattr(error, "exit_code"):
            return error.exit_code
        raise


def _fail(sentence: str):
    if sentence:
        print(f"hwgen: {sentence}", file=sys.stderr)
    sys.exit(2)


def _answer(as_json: bool, values: dict, text: str):
    # JSON has no infinity
    finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
    print(json.dumps(finite) if as_json else text)


@contextlib.contextmanager
def _step(what: str):
    """Show that something is under way, on stderr."""
    with progress.status(what):
        yield


def _graph(model: str, context: int | None, allow_wrap: bool = False):
    """The integer graph of a Q file, or of a model quantised with the defaults."""
    from hwgen.integer_graph import IntegerGraph, is_graph_file

    path = Path(model)
    if path.is_file() and is_graph_file(path):
        graph = IntegerGraph.load(path)
        if context is not None and context != graph.context:
            raise HwgenError(f"Context must be {graph.context}, as {model} was quantised for, not {context}")
        return graph
    from hwgen.load import load
    from hwgen.quantize import quantize

    with _step(f"quantising {model}"):
        return quantize(load(path), context=context, allow_wrap=allow_wrap)


def _prompt(prompt: str | None, prompt_ids: str | None) -> Callable:
    """Checks what can be checked at once; the answer makes the ids, given the model's tokenizer."""
    if (prompt is None) == (prompt_ids is None):
        raise HwgenError("Exactly one of --prompt and --prompt-ids must be given")
    if prompt is None:
        if not re.fullmatch(r"\s*-?[0-9]+\s*(,\s*-?[0-9]+\s*)*", prompt_ids):
            raise HwgenError(f"Prompt ids must be integers separated by commas, not {prompt_ids!r}")
        ids = [int(part) for part in prompt_ids.split(",")]
        return lambda tokenizer: ids

    def encode(tokenizer):
        if tokenizer is None:
            raise HwgenError("--prompt must come with a model that has a tokenizer; use --prompt-ids")
        return tokenizer.encode(prompt)

    return encode


def _text(tokenizer, tokens: list[int]) -> str | None:
    return None if tokenizer is None else tokenizer.decode(tokens)


@app.command(epilog="Example: hwgen quantize examples/model -o story.q")
def quantize(
    model: Annotated[str, typer.Argument(help="Hugging Face folder or GGUF file")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Q file to write")] = None,
    weights: Weights = "mxint8",
    head: Head = "mxint8",
    context: Context = None,
    calibration: Annotated[Path | None, typer.Option(help="Text file; default text that the model writes")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to measure on")] = 20000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of calibration and measurement text")] = 0,
    allow_wrap: AllowWrap = False,
    json_: Json = False,
) -> None:
    """Quantise a model to the integer graph and measure what that costs against float."""
    from hwgen.evaluate import evaluate
    from hwgen.integer_graph import check_graph_output, is_graph_file
    from hwgen.load import load
    from hwgen.quantize import quantize as to_graph

    if output is not None:
        check_graph_output(output)
    text = _read_text(calibration) if calibration else None
    if Path(model).is_file() and is_graph_file(model):
        raise HwgenError(f"Model must be a Hugging Face folder or a GGUF file, not the quantised {model!r}")
    loaded = load(Path(model))
    if len(loaded.config.eos_ids) > 1:
        progress.print(f"note: a run ends after token {loaded.config.eos} only, not after {loaded.config.eos_ids[1:]}")
    with _step(f"quantising {model}"):
        graph = to_graph(loaded, weights=weights, head=head, context=context, calibration=text, seed=seed,
                         allow_wrap=allow_wrap)
    with _step(f"measuring on {tokens} tokens"):
        figures = evaluate(loaded, graph, tokens=tokens, seed=seed)
    if output is not None:
        graph.save(output)
    figures |= {"output": None if output is None else str(output), "signature": f"{graph.signature():08x}"}
    summary = "KL {kl:.4f}  top-1 {top1:.2%}  perplexity {ppl_float:.3f} -> {ppl_int:.3f}"
    _answer(json_, figures, summary.format(**figures))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HwgenError(f"{path} must be a readable text file: {getattr(error, 'strerror', None) or error}") from None


@app.command(epilog="Example: hwgen reference examples/model --prompt 'Once upon a time' --max-tokens 32")
def reference(
    model: Model,
    prompt: Prompt = None,
    prompt_ids: PromptIds = None,
    max_tokens: MaxTokens = 64,
    context: Context = None,
    allow_wrap: AllowWrap = False,
    json_: Json = False,
) -> None:
    """Continue a prompt with the integer reference: what every chip of this model must answer."""
    from hwgen.reference import Reference

    make_ids = _prompt(prompt, prompt_ids)
    graph = _graph(model, context, allow_wrap)
    run = Reference(graph)
    ids = make_ids(graph.tokenizer)
    tokens = run.generate(ids, max_tokens)
    text = _text(graph.tokenizer, tokens)
    _answer(json_, {"tokens": tokens, "text": text, "overflow": run.overflow},
            str(tokens) if text is None else graph.tokenizer.decode(ids + tokens))


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
    graph = _graph(model, context, allow_wrap) if images else _shape(model, context)
    with _step(f"generating {output}"):
        summary = emit(graph, plan, output, images=images, force=force)
    _answer(json_, summary, "{output}: {tiles} tiles, {modules} modules, {instructions} instructions".format(**summary))


def _shape(model: str, context: int | None):
    """A graph of the right sizes without weights, where none are needed."""
    from hwgen.integer_graph import is_graph_file, shape_only
    from hwgen.load import load
    from hwgen.quantize import check_context

    path = Path(model)
    if path.is_file() and is_graph_file(path):
        return _graph(model, context)
    config = load(path, weights=False).config
    return shape_only(config, check_context(config, context))


@app.command(epilog="Example: hwgen sim build/story --sim verilator --prompt 'Once upon a time' --max-tokens 32")
def sim(
    build: Annotated[Path, typer.Argument(help="Folder that `hwgen generate` made")],
    sim: Annotated[str, typer.Option(help="verilator or icarus")] = "verilator",
    prompt: Prompt = None,
    prompt_ids: PromptIds = None,
    max_tokens: MaxTokens = 64,
    json_: Json = False,
) -> None:
    """Simulate the chip through its AXI ports and stream the text as tokens appear."""
    from hwgen.run import run

    with _stages() as stage:
        result = run(build, sim=sim, prompt_ids=_prompt(prompt, prompt_ids),
                     max_tokens=max_tokens, stream=None if json_ else _print_piece, on_stage=stage)
    if json_:
        print(json.dumps(result))
    else:
        print(f"\n{len(result['tokens'])} tokens, {result['cycles']} cycles", file=sys.stderr)


@contextlib.contextmanager
def _stages():
    """A callback that says on stderr what is under way until text appears."""
    with contextlib.ExitStack() as stack:
        def stage(name):
            stack.close()
            if name == "compile":
                stack.enter_context(_step("compiling the simulation (once per chip)"))

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
    from hwgen.synth import as_table, synthesise

    with _step("synthesising"):
        modules = synthesise(build, liberty)
    if json_:
        print(json.dumps({"modules": modules}))
    else:
        Console().print(as_table(modules))


@app.command(epilog="Example: hwgen rtl router --set flit_bits=64 --set buffer_flits=4 -o build/router")
def rtl(
    component: Annotated[str, typer.Argument(help="router, tile, matrix-unit, vector-unit or rom")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to make")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="knob=value, repeatable")] = None,
    report: Annotated[bool, typer.Option("--report", help="Area and critical path of a router in --liberty")] = False,
    liberty: Annotated[Path | None, typer.Option(help="Cell library of the report")] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Emit one component alone, with the top module named as the component, or report what a router costs."""
    from hwgen.emit.component import component_files, parse_settings
    from hwgen.emit.write import check_output, write_folder

    if report != (liberty is not None):
        raise HwgenError("--report and --liberty must be given together")
    if report and component != "router":
        raise HwgenError(f"Component of --report must be router, not {component!r}")
    if output is None and not report:
        raise HwgenError("--output must be given, but with --report")
    settings = parse_settings(component, set_ or [])
    if output is not None:
        check_output(output, force=force)
    files = component_files(component, settings)
    answer, lines = {}, []
    if report:
        from hwgen.router_report import as_text, router_report

        with _step("synthesising"):
            answer["report"] = router_report(files, liberty)
        lines.append(as_text(answer["report"]))
    if output is not None:
        write_folder(output, files, force=force)
        answer = {"output": str(output), "files": sorted(files), **answer}
        lines.append(f"{output}: {', '.join(sorted(files))}")
    _answer(json_, answer, "\n".join(lines))


@app.command("noc-bench", epilog="Example: hwgen noc-bench examples/designs/4x4.yaml -o build/noc")
def noc_bench(
    design: Annotated[Path, typer.Argument(help="Design file (YAML)")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to make, with a plot")] = None,
    patterns: Annotated[str | None, typer.Option(help="uniform, transpose, bit-complement, hotspot, neighbour, "
                                                      "all-gather; comma-separated, default all")] = None,
    loads: Annotated[str | None, typer.Option(help="Flits per node and cycle, comma-separated; default up to "
                                                   "saturation")] = None,
    flits: Annotated[str, typer.Option(help="Flits of a packet, comma-separated")] = "1,4",
    cycles: Annotated[int, typer.Option(help="Cycles that a point is measured, after half as many")] = 10000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the traffic")] = 0,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Measure the network alone: load-latency curves, saturation and all-gather times of the emitted routers."""
    from hwgen.design import read_design
    from hwgen.emit.write import check_output
    from hwgen.noc_bench import noc_bench, write_noc_bench
    from hwgen.noc_report import as_tables

    plan = read_design(design)
    if output is not None:
        check_output(output, force=force)
    with progress.status("starting") as status:
        result = noc_bench(
            plan, patterns=None if patterns is None else patterns.split(","),
            loads=None if loads is None else _numbers("Load", loads, float),
            flits=_numbers("Packet length", flits, int),
            cycles=cycles, seed=seed, on_stage=status.update)
    if output is not None:
        write_noc_bench(output, result, force=force)
    if json_:
        print(json.dumps(result))
    else:
        Console().print(*as_tables(result))


@app.command(epilog="Example: hwgen explore smollm2-135m --node 7 --goal low-power -o runs/smol")
def explore(
    model: Annotated[str, typer.Argument(help="Name of a shipped workload, config.json, model folder, GGUF or Q file")],
    node: Annotated[int, typer.Option(help="Process node in nm: 28, 22, 14, 10, 7, 5 or 3")] = 7,
    goal: Annotated[str, typer.Option(help="high-performance, low-power, or weights W_PERF,W_POWER,W_AREA")] =
        "high-performance",
    weights: Weights = "mxint8",
    head: Head = "mxint8",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to make")] = None,
    nodes: Annotated[str | None, typer.Option(help="Nodes to compare, comma-separated, in place of --node")] = None,
    context: Annotated[int | None, typer.Option(help="Positions to build for; default the model's up to 2048")] = None,
    power_max: Annotated[float | None, typer.Option(help="Budget in W")] = None,
    area_max: Annotated[float | None, typer.Option(help="Budget in mm2")] = None,
    latency_max: Annotated[float | None, typer.Option(help="Budget in seconds a token")] = None,
    clock_max: Annotated[float | None, typer.Option(help="MHz that the system allows; default what the node does")] =
        None,
    side: Annotated[int, typer.Option(min=1, max=64, help="Most tiles along a side of the mesh")] = 64,
    evaluations: Annotated[int, typer.Option(min=64, help="Designs to evaluate for each node")] = 8192,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result")] = 0,
    warm_start: Annotated[Path | None, typer.Option(help="RUN folder of an earlier search to begin with")] = None,
    agent: Annotated[Path | None, typer.Option(help="Agent trained by explore.train; default the shipped one")] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Find the best design for a model, a node and a goal with the shipped agent."""
    try:
        from explore.command import explore as run
    except ImportError as error:
        raise HwgenError(f"hwgen explore must find the package {error.name}: pip install 'hwgen[explore]'") from None

    from rich.progress import Progress

    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("reading the model", total=None)

        def on_progress(what, n, of, best):
            found = f"best {best:.4f}" if best > -100 else "none feasible yet"
            bar.update(task, description=f"{what}: {n:,} of {of:,} designs, {found}", completed=n, total=of)

        summary = run(
            model, nm=node, goal=goal, weights=weights, head=head, nodes=nodes, context=context, power_max=power_max,
            area_max=area_max, latency_max=latency_max, clock_max=clock_max, side=side, evaluations=evaluations,
            seed=seed, output=output, force=force, warm_start=warm_start, agent=agent,
            on_progress=on_progress)
    if json_:
        print(json.dumps(summary))
        return
    if summary["scaling"]:
        Console().print(_table(summary["scaling"]))
    print("{workload} on {node} nm: {tok_s:.5g} tokens/s, {power:.4g} W, {area:.4g} mm2, score {score:.4f} "
          "({evaluations} evaluations; the agent's first proposal {proposed_score:.4f})".format(**summary))


def _table(rows: list[dict]):
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


def _numbers(what: str, text: str, kind: type) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        name = "integers" if kind is int else "numbers"
        raise HwgenError(f"{what} must be {name} separated by commas, not {text!r}") from None


if __name__ == "__main__":
    main()
