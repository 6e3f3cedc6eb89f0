"""Commands on parts and the network: rtl, noc-bench."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hwgen.commands.terminal import Force, Json, answer, app, numbers, progress, show, step
from hwgen.errors import HwgenError


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
    values, lines = {}, []
    if report:
        from hwgen.router_report import as_text, router_report

        with step("synthesising"):
            values["report"] = router_report(files, liberty)
        lines.append(as_text(values["report"]))
    failure = None
    if output is not None:
        try:
            write_folder(output, files, force=force)
            values = {"output": str(output), "files": sorted(files), **values}
            lines.append(f"{output}: {', '.join(sorted(files))}")
        except HwgenError as error:
            failure = error
    if lines:
        answer(json_, values, "\n".join(lines))
    if failure:
        raise failure


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
            loads=None if loads is None else numbers("Load", loads, float),
            flits=numbers("Packet length", flits, int),
            cycles=cycles, seed=seed, on_stage=status.update)
    failure = None
    if output is not None:
        try:
            write_noc_bench(output, result, force=force)
        except HwgenError as error:
            failure = error
    if json_:
        print(json.dumps(result))
    else:
        show(*as_tables(result))
    if failure:
        raise failure
