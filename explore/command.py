"""`hwgen explore`: what the command line does, behind its flags."""

import hashlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import torch

from explore.action import Codec
from explore.amounts import plain
from explore.ask_tell import AskTell
from explore.baselines.heuristic import largest_fastest
from explore.design_file import design_yaml
from explore.designer import SHIPPED, Designer
from explore.floors import floors
from explore.formats import format_note
from explore.goal import INFEASIBLE
from explore.kept import Kept
from explore.limits import sentences
from explore.node import node_sizes
from explore.paper_design import PAPER_ROWS, compare
from explore.plots import front_svg
from explore.problem import Problem
from explore.report import evaluations_jsonl, figures_of, front_csv, report_html
from explore.scenario import GOALS, Scenario
from explore.search import PROBES, Search, refusal, search, search_on
from explore.space import Space
from explore.workload import WIDE, Workload, read_workload
from hwgen.design import CLOCK_MHZ
from hwgen.emit.write import check_output, restore, write_folder
from hwgen.errors import HwgenError, NotKept, shown
from hwgen.formats import RUN
from hwgen.integer_graph import check_fixed_context
from hwgen.interrupts import say_when_interrupted

DEFAULT_CONTEXT = 2048
SCORE_DIGITS = 6
WARM = 48
"""Designs of an earlier RUN that a warm start begins with."""


def parse_goal(text: str) -> tuple[float, float, float]:
    """Weights of a preset's name or of "W_PERF,W_POWER,W_AREA". Raises HwgenError for any other text."""
    if text in GOALS:
        return GOALS[text]
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if len(weights) != 3:
        raise HwgenError(f"Goal must be {', '.join(GOALS)} or W_PERF,W_POWER,W_AREA, not {shown(text)}")
    if min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-6:
        raise HwgenError(f"Goal must be three weights from 0 that sum to 1, not {shown(text)}")
    return weights


def parse_nodes(text: str) -> list[int]:
    """Nodes of "28,22,...". Raises HwgenError for what is no list of nodes."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or any(nm not in node_sizes() for nm in sizes):
        raise HwgenError(f"Nodes must be of {', '.join(map(str, node_sizes()))} nm, not {shown(text)}")
    return list(dict.fromkeys(sizes))


def explore(model: str, *, nm: int, goal: str, weights: str | None = None, head: str | None = None,
            nodes: str | None = None, context: int | None = None,
            power_max: float | None = None, area_max: float | None = None, latency_max: float | None = None,
            clock_max: float | None = None, side: int = 64, evaluations: int = 8192, seed: int = 0,
            output: Path | None = None, force: bool = False, warm_start: Path | None = None,
            agent: Path | None = None, on_progress: Callable[[str, int, int, float], None] | None = None,
            on_table: Callable[[list[dict]], None] | None = None,
            on_note: Callable[[str], None] | None = None) -> dict:
    """Searches and writes RUN; returns its summary. `weights` and `head` are formats, as `read_workload` takes them.

    With `nodes`, in place of `nm`, every one is searched with the same settings, and RUN holds the design of the one
    with the least cost per token, and the evaluations of all; `on_table` gets a row for each. `on_note` gets the
    notes of the model as it was read. After a kill the same
    call takes up the nodes that were finished. Raises HwgenError where nothing is feasible: which limit binds, what the
    nearest design takes and what each budget could be; NotKept where RUN cannot be written.
    """
    torch.set_num_threads(1)
    if output is not None:
        check_output(output, force)
    if clock_max is not None and 0 < clock_max < CLOCK_MHZ[0]:
        raise HwgenError(f"--clock-max must be at least {CLOCK_MHZ[0]} MHz, the slowest clock of a design, "
                         f"not {clock_max:g}")
    workload, objective = read_workload(model, weights=weights, head=head), parse_goal(goal)
    for note in workload.notes if on_note else ():
        on_note(note)
    sizes = [nm] if nodes is None else parse_nodes(nodes)
    if workload.context is not None:
        check_fixed_context(workload.context, context, model)
    else:
        weights, head = weights or WIDE, head or WIDE
    if context is None:
        context = workload.context or min(DEFAULT_CONTEXT, workload.max_context)
    most = {name: None if value is None else float(value) for name, value in (
        ("power_max", power_max), ("area_max", area_max), ("latency_max", latency_max), ("clock_max", clock_max))}
    prompt = max(1, min(32, context - workload.image_tokens))
    scenarios = [Scenario(workload, size, context=context, prompt=prompt, weights=objective, **most) for size in sizes]
    designer, codec, space = _designer(agent, side)
    start = {} if warm_start is None else {nm: _designs_of(warm_start, codec, nm) for nm in sizes}
    kept = Kept(output, {"evaluations": evaluations, "seed": seed, "side": side, "agent": _digest(designer, agent),
                         "start": [start[nm].tolist() for nm in sorted(start)]})
    query = {"model": _name(model), "node": nm if nodes is None else None, "nodes": None if nodes is None else sizes,
             "goal": goal if goal in GOALS else list(objective), "weights": weights, "head": head, "context": context,
             **most, "side": side, "evaluations": evaluations, "seed": seed,
             "warm_start": warm_start and _name(warm_start), "agent": agent and _name(agent)}
    begun = time.process_time()
    problems = [Problem(scenario, codec) for scenario in scenarios]
    results = _search_all(problems, designer, evaluations, seed, kept, start, on_progress)
    seconds = time.process_time() - begun
    table = [scaling_row(r) for r in results] if len(results) > 1 else []
    if table and on_table:
        on_table(table)
    feasible = [r for r in results if r.feasible]
    if not feasible:
        kept.clear()
        why = refusal(_nearest(results))
        raise HwgenError(f"None of the {len(results)} nodes has a design that fits: {why}" if table else why)
    best = min(feasible, key=lambda r: float(r.figures(r.best).cost_per_mtok[0]))
    choice = _choice(best, feasible) if table else ""
    summary = {"query": query} | _summary(best, designer, seed) | {
        "choice": choice, "scaling": table, "paper": paper_rows(workload)}
    answer = summary | {"output": None if output is None else str(output), "cpu_seconds": round(seconds, 2)}
    if output is not None:
        try:
            write_folder(output, _files(best, results, summary), force=force)
        except (HwgenError, OSError) as error:
            raise NotKept(error, answer | {"output": None}) from None
        kept.clear()
    return answer


def _search_all(problems: list[Problem], designer: Designer | None, evaluations: int, seed: int, kept: Kept,
                start: dict, on_progress) -> list[Search]:
    """A search of every node, taken up where one is kept; where none finds a design, the nearest is searched on."""
    results = []

    def progress_of(name, of):
        return on_progress and (lambda n, best: on_progress(name, n, of, best))

    for problem in problems:
        scenario, found = problem.scenario, kept.load(problem)
        if found is None:
            found = search(problem, designer, evaluations, seed=seed, start=start.get(scenario.nm),
                           on_progress=progress_of(f"{scenario.workload.name}, {scenario.nm} nm", evaluations))
            kept.save(found)
        results.append(found)
        if kept.folder is not None:
            say_when_interrupted("the same command goes on from the nodes that are finished")
    if not any(r.feasible for r in results):
        nearest = _nearest(results)
        more = search_on(nearest, designer, seed, on_progress=progress_of("what is possible", PROBES))
        results = [more if r is nearest else r for r in results]
    return results


def _nearest(results: list[Search]) -> Search:
    """The search whose best design is nearest to what was asked."""
    return max(results, key=lambda r: float(r.scores.max()))


def _files(best: Search, results: list[Search], summary: dict) -> dict[str, str]:
    """Name -> contents of what RUN holds."""
    query = summary["query"]
    agent = "none" if not summary["agent"] else "given" if query["agent"] else "shipped"
    facts = {"evaluations": f"{len(best.scores):,}", "agent": agent,
             "first proposal of the agent": _score(best.proposed), "best": _score(float(best.scores.max())),
             "largest mesh at the highest clock": _score(summary["heuristic_score"]), "seed": query["seed"]}
    return {
        "design.yaml": design_yaml(best.design(best.best), _comments(best)), "pareto.csv": front_csv(best),
        "pareto.svg": front_svg(best), "evaluations.jsonl": evaluations_jsonl(results),
        "report.html": report_html(best, facts, summary["paper"], summary["scaling"], choice=summary["choice"],
                                   command=command_line(query)),
        "summary.json": json.dumps(summary, indent=1) + "\n"}


def command_line(query: dict) -> str:
    """The line that makes RUN, defaults included; `query` as summary.json has it."""
    def text(value):
        return ",".join(map(text, value)) if isinstance(value, list) else str(value).removesuffix(".0")

    flags = [f"--{name.replace('_', '-')} {shlex.quote(text(value))}" for name, value in query.items()
             if name != "model" and value is not None]
    return " ".join(["hwgen explore", shlex.quote(query["model"]), *flags, "-o RUN"])


def _name(path: str | Path) -> str:
    """A path as it was given, of an absolute one the last part: a RUN holds nothing of the machine."""
    return Path(path).name if Path(path).is_absolute() else str(path)


def _choice(best: Search, feasible: list[Search]) -> str:
    """Why `best` of several nodes, and which has the best score if that is another."""
    scored = max(feasible, key=lambda r: float(r.scores.max()))
    nm, other = best.problem.scenario.nm, scored.problem.scenario.nm
    return (f"chosen: {nm} nm, the least USD per million tokens"
            + ("" if nm == other else f"; the best score is that of {other} nm"))


def _designer(agent: Path | None, side: int) -> tuple[Designer | None, Codec, Space]:
    space = Space(side=side)
    path = agent or SHIPPED
    if agent is None and not path.exists():
        return None, Codec(space), space
    designer = Designer.load(path, space)
    return designer, designer.codec, space


def _digest(designer: Designer | None, agent: Path | None) -> str | None:
    return None if designer is None else hashlib.sha256(Path(agent or SHIPPED).read_bytes()).hexdigest()


def _score(value: float) -> str:
    return f"{value:.4f}" if value > INFEASIBLE else "infeasible"


def _summary(best: Search, designer, seed: int) -> dict:
    problem = best.problem
    scenario, design = problem.scenario, best.design(best.best)
    rule = AskTell(problem, evaluations=1000)
    largest_fastest(rule, seed)
    floor = floors(scenario)
    return {
        "workload": scenario.workload.name, "parameters": scenario.workload.parameters, "node": scenario.nm,
        "context": scenario.context, "objective": scenario.weights, "mxfp4": sorted(scenario.workload.mxfp4),
        "score": round(float(best.scores.max()), SCORE_DIGITS),
        "proposed_score": round(best.proposed, SCORE_DIGITS), "heuristic_score": round(rule.best, SCORE_DIGITS),
        "evaluations": len(best.scores), "front": len(best.front), "agent": designer is not None,
        "design": {"width": design.width, "height": design.height, "clock_mhz": design.clock_mhz,
                   "streams": design.streams, "pipeline_stages": design.pipeline_stages,
                   "classes": len(design.classes)},
        "floor_area": {"weights": floor.weight_mm2, "cache": floor.kv_mm2}, **figures_of(best.figures(best.best))}


def _comments(best: Search) -> tuple[str, ...]:
    figures, scenario = figures_of(best.figures(best.best)), best.problem.scenario
    return (f"{scenario.workload.name} on {scenario.nm} nm, context {scenario.context}, as hwgen explore estimates it:",
            f"{figures['tok_s']:.5g} tokens/s of all streams, {figures['tok_s_stream']:.5g} of one, "
            f"{figures['power']:.4g} W, {figures['area']:.4g} mm2, "
            f"{figures['energy_per_token'] * 1e3:.4g} mJ a token", format_note(scenario.workload.mxfp4))


def scaling_row(result: Search) -> dict:
    """A node's figures, named as in a summary; where none is feasible those of the nearest design, and the reasons."""
    scenario, evaluation, design = result.problem.scenario, result.figures(result.best), result.design(result.best)
    figures, fits = figures_of(evaluation), result.feasible
    return {
        "node": scenario.nm, "width": design.width, "height": design.height, "streams": design.streams,
        "pipeline_stages": design.pipeline_stages, "clock_mhz": design.clock_mhz,
        **{name: figures[name] for name in
           ("tok_s", "tok_s_stream", "power", "area", "energy_per_token", "cost_per_mtok")},
        "score": round(float(result.scores.max()), SCORE_DIGITS) if fits else None, "feasible": fits,
        "reasons": [] if fits else sentences(int(evaluation.reasons[0]), scenario)}


def paper_rows(workload: Workload) -> list[dict]:
    """The paper's table by both conventions, for the model it is about."""
    if workload.name != "llama-3.1-8b":
        return []
    rows = []
    for row in PAPER_ROWS:
        both = compare(row, workload)
        ours = figures_of(both.ours)
        rows.append({
            "node": row.nm, "mesh": f"{row.width}x{row.height}", "MHz": row.mhz,
            "theirs: tok/s, W, mm2": f"{row.tok_s:,.0f}, {row.watts:g}, {row.mm2:,.0f}",
            "theirs per sequence without speculation": f"{both.per_sequence:,.0f}",
            "same mesh by ours: tok/s, W, mm2": ", ".join(plain(ours[name]) for name in ("tok_s", "power", "area")),
            "what theirs breaks": "; ".join(both.broken) or "nothing",
            "what ours breaks": "; ".join(ours["reasons"]) or "nothing"})
    return rows


def _designs_of(run: Path, codec: Codec, nm: int) -> torch.Tensor:
    """Actions of the best evaluations of an earlier RUN, of this node where it has them.

    Raises HwgenError for a folder that is none, and for a damaged one.
    """
    path = Path(run) / "evaluations.jsonl"
    rule = f"RUN to start from must be a folder that `hwgen explore` made, not {str(run)!r} of --warm-start"
    try:
        restore(run)
        with open(path, encoding="utf-8") as file:
            first = json.loads(file.readline())
            labels = tuple(first["knobs"])
            RUN.check(first.get("format"), rule)
            rows = [json.loads(line) for line in file]
        if labels != codec.labels():
            raise HwgenError(f"RUN to start from must be of the same space of designs, not {str(run)!r}")
        best = sorted([r for r in rows if r.get("node") == nm] or rows, key=lambda r: -r["score"])[:WARM]
        actions = torch.tensor([[*r["action"], r["score"]] for r in best], dtype=torch.float32)
        if actions.shape != (len(best), codec.shape.size + 1) or not len(best) or not bool(actions.isfinite().all()):
            raise ValueError("actions")
        return codec.shape.snap(actions[:, :-1])
    except OSError as error:
        raise HwgenError(f"{rule}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        raise HwgenError(f"{rule}, whose evaluations.jsonl is damaged") from None
