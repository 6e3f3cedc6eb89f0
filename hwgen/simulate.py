"""`hwgen sim`: a generated chip in Verilator or Icarus, driven only through its AXI ports."""

from collections.abc import Iterable
from pathlib import Path

from hwgen.build_folder import read_manifest
from hwgen.errors import HwgenError
from hwgen.model_config import end_ids
from sim_tb.chip_folder import check_images
from sim_tb.errors import SimulatorError
from sim_tb.workplace import scratch_folder

UNITS = ("matrix", "vector", "send")
"""Of a tile's activity, from bit 0."""


def simulate(build: Path, *, sim: str, prompt_ids, max_tokens, eos: int | Iterable[int] | None = None,
             mode: str = "tokens", start_pos=0, quick: bool = False, on_token=None, on_stage=None,
             **disturbance) -> dict:
    """Run the chip in folder `build` and return what it did.

    Keys used of BUILD/manifest.json: top, files (Verilog, relative to BUILD, in order), width, height, streams,
    context, vocab, signature, registers, status_bits, ends. The compiled chip stays in BUILD/sim/SIM.

    Parameters
    ----------
    sim : "verilator" or "icarus".
    prompt_ids : token ids, or a list of them for each stream, of which those without any rest.
    max_tokens, eos, mode, start_pos : the run, as the host port takes it (eos: an id or several, None for none); of
        max_tokens and start_pos one for all or a list.
    quick : compile for a short run: faster to build, several times slower to run (Verilator).
    on_token : called with each token as it leaves the chip, and its stream if there are several prompts.
    on_stage : called with "compile" and "run" when these begin.
    disturbance : further keys of a request, see `sim_tb.bench`.

    Returns tokens (of each stream, if prompt_ids were), cycles (START to done), cycles_per_token (from the previous
    output beat, for the first from START; of several streams for each step that puts something out, to its first
    beat), tiles [{x, y, running, mac_busy, ...}], overflow, fault, err_range, err_busy; in logits mode logits (one row
    for each output); in tokens mode timeline: [{x, y, unit, start, stop}], when units were busy, in cycles since
    reset, from the first step with output to the next output beat (in a run of one step: up to its beat). Raises
    HwgenError.
    """
    manifest = read_manifest(build)
    several = any(isinstance(prompt, (list, tuple)) for prompt in prompt_ids)
    prompts = [list(prompt) for prompt in prompt_ids] if several else [list(prompt_ids)]
    prompts += [[]] * (manifest["streams"] - len(prompts))
    ends = end_ids(eos)
    _check(manifest, prompts, max_tokens, ends, mode, start_pos)
    simulators = _simulators()
    request = {"prompt_ids": prompts if several else prompts[0], "max_tokens": max_tokens, "mode": mode,
               "start_pos": start_pos, "eos": ends}
    request |= disturbance
    logits, result = [], {}

    def report(line):
        if "result" in line:
            result.update(line["result"])
        else:
            if "logits" in line:
                logits.append(line["logits"])
            if on_token:
                on_token(line["token"], *([line["stream"]] if several else []))

    stage = on_stage or (lambda name: None)
    try:
        check_images(build, manifest)
        stage("compile")
        with simulators.compiled_chip(build, sim, quick=quick) as compiled, scratch_folder() as scratch:
            stage("run")
            trace = scratch / "trace.txt"
            simulators.run_bench(build, sim, compiled, request, report, trace=trace,
                                 trace_beat=_first_beats(prompts, max_tokens))
            intervals = _intervals(trace.read_text(encoding="utf-8") if trace.exists() else "")
    except SimulatorError as error:
        raise HwgenError(str(error)) from error
    except BrokenPipeError:  # nobody reads the tokens
        raise
    except OSError as error:
        raise HwgenError(f"Simulation must be able to use its files, but: {error}") from error
    return result | ({"logits": logits} if mode == "logits" else {"timeline": intervals})


def _intervals(trace: str) -> list[dict]:
    """Busy intervals of a trace, whose lines are: cycle, x, y, activity from that cycle on.

    Of a trace that was cut off, by a full disk, what there is.
    """
    intervals, since = [], {}
    for line in trace[:trace.rfind("\n") + 1].splitlines():
        cycle, x, y, activity = map(int, line.split())
        for bit, unit in enumerate(UNITS):
            start = since.pop((x, y, unit), None)
            if activity >> bit & 1:
                since[x, y, unit] = cycle if start is None else start
            elif start is not None:
                intervals.append({"x": x, "y": y, "unit": unit, "start": start, "stop": cycle})
    return intervals


def _by_stream(setting, streams: int) -> list:
    return setting if isinstance(setting, list) else [setting] * streams


def _first_beats(prompts, max_tokens) -> int:
    """Beats of the first step that puts something out, in tokens mode; 0 where no step follows."""
    own = [(len(prompt), most) for prompt, most in zip(prompts, _by_stream(max_tokens, len(prompts)), strict=True)
           if prompt]
    first = min(length for length, _ in own)
    return sum(length == first for length, _ in own) if any(n > 1 or length > first for length, n in own) else 0


def _check(manifest, prompts, max_tokens, ends, mode, start_pos):
    vocab, context, streams = manifest["vocab"], manifest["context"], manifest["streams"]
    if mode not in ("tokens", "logits"):
        raise HwgenError(f"Mode must be tokens or logits, not {mode!r}")
    if len(ends) > (most := manifest["ends"]):
        raise HwgenError(f"Ends of a text must be at most {most}, as many as the chip looks for, not {len(ends)}")
    for token in ends:
        _check_token(token, vocab)
    if len(prompts) > streams:
        raise HwgenError(f"Prompts must be at most {streams}, as many as the chip has streams, not {len(prompts)}")
    for name, setting in (("max_tokens", max_tokens), ("start_pos", start_pos)):
        if isinstance(setting, list) and len(setting) != streams:
            raise HwgenError(f"List of {name} must have a number for each of {streams} streams, not {len(setting)}")
    for prompt, position, most in zip(prompts, _by_stream(start_pos, streams), _by_stream(max_tokens, streams),
                                      strict=True):
        if not prompt and streams > 1:
            continue
        for token in prompt:
            _check_token(token, vocab)
        if not 1 <= len(prompt) <= context - position:
            raise HwgenError(f"Prompt must be 1 to {context - position} tokens long, not {len(prompt)}")
        if most < 1:
            raise HwgenError(f"Number of new tokens must be at least 1, not {most}")
    if not any(prompts):
        raise HwgenError("Prompts must be at least 1, not 0")


def _check_token(token, vocab):
    if not 0 <= token < vocab:
        raise HwgenError(f"Token id must be 0 to {vocab - 1}, not {token}")


def _simulators():
    try:
        from sim_tb import simulators
    except ImportError as error:
        raise HwgenError(f"Simulation must have its packages (pip install 'hwgen[sim]'), but: {error}") from error
    return simulators
