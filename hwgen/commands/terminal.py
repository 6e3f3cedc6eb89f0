"""What all commands share: the application, options by the same name, answers and progress."""

import contextlib
import functools
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hwgen.errors import HwgenError, NotKept, shown

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
Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="Text, once for each stream; BOS is added if the "
                                                             "tokenizer does")]
PromptsIds = Annotated[list[str] | None, typer.Option("--prompt-ids", help="Token ids, once for each stream")]
MaxTokens = Annotated[int, typer.Option(help="New tokens at most")]
Force = Annotated[bool, typer.Option(help="Overwrite an output folder that hwgen made")]


def answer(as_json: bool, values: dict, text: str):
    """Print the values as JSON, or the text."""
    print(json.dumps(_finite(values)) if as_json else text)


def _finite(value):
    """The value with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(*tables):
    """Print rich tables, as wide as they are, whatever the terminal: a number is never cut."""
    from rich.measure import Measurement

    console = Console()
    anything = console.options.update(max_width=1000)
    console.width = max(console.width, *(Measurement.get(console, anything, table).maximum for table in tables))
    console.print(*tables)


def result_of(run: Callable):
    """(what `run` returns, None), or (the result that it could not keep, the error to raise when that is printed)."""
    try:
        return run(), None
    except NotKept as error:
        return error.result, error


def note(text: str):
    """Print a line on stderr that tells the user what they may not expect."""
    _line(f"note: {text}")


def _line(text: str):
    """Print a line on stderr as it is, however long."""
    progress.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def step(what: str):
    """Show that something is under way, on stderr."""
    with progress.status(what):
        yield


@contextlib.contextmanager
def bar(what: str):
    """A progress bar on stderr while the block runs, gone after it; yields what updates it, and what ends it before.

    While it is there, rich sends stdout to stderr.
    """
    from rich.progress import Progress

    # rich ends a bar with an empty line where nobody sees one
    with Progress(console=progress, transient=True, disable=not progress.is_interactive) as bars:
        yield functools.partial(bars.update, bars.add_task(what, total=None)), bars.stop


@contextlib.contextmanager
def counted():
    """Yields what shows (what is under way, how much of it is done, of how much) on stderr, with the time left.

    The first word of what is under way names its kind: another kind begins anew. A terminal gets a bar; elsewhere a
    line now and then shows that work goes on.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    share = TextColumn("{task.percentage:.0f} %")
    columns = TextColumn("{task.description}"), BarColumn(), share, TimeRemainingColumn()
    if not progress.is_interactive:
        yield _Lines().update
        return
    with Progress(*columns, console=progress, transient=True) as bars:
        task, kind = None, None

        def update(what, done, total):
            nonlocal task, kind
            if what.split()[0] != kind:
                if task is not None:
                    bars.remove_task(task)
                task, kind = bars.add_task(what, total=total), what.split()[0]
            bars.update(task, description=what, completed=done, total=total)

        yield update


class _Lines:
    """Progress as lines: one when something begins, then one every ten seconds with an estimate."""

    _PAUSE = 10

    def __init__(self):
        self._kind, self._began, self._said = None, 0.0, 0.0

    def update(self, what: str, done: int, total: int):
        kind, now = what.split()[0], time.monotonic()
        if kind != self._kind:
            self._kind, self._began, self._said = kind, now, now
            _line(what)
        elif now - self._said >= self._PAUSE and done:
            self._said = now
            left = (now - self._began) * (total - done) / done
            _line(f"{what}: {done / total:.0%}, some {left:.0f} s left")


def read_model(path: Path, *, weights: bool = True, check: Callable | None = None):
    """The model at `path`, with its notes on stderr. `check` gets it before anything is said, and may raise."""
    from hwgen.load import load

    loaded = load(path, weights=weights)
    if check:
        check(loaded)
    for text in loaded.notes:
        note(text)
    if weights and loaded.tokenizer is not None and loaded.tokenizer.problem:
        note(f"text can be neither read nor written, only token ids: {loaded.tokenizer.problem}")
    return loaded


def read_graph(model: str, context: int | None, allow_wrap: bool = False, check: Callable | None = None):
    """The integer graph of a Q file, or of a model quantised with the defaults.

    `check` gets a model before it is quantised, and may raise.
    """
    from hwgen.integer_graph import IntegerGraph, check_fixed_context, is_graph_file

    path = Path(model)
    if path.is_file() and is_graph_file(path):
        graph = IntegerGraph.load(path)
        check_fixed_context(graph.context, context, model)
        return graph
    from hwgen.quantize import quantize

    loaded = read_model(path, check=check)
    with counted() as show_progress:
        return quantize(loaded, context=context, allow_wrap=allow_wrap, on_progress=show_progress)


def ids_of(prompt: str | None, prompt_ids: str | None) -> Callable:
    """Checks what can be checked at once; the answer makes the ids, given the model's tokenizer."""
    if (prompt is None) == (prompt_ids is None):
        raise HwgenError("Exactly one of --prompt and --prompt-ids must be given")
    if prompt is None:
        if not re.fullmatch(r"\s*-?[0-9]+\s*(,\s*-?[0-9]+\s*)*", prompt_ids):
            raise HwgenError(f"Prompt ids must be integers separated by commas, not {shown(prompt_ids)}")
        ids = [int(part) for part in prompt_ids.split(",")]
        return lambda tokenizer: ids

    text = _utf8(prompt)

    def encode(tokenizer):
        if tokenizer is None:
            raise HwgenError("--prompt must come with a model that has a tokenizer; use --prompt-ids")
        return tokenizer.encode(text)

    return encode


def _utf8(argument: str) -> str:
    """An argument of the command line read as UTF-8 where the locale's encoding could not read it."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="surrogateescape")
    return argument


def ids_of_streams(prompts: list[str] | None, prompt_ids: list[str] | None) -> list[Callable]:
    """The same for prompts of several streams."""
    if bool(prompts) == bool(prompt_ids):
        raise HwgenError("Exactly one of --prompt and --prompt-ids must be given, at most once for each stream")
    return [ids_of(prompt, None) for prompt in prompts or ()] + [ids_of(None, ids) for ids in prompt_ids or ()]


def numbers(what: str, text: str, kind: type) -> list:
    """The numbers of a comma-separated list."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        name = "integers" if kind is int else "numbers"
        raise HwgenError(f"{what} must be {name} separated by commas, not {shown(text)}") from None
