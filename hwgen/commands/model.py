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
    ids_of,
    read_graph,
    read_model,
    step,
)
from hwgen.errors import HwgenError


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
    from hwgen.quantize import quantize as to_graph

    if output is not None:
        check_graph_output(output)
    text = _read_text(calibration) if calibration else None
    if Path(model).is_file() and is_graph_file(model):
        raise HwgenError(f"Model must be a Hugging Face folder or a GGUF file, not the quantised {model!r}")
    loaded = read_model(Path(model))
    with step(f"quantising {model}"):
        graph = to_graph(loaded, weights=weights, head=head, context=context, calibration=text, seed=seed,
                         allow_wrap=allow_wrap)
    with step(f"measuring on {tokens} tokens"):
        figures = evaluate(loaded, graph, tokens=tokens, seed=seed)
    if output is not None:
        graph.save(output)
    figures |= {"output": None if output is None else str(output), "signature": f"{graph.signature():08x}"}
    summary = "KL {kl:.4f}  top-1 {top1:.2%}  perplexity {ppl_float:.3f} -> {ppl_int:.3f}"
    answer(json_, figures, summary.format(**figures))


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
    from hwgen.tokenizer import readable

    make_ids = ids_of(prompt, prompt_ids)
    graph = read_graph(model, context, allow_wrap)
    run = Reference(graph)
    ids = make_ids(graph.tokenizer)
    tokens = run.generate(ids, max_tokens)
    tokenizer = readable(graph.tokenizer)
    text = None if tokenizer is None else tokenizer.decode(tokens)
    answer(json_, {"tokens": tokens, "text": text, "overflow": run.overflow},
            str(tokens) if text is None else tokenizer.decode(ids + tokens))
