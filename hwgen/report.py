"""report.html of a BUILD folder: one file, no network, with whatever results the folder holds so far."""

from pathlib import Path

from hwgen.bound import MatrixBound
from hwgen.build_folder import read_manifest, read_result, write_result
from hwgen.compiler.words import rom_word_bytes, word_bytes
from hwgen.errors import HwgenError, NotKept
from hwgen.figures import tile_lanes, token_bars
from hwgen.isa import WIDTH
from hwgen.model_config import ModelConfig
from hwgen.template_files import environment
from hwgen.whole_files import write_text

DETAILED = 64
"""Tiles that are shown one by one; larger meshes are shown as a map and as means of their classes."""
_UNITS = {
    "matrix": (("multiplying", "mac", "mac_busy"), ("waits for another unit", "token", "matrix_waits_token"),
               ("waits for a message", "message", "matrix_waits_message")),
    "vector": (("busy", "vector", "vector_busy"), ("waits for a message", "message", "vector_waits_message")),
    "send": (("waits for the network", "network", "send_waits_network"),),
    "issue": (("queue full", "blocked", "issue_blocked"),),
}


def write_report(build: Path) -> Path:
    """Write report.html from manifest.json and, where present, the simulators' results and synth.json; return its path.

    A run in Verilator is shown rather than one in Icarus, which is mostly a short check.
    """
    build = Path(build)
    path = build / "report.html"
    simulation = read_result(build, "sim-verilator.json") or read_result(build, "sim-icarus.json")
    write_text(path, report_html(read_manifest(build), simulation, read_result(build, "synth.json")))
    return path


def keep_result(build: Path, name: str, result: dict, answer: object) -> None:
    """Write a result, one of `hwgen.build_folder.RESULTS`, and the report with it.

    Raises NotKept with `answer`, what a command prints, whatever it is that goes wrong.
    """
    try:
        write_result(build, name, result)
        write_report(build)
    except HwgenError as error:
        raise NotKept(error, answer) from None
    except Exception as error:
        raise NotKept(f"{name} and report.html must be written to {str(build)!r}, but: {type(error).__name__}: {error}",
                      answer) from error


def report_html(manifest: dict, sim: dict | None = None, synth: dict | None = None) -> str:
    """The page. Same input, same bytes: it holds no time and no path."""
    tiles = _tiles(manifest)
    run = _run(manifest, sim) if sim and sim["cycles_per_token"] else None
    return environment().get_template("report.html.j2").render(
        chip=manifest, model=manifest["model"], parameters=ModelConfig.from_dict(manifest["model"]).parameters(),
        classes=_classes(manifest, tiles), tiles=tiles, totals=_totals(manifest, tiles), detailed=DETAILED,
        metrics=_metrics(tiles, run), run=run, synth=_synthesis(synth))


def _tiles(manifest) -> list[dict]:
    """Every node with its class, its memories in KiB (used, provided) and its share of the weights."""
    classes = {c["name"]: c | {"index": i} for i, c in enumerate(manifest["classes"])}
    tiles = []
    for tile in manifest["tiles"]:
        cls = classes[tile["class"]]
        word, rom_word = word_bytes(cls["vlen"]), rom_word_bytes(cls["vlen"], manifest["weights"])
        data = tile["vmem_words"] * 4 + (tile["kv_words"] + tile["xmem_words"]) * word
        memories = {
            "wmem": (tile["rom_words"] * rom_word / 1024, tile["rom_depth"] * rom_word / 1024),
            "dmem": (data / 1024, cls["dmem_kib"]),
            "imem": (tile["instructions"] * WIDTH / 8192, cls["imem_kib"]),
        }
        tiles.append(tile | {"cls": cls, "memories": memories})
    weights = sum(tile["memories"]["wmem"][0] for tile in tiles)
    return [tile | {"share": tile["memories"]["wmem"][0] / weights} for tile in tiles]


def _classes(manifest, tiles) -> list[dict]:
    found = []
    for cls in manifest["classes"]:
        own = [tile for tile in tiles if tile["class"] == cls["name"]]
        found.append(cls | {"tiles": len(own), "share": sum(tile["share"] for tile in own),
                            "gmacs": cls["vlen"] * len(own) * manifest["clock_mhz"] / 1000})
    return found


def _totals(manifest, tiles) -> dict:
    macs = sum(tile["cls"]["vlen"] for tile in tiles)
    used = {name: sum(tile["memories"][name][0] for tile in tiles) for name in ("wmem", "dmem", "imem")}
    provided = {name: sum(tile["memories"][name][1] for tile in tiles) for name in ("wmem", "dmem", "imem")}
    return {"macs": macs, "gmacs": macs * manifest["clock_mhz"] / 1000, "used": used, "provided": provided}


def _metrics(tiles, run) -> list[dict]:
    """Quantities the mesh map can show: {key, label, unit, digits, values in the order of the tiles}."""
    def metric(key, label, unit, digits, values):
        digits = digits if max(values) >= 1 else 3
        return {"key": key, "label": label, "unit": unit, "digits": digits, "values": [round(v, 4) for v in values]}

    metrics = [metric("share", "Share of weights", "%", 1, [100 * tile["share"] for tile in tiles])]
    for name, label in (("wmem", "Weight ROM"), ("dmem", "Data memory"), ("imem", "Program")):
        metrics.append(metric(name, label, "KiB", 1, [tile["memories"][name][0] for tile in tiles]))
    if run and len(run["tiles"]) == len(tiles):
        measured = {(tile["x"], tile["y"]): tile for tile in run["tiles"]}
        own = [measured[tile["x"], tile["y"]] for tile in tiles]
        for key, label in (("mac_busy", "Multiplying"), ("matrix_waits_token", "Waits for a unit"),
                           ("matrix_waits_message", "Waits for messages"), ("vector_busy", "Vector unit busy"),
                           ("send_waits_network", "Waits for the network")):
            metrics.append(metric(key, label, "%", 1, [100 * tile[key] / max(1, tile["running"]) for tile in own]))
    return metrics


def _run(manifest, sim) -> dict:
    """The last simulation: speed, distance from the bound, where the cycles went."""
    cycles, (prompts, tokens) = sim["cycles_per_token"], _lengths(sim)
    bounds = MatrixBound(manifest).run(prompts, tokens)
    steady, several = cycles[1:] or cycles, len(prompts) > 1
    first = min(prompt for prompt in prompts if prompt)
    labels = [f"step {i + 1}" if several else f"token {i + 1}, position {first - 1 + i}" for i in range(len(cycles))]
    late = sum(tokens) - prompts.count(first)  # tokens behind the first step with output
    tiles = sorted(sim["tiles"], key=lambda tile: (tile["y"], tile["x"]))
    mean = sum(steady) / len(steady)
    return {
        "sim": sim["sim"], "texts": _texts(sim),
        "tokens": sum(tokens), "prompt": first, "streams": sum(map(bool, prompts)), "steps": len(cycles),
        "unit": "step" if several else "token", "cycles": sim["cycles"],
        "overflow": bool(sim["overflow"]), "fault": bool(sim["fault"]), "first": cycles[0], "mean": mean,
        "bound": sum(bounds[1:] or bounds) / len(steady), "utilisation": sum(bounds[1:] or bounds) / sum(steady),
        "tokens_per_second": manifest["clock_mhz"] * 1e6 * (late or sum(tokens)) / sum(steady),
        "chart": token_bars(cycles, bounds, labels),
        "tiles": tiles, "units": _occupancy(manifest, tiles),
        "timeline": tile_lanes(sim["timeline"], DETAILED) if sim.get("timeline") else None,
    }


def _texts(sim) -> list[str]:
    """Of the streams that have any."""
    text = sim.get("text") or []
    return [text] if isinstance(text, str) else [part for part in text if part]


def _lengths(sim) -> tuple[list[int], list[int]]:
    """Lengths of the prompt and of the output of each stream."""
    if all(isinstance(prompt, list) for prompt in sim["prompt_ids"]):
        prompts = [len(prompt) for prompt in sim["prompt_ids"]]
        return prompts + [0] * (len(sim["tokens"]) - len(prompts)), [len(tokens) for tokens in sim["tokens"]]
    return [len(sim["prompt_ids"])], [len(sim["tokens"])]


def _occupancy(manifest, tiles) -> list[dict]:
    """Bars of every tile, or of the mean tile of every class on a large mesh."""
    rows = [(f"{tile['x']},{tile['y']}", tile) for tile in tiles]
    if len(tiles) > DETAILED:
        kind = {(tile["x"], tile["y"]): tile["class"] for tile in manifest["tiles"]}
        rows = []
        for cls in manifest["classes"]:
            own = [tile for tile in tiles if kind[tile["x"], tile["y"]] == cls["name"]]
            if own:
                rows.append((f"mean of {cls['name']}", {key: sum(t[key] for t in own) / len(own)
                                                       for key in manifest["counters"]}))
    return [{"name": name, "bars": [_bar(unit, tile) for unit in _UNITS]} for name, tile in rows]


def _bar(unit, tile) -> dict:
    whole = max(1, tile["running"], sum(tile[key] for _, _, key in _UNITS[unit]))
    return {"unit": unit, "parts": [{"label": label, "css": css, "percent": 100 * tile[key] / whole}
                                    for label, css, key in _UNITS[unit]]}


def _synthesis(synth) -> dict | None:
    """Modules with their share of the chip's logic: cells, or area where it is known."""
    if not synth:
        return None
    key = "area" if synth["liberty"] else "cells"
    modules = [m | {"whole": m["instances"] * (m[key] or 0)} for m in synth["modules"]]
    whole = sum(m["whole"] for m in modules) or 1
    chip = modules[-1]
    shown = modules if chip["kind"] == "logic" else modules[:-1]
    return {"liberty": synth["liberty"], "chip": chip,
            "modules": [m | {"percent": 100 * m["whole"] / whole} for m in shown]}
