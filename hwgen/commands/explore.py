"""The command explore."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hwgen.commands.terminal import Force, Json, app, bar, note, result_of
from hwgen.errors import HwgenError


@app.command(epilog="Example: hwgen explore smollm2-135m --node 7 --goal low-power -o runs/smol")
def explore(
    model: Annotated[str, typer.Argument(help="Name of a shipped workload, config.json, model folder, GGUF or Q file")],
    node: Annotated[int | None, typer.Option(help="Process node in nm: 28, 22, 14, 10, 7, 5 or 3; default 7")] = None,
    goal: Annotated[str, typer.Option(help="Weights W_PERF,W_POWER,W_AREA of the score that is maximised, W_PERF "
                                      "ln(tok/s) - W_POWER ln(W) - W_AREA ln(mm2); or high-performance (0.4,0.4,0.2) "
                                      "or low-power (0.2,0.6,0.2)")] = "high-performance",
    weights: Annotated[str | None, typer.Option(help="Format of the layers' matrices: mxint8 or mxfp4; default mxint8, "
                                                "of a Q file its own")] = None,
    head: Annotated[str | None, typer.Option(help="Format of embedding and head, likewise")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="RUN", help="Folder to make; after a kill "
                                                "the same command goes on from the nodes that are finished")] = None,
    nodes: Annotated[str | None, typer.Option(help="Nodes to compare, comma-separated, in place of --node; RUN gets "
                                              "the design of the one with the least USD per million tokens")] = None,
    context: Annotated[int | None, typer.Option(help="Positions to build for; default the model's up to 2048")] = None,
    power_max: Annotated[float | None, typer.Option(help="Budget in W")] = None,
    area_max: Annotated[float | None, typer.Option(help="Budget in mm2")] = None,
    latency_max: Annotated[float | None, typer.Option(help="Budget in s from a token to the stream's next")] = None,
    clock_max: Annotated[float | None, typer.Option(help="MHz that the system allows; default what the node does")] =
        None,
    side: Annotated[int, typer.Option(min=1, max=64, help="Most tiles along a side of the mesh")] = 64,
    evaluations: Annotated[int, typer.Option(min=64, help="Designs to evaluate for each node")] = 8192,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result")] = 0,
    warm_start: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder that an earlier hwgen explore -o "
                                                     "made: begins with its best designs")] = None,
    agent: Annotated[Path | None, typer.Option(help="Agent trained by explore.train; default the shipped one")] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Find the best design for a model, a node and a goal with the shipped agent."""
    try:
        from explore.command import explore as run
        from explore.goal import INFEASIBLE
        from explore.report import nodes_table
    except ImportError as error:
        raise HwgenError(f"hwgen explore must find the package {error.name}: pip install 'hwgen[explore]'") from None

    if node is not None and nodes is not None:
        raise HwgenError("At most one of --node and --nodes must be given")
    with bar("reading the model") as (update, stop):
        def on_progress(what, n, of, best):
            found = f"best score {best:.4f}" if best > INFEASIBLE else "none feasible yet"
            update(description=f"{what}: {n:,} of {of:,} designs, {found}", completed=n, total=of)

        def on_table(rows):
            if not json_:
                stop()
                _print_table(*nodes_table(rows))
                for row in rows:
                    if not row["feasible"]:
                        print(f"{row['node']} nm: {'; '.join(row['reasons'])}")

        summary, failure = result_of(lambda: run(
            model, nm=7 if node is None else node, goal=goal, weights=weights, head=head, nodes=nodes, context=context,
            power_max=power_max, area_max=area_max, latency_max=latency_max, clock_max=clock_max, side=side,
            evaluations=evaluations, seed=seed, output=output, force=force, warm_start=warm_start, agent=agent,
            on_progress=on_progress, on_table=on_table, on_note=note))
    if json_:
        print(json.dumps(summary))
    else:
        _print_summary(summary)
    if failure:
        raise failure


def _print_summary(summary: dict):
    """The best design in a few lines."""
    from explore.amounts import amount, plain

    if summary["choice"]:
        print(summary["choice"])
    design, streams = summary["design"], summary["design"]["streams"]
    each = f" ({streams} streams of {plain(summary['tok_s_stream'])})" if streams > 1 else ""
    stages = f" in {design['pipeline_stages']} pipeline stages" if design["pipeline_stages"] > 1 else ""
    watts, area = amount(summary["power"], "W"), amount(summary["area"], "mm2")
    print(f"{summary['workload']} on {summary['node']} nm: {plain(summary['tok_s'])} tokens/s{each}{stages}, {watts}, "
          f"{area}, score {summary['score']:.4f} ({summary['evaluations']:,} evaluations; the agent's first proposal "
          f"{summary['proposed_score']:.4f})")
    least, held = summary["floor_area"], "weights and vision tower" if summary["area_parts"]["vision"] else "weights"
    print(f"No design gets below {amount(summary['floor_power'], 'W')} at this speed,",
          f"{amount(least['weights'], 'mm2')} of {held} and {amount(least['cache'], 'mm2')} of cache a sequence;",
          f"its multipliers allow {plain(summary['peak_tok_s'])} tokens/s")


def _print_table(header: list[str], rows: list[list[str]]):
    """Columns as wide as their longest cell, whatever the terminal: a number is never cut."""
    names = [["", *name.split("\n")][-2:] for name in header]
    lines = [*zip(*names, strict=True), *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        print(" ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
