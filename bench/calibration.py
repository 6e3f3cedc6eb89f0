"""Predicted against measured: python -m bench.calibration [cycles|streams|area] [--pairs N] [--first SEED]
[--liberty PATH] [-o ROWS].

cycles: random small models on random designs (tests/random_pairs.py), cycles of one token in RTL simulation (Icarus).
streams: the same of a step, with streams and pipeline stages.
area: routers and tile cores of random designs through Yosys, as `hwgen synth` does. No seed of `cycles` from 106 on,
none of `streams` below 106, and no design of `area`, was used to fit a coefficient of the evaluator.
"""

import argparse
import json
import random
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from explore.cycles import cycles
from explore.logic_area import gates
from explore.network_load import packets
from explore.scenario import Scenario
from explore.space import knobs_of
from explore.tile_load import tile_load
from explore.workload import Workload
from hwgen.design import CHIP_RULES, Design, TileClass
from hwgen.generate import generate
from hwgen.integer_graph import shape_only
from hwgen.liberty import read_liberty
from hwgen.model_config import ModelConfig
from hwgen.simulate import simulate
from hwgen.synth import synthesise
from tests.random_pairs import random_shape

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
SHAPE = ModelConfig(vocab=512, hidden=64, layers=2, heads=8, kv_heads=4, head_dim=8, ffn=172, norm_eps=1e-5,
                    max_context=64, tied=True)


def predicted_cycles(config: ModelConfig, design: Design, context: int, position: int) -> float:
    """What the evaluator says of a step with all streams at `position`."""
    scenario = Scenario(Workload("pair", config), 7, context=context, prompt=1)
    knobs = knobs_of(design)
    load = tile_load(knobs, scenario)
    return float(cycles(knobs, load, packets(knobs, load.reach), scenario, position).total)


def measured_cycles(config: ModelConfig, design: Design, position: int) -> int:
    """Cycles from the answer before `position` to the answer after it. Zero weights: time does not depend on them."""
    with tempfile.TemporaryDirectory() as scratch:
        build = Path(scratch, "chip")
        generate(shape_only(config, config.max_context), design, build)
        return simulated_step(build, design.streams, position)


def simulated_step(build: Path, streams: int, position: int) -> int:
    """Cycles of the step of an emitted chip in which every stream is at `position`."""
    run = simulate(build, sim="icarus", prompt_ids=[[1]] * streams, max_tokens=2, start_pos=position - 1)
    return run["cycles_per_token"][1]


def random_turns(seed: int, most: int = max(CHIP_RULES["streams"].values)) -> tuple[ModelConfig, Design]:
    """A small model and a design with up to `most` streams, stages and stations of every depth, one tile class."""
    rng = random.Random(seed)
    layers, (width, height) = rng.choice([2, 3, 4]), rng.choice([(1, 2), (2, 2), (2, 3), (2, 4), (3, 4)])
    config = replace(SHAPE, layers=layers, hidden=rng.choice([32, 64, 96]), ffn=rng.choice([64, 172]),
                     tied=rng.random() < 0.5)
    tile = TileClass("t", rng.choice([1, 2, 4]), rng.randint(1, 8), rng.choice([8, 16, 32]), rng.choice([1, 2, 4, 8]))
    return config, Design(
        width, height, flit_bits=rng.choice([64, 128, 256]), buffer_flits=rng.randint(3, 8),
        streams=rng.choice([s for s in CHIP_RULES["streams"].values if s <= most]),
        pipeline_stages=rng.randint(1, min(layers, height)), classes=(tile,))


def random_tiles(count: int, seed: int = 0) -> list[Design]:
    """Small designs of one tile class."""
    rng = random.Random(seed)
    return [Design(rng.choice([2, 3, 4]), rng.choice([1, 2, 3]), flit_bits=rng.choice([32, 64, 128, 256]),
                   buffer_flits=rng.randint(3, 12), multicast=rng.random() < 0.75,
                   classes=(TileClass("t", rng.choice([1, 2, 4]), rng.randint(1, 8), rng.choice([8, 16, 32, 64]),
                                      rng.choice([1, 2, 4, 8])),)) for _ in range(count)]


def areas(design: Design, liberty: Path) -> dict[str, tuple[float, float]]:
    """Part -> (predicted, measured) gate equivalents."""
    with tempfile.TemporaryDirectory() as scratch:
        build = Path(scratch, "chip")
        generate(shape_only(SHAPE, SHAPE.max_context), design, build, images=False)
        modules = synthesise(build, liberty)
    gate, logic = read_liberty(liberty).gate_area, gates(knobs_of(design))
    routers = sum(m["instances"] * m["all_area"] for m in modules if m["module"].startswith("router"))
    tile = next(m["all_area"] for m in modules if m["module"] == "tile_t")
    return {"router": (float(logic.router), routers / design.tiles / gate), "tile_t": (float(logic.tile), tile / gate)}


def keep(path: Path, name: str, config: ModelConfig, design: Design, position: int, measured: int):
    """Add what was measured to a file in the form of tests/measured."""
    row = {"name": name, "fitted": False, "config": asdict(config), "context": config.max_context,
           "design": asdict(design), "position": position, "cycles": measured}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def report(errors: dict[str, list[float]]):
    for name, values in errors.items():
        sizes = [abs(value) for value in values]
        print(f"{name}: median error {median(sizes):.1%}, largest {max(sizes):.1%} of {len(sizes)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("cycles", "streams", "area"), help="default cycles and area")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--first", type=int, help="first seed; default 106 for cycles, 0 for streams")
    parser.add_argument("--most-streams", type=int, default=8, help="of a design of streams")
    parser.add_argument("--liberty", type=Path, default=OSU018)
    parser.add_argument("-o", "--output", type=Path, help="file to which a JSON line for every chip is added")
    options = parser.parse_args()
    errors: dict[str, list[float]] = {}

    def line(name, what, predicted, measured):
        errors.setdefault(name, []).append(predicted / measured - 1)
        print(f"{name:<8}{what:<34}{predicted:>12,.0f}{measured:>12,.0f}{errors[name][-1]:>9.1%}", flush=True)

    pairs = {"area": (), None: ("cycles",)}.get(options.what, (options.what,))
    streams = options.what == "streams"
    first = options.first if options.first is not None else 0 if streams else 106
    for seed in range(first, first + options.pairs) if pairs else ():
        config, design = random_turns(seed, options.most_streams) if streams else random_shape(seed)
        position = max(1, config.max_context - 2) if seed % 3 else 1
        what = f"pair {seed}, position {position}"
        if streams:
            what = f"{design.streams} streams, {design.pipeline_stages} stages, pair {seed}"
        measured = measured_cycles(config, design, position)
        line(pairs[0], what, predicted_cycles(config, design, config.max_context, position), measured)
        if options.output:
            keep(options.output, f"{pairs[0]}{seed}", config, design, position, measured)
    for design in random_tiles(options.pairs) if options.what in ("area", None) else ():
        c = design.classes[0]
        for name, pair in areas(design, options.liberty).items():
            what = f"v{c.vlen} l{c.lanes} f{c.fetch} s{c.stations} {design.flit_bits} b{design.buffer_flits}"
            line(name, what, *pair)
    report(errors)


if __name__ == "__main__":
    main()
