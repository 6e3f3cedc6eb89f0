"""Commands on a model: quantize, reference."""

from pathlib import Path
from typing import Annotated

import typer

from hwgen.commands.terminal import (
    AllowWrap,
    Context,
    Head,
    Json,
    MaxTokens,
    Model,
    Prompt,
    PromptIds,
    Weights,
    answer,
    app,
    counted,
    ids_of,
    read_graph,
    read_model,
    show,
)
from hwgen.errors import HwgenError
from hwgen.interrupts import say_when_interrupted


@app.command(epilog="Example: hwgen quantize examples/model -o story.q")
def quantize(
    model: Annotated[str, typer.Argument(help="Hugging Face folder or GGUF file")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Q file to write")] = None,
    weights: Weights = "mxint8",
    head: Head = "mxint8",
    context: Context = None,
    calibration: Annotated[Path | None, typer.Option(help="Text file; default text that the model writes")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens to measure on, 0 for none; default 20,000, or fewer "
                                               "so that it takes some two minutes at most")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Measure what each choice costs, taking one at a time "
                                          "back to float on 1,280 tokens")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of calibration and measurement text")] = 0,
    allow_wrap: AllowWrap = False,
    json_: Json = False,
) -> None:
    """Quantise a model to the integer graph and measure what that costs against float."""
    from hwgen.evaluate import evaluate
    from hwgen.explain import explain as costs
    from hwgen.integer_graph import check_graph_output, is_graph_file
    from hwgen.quantize import narrow_matrices, prepare, rounded

    if output is not None:
        check_graph_output(output)
    text = _read_text(calibration) if calibration else None
    if Path(model).is_file() and is_graph_file(model):
        raise HwgenError(f"Model must be a Hugging Face folder or a GGUF file, not the quantised {model!r}")
    loaded = read_model(Path(model))
    narrow_matrices(loaded.config, weights, head)
    with counted() as show_progress:
        prepared = prepare(loaded, context=context, calibration=text, seed=seed, on_progress=show_progress)
        graph = rounded(prepared, weights=weights, head=head, allow_wrap=allow_wrap, on_progress=show_progress)
        figures = {"output": None if output is None else str(output), "signature": f"{graph.signature():08x}"}
        if output is not None:
            graph.save(output)
            say_when_interrupted(f"{output} was written whole before")
        if tokens != 0:
            figures |= evaluate(loaded, graph, tokens=tokens, seed=seed, on_progress=show_progress)
        if explain:
            figures["explain"] = costs(loaded, prepared, graph, seed=seed, on_progress=show_progress)
    answer(json_, figures, _summary(figures))
    if explain and not json_:
        show(*_explanation(figures["explain"]))


def _summary(figures: dict) -> str:
    """One line; the parts that were measured."""
    if "kl" not in figures:
        return f"signature {figures['signature']}; nothing was measured"
    kl_error, top1_error = _error(figures["kl_error"], "{:.4f}"), _error(figures["top1_error"], "{:.2%}")
    return (f"KL {figures['kl']:.4f}{kl_error}  top-1 {figures['top1']:.2%}{top1_error}  "
            f"perplexity {figures['ppl_float']:.3f} -> {figures['ppl_int']:.3f}  ({figures['tokens']:,} tokens)")


def _error(value: float | None, form: str) -> str:
    return "" if value is None else f" ± {form.format(value)}"


def _explanation(figures: dict):
    """Two tables of `hwgen.explain.explain`: the graph beside its emulations, and what each choice costs."""
    from rich.table import Table

    whole = Table(title=f"KL against float, {figures['tokens']:,} drawn tokens", title_justify="left")
    for name in ("", "KL", "top-1"):
        whole.add_column(name, justify="left" if not name else "right")
    names = {"integers": "the integer graph", "emulation": "emulated in float32, every choice",
             "formats": "emulated, formats of weights, operands and attention alone"}
    for key, name in names.items():
        row = figures[key]
        whole.add_row(name, f"{row['kl']:.5f}{_error(row['kl_error'], '{:.5f}')}", f"{row['top1']:.2%}")
    table = Table(title="What a choice costs: KL of every choice less KL with this one in float", title_justify="left")
    for name in ("choice", "cost", "top-1 without", "what it is"):
        table.add_column(name, justify="left" if name in ("choice", "what it is") else "right")
    for row in figures["rows"]:
        cost = f"{row['cost']:.5f}{_error(row['cost_error'], '{:.5f}')}"
        table.add_row(row["choice"], cost, f"{row['top1']:.2%}", row["meaning"])
    return whole, table


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
    from hwgen.quantize import check_context
    from hwgen.reference import Reference, check_request
    from hwgen.tokenizer import readable

    make_ids = ids_of(prompt, prompt_ids)

    def check(loaded):
        config = loaded.config
        check_request(config.vocab, check_context(config, context), make_ids(loaded.tokenizer), max_tokens)

    graph = read_graph(model, context, allow_wrap, check=check)
    run = Reference(graph)
    ids = make_ids(graph.tokenizer)
    tokens = run.generate(ids, max_tokens)
    tokenizer = readable(graph.tokenizer)
    text = None if tokenizer is None else tokenizer.decode(tokens)
    answer(json_, {"tokens": tokens, "text": text, "overflow": run.overflow},
            str(tokens) if text is None else tokenizer.decode(ids + tokens))
