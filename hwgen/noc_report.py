"""What `hwgen noc-bench` shows; its page has load-latency curves, saturation and all-gather times in one file."""

from rich.table import Table

from hwgen.figures import curve_plot
from hwgen.template_files import environment


def noc_report(result: dict) -> str:
    """HTML of what `hwgen.noc_bench.noc_bench` returns. Same input, same bytes."""
    lengths = sorted({curve["flits"] for curve in result["curves"]})
    patterns = list(dict.fromkeys(curve["pattern"] for curve in result["curves"]))
    plots = []
    for length in lengths:
        curves = [curve for curve in result["curves"] if curve["flits"] == length]
        series = [(c["pattern"], patterns.index(c["pattern"]), _accepted_points(c)) for c in curves]
        plots.append({"flits": length, "svg": curve_plot(series, "offered load in flits per node and cycle",
                                                         "mean latency in cycles")})
    saturation = {(c["pattern"], c["flits"]): c["saturation"] for c in result["curves"]}
    rest = {(c["pattern"], c["flits"]): c["points"][0].get("latency") for c in result["curves"]}
    return environment().get_template("noc_report.html.j2").render(
        result=result, design=result["design"], lengths=lengths, patterns=patterns, plots=plots,
        saturation=saturation, rest=rest, gathers=result["all_gather"])


def _accepted_points(curve):
    """(load, latency) of the points that drained and whose latency says something."""
    return [(p["offered"], p["latency"]) for p in curve["points"] if "latency" in p]


def as_tables(result: dict) -> list[Table]:
    """Saturation and all-gather times for the terminal."""
    saturation = Table(title="Saturation in flits per node and cycle")
    for name in ("pattern", "flits", "saturation", "latency", "at load"):
        saturation.add_column(name, justify="left" if name == "pattern" else "right")
    for curve in result["curves"]:
        first = curve["points"][0]
        latency = f"{first['latency']:.1f}" if "latency" in first else "-"
        saturation.add_row(curve["pattern"], str(curve["flits"]), f"{curve['saturation']:.3f}", latency,
                           f"{first['load']:.3f}")
    gather = Table(title="All-gather in cycles")
    for name in ("flits", "bound", "unicast", *(f"multicast by {way['packet_flits']}"
                                                for way in result["all_gather"][0]["multicast"])):
        gather.add_column(name, justify="right")
    for entry in result["all_gather"]:
        cycles = [entry["flits"], entry["bound"], entry["unicast"], *(way["cycles"] for way in entry["multicast"])]
        gather.add_row(*(f"{value:,}" for value in cycles))
    return [saturation, gather]
