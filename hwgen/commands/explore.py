"""The command explore."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hwgen.commands.terminal import Force, Head, Json, Weights, app, progress
from hwgen.errors import HwgenError


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
    latency_max: Annotated[float | None, typer.Option(help="Budget in s from a token to the stream's next")] = None,
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
        from explore.goal import INFEASIBLE
    except ImportError as error:
        raise HwgenError(f"hwgen explore must find the package {error.name}: pip install 'hwgen[explore]'") from None

    from rich.progress import Progress

    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("reading the model", total=None)

        def on_progress(what, n, of, best):
            found = f"best {best:.4f}" if best > INFEASIBLE else "none feasible yet"
            bar.update(task, description=f"{what}: {n:,} of {of:,} designs, {found}", completed=n, total=of)

        def on_table(rows):
            if not json_:
                bar.stop()
                Console().print(_table(rows))
                for row in rows:
                    if row["feasible"] != "yes":
                        print(f"{row['node']} nm: {row['feasible']}")

        summary = run(
            model, nm=node, goal=goal, weights=weights, head=head, nodes=nodes, context=context, power_max=power_max,
            area_max=area_max, latency_max=latency_max, clock_max=clock_max, side=side, evaluations=evaluations,
            seed=seed, output=output, force=force, warm_start=warm_start, agent=agent,
            on_progress=on_progress, on_table=on_table)
    if json_:
        print(json.dumps(summary))
        return
    design, streams = summary["design"], summary["design"]["streams"]
    each = f" ({streams} streams of {summary['tok_s_stream']:.5g})" if streams > 1 else ""
    stages = f" in {design['pipeline_stages']} pipeline stages" if design["pipeline_stages"] > 1 else ""
    print("{workload} on {node} nm: {tok_s:.5g} tokens/s{each}{stages}, {power:.4g} W, {area:.4g} mm2, "
          "score {score:.4f} ({evaluations} evaluations; the agent's first proposal {proposed_score:.4f})".format(
              **summary, each=each, stages=stages))
    least = summary["floor_area"]
    print(f"No design gets below {summary['floor_power']:.4g} W at this speed, {least['weights']:.4g} mm2 of weights",
          f"and {least['cache']:.4g} mm2 of cache a sequence;",
          f"its multipliers allow {summary['peak_tok_s']:.5g} tokens/s")


def _table(rows: list[dict]):
    """The nodes side by side, narrow enough for 80 columns."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("node", "mesh", "streams,\nstages", "MHz", "tok/s", "of one", "W", "mm2", "mJ/\ntoken", "USD/\nMtok",
                 "score", "fits"):
        table.add_column(name, justify="right")
    for row in rows:
        *start, streams, stages, mhz, speed, one, watts, area, energy, cost, score, feasible = map(str, row.values())
        table.add_row(*start, f"{streams}, {stages}", mhz, speed, one, watts, area, energy, cost, score,
                      "yes" if feasible == "yes" else "no")
    return table
