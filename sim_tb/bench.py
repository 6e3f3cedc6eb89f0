"""The bench inside the simulator: plays one request on the chip and reports tokens as they appear.

Environment: BENCH_REQUEST (path of the request, JSON), BENCH_MANIFEST (path of the chip's manifest.json),
BENCH_REPORT_FD (file descriptor that takes one JSON object a line: {"token", "stream", "cycle"} for every output, with
"logits" in logits mode, and at the end {"result": {...}}).

Request: prompt_ids (token ids, or a list of them for each stream, which rests without any), max_tokens (of all streams,
or a list); optional: eos (id, or a list of them), mode ("tokens" or "logits"), start_pos (of all, or a list), next_ids
(logits mode: the host's choices instead of the greedy ones), and to disturb the chip: eager (offer the whole prompt at
once), output_pause ([cycles paused, cycles ready, ...]), reset_after ([cycles, ...]: start, then reset after so many
cycles, before the real run), start_again_after (cycles: write START while the chip is busy), patience (cycles).
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles

from sim_tb.host import HostAgent


@cocotb.test()
async def bench(dut):
    request = json.loads(Path(os.environ["BENCH_REQUEST"]).read_text(encoding="utf-8"))
    manifest = json.loads(Path(os.environ["BENCH_MANIFEST"]).read_text(encoding="utf-8"))
    with os.fdopen(int(os.environ["BENCH_REPORT_FD"]), "w", buffering=1, encoding="utf-8") as reports:
        async for report in play(dut, manifest, request):
            print(json.dumps(report), file=reports)


async def play(dut, manifest, request):
    """Yield the reports of one request."""
    host = HostAgent(dut, manifest, eager=request.get("eager", False), patience=request.get("patience", 5_000_000))
    await host.reset()
    await _check_constants(host, manifest)
    run = {key: request[key] for key in ("max_tokens", "eos", "mode", "start_pos") if key in request}
    several = any(isinstance(prompt, list) for prompt in request["prompt_ids"])
    prompts = request["prompt_ids"] if several else [request["prompt_ids"]]
    run["prompts"] = prompts + [[]] * (manifest.get("streams", 1) - len(prompts))
    for cycles in request.get("reset_after", ()):
        await host.start(**run)
        await ClockCycles(dut.clk, cycles)
        await host.reset()
    if "output_pause" in request:
        host.pause_output(request["output_pause"])
    if "start_again_after" in request:
        cocotb.start_soon(_start_again(dut, host, request["start_again_after"]))
    tokens, cycles, previous, step = [[] for _ in run["prompts"]], [], None, None
    choose = _chooser(request["next_ids"]) if "next_ids" in request else None
    async for stream, token, cycle, logits in host.run(**run, choose=choose):
        tokens[stream].append(token)
        now = len(run["prompts"][stream]) + len(tokens[stream])
        if now != step:
            cycles.append(cycle - (host.started if previous is None else previous))
            previous, step = cycle, now
        yield {"token": token, "stream": stream, "cycle": cycle} | ({} if logits is None else {"logits": logits})
    yield {"result": await _result(host, manifest, tokens if several else tokens[0], cycles)}


async def _result(host, manifest, tokens, cycles):
    status = await host.status()
    total = await host.read("CYCLES")
    tiles = []
    for y in range(manifest["height"]):
        for x in range(manifest["width"]):
            counters = await host.read_counters(x, y)
            tiles.append({"x": x, "y": y} | dict(zip(manifest["counters"], counters, strict=True)))
    flags = {name: name in status for name in ("overflow", "fault", "err_range", "err_busy")}
    return {"tokens": tokens, "cycles": total, "cycles_per_token": cycles, "tiles": tiles} | flags


async def _check_constants(host, manifest):
    mesh = manifest["height"] << 16 | manifest["width"]
    for name, value in (("CONTEXT", manifest["context"]), ("VOCAB", manifest["vocab"]), ("MESH", mesh),
                        ("SIGNATURE", manifest["signature"])):
        found = await host.read(name)
        if found != value:
            raise ValueError(f"Register {name} must be {value}, as in the manifest, not {found}")


async def _start_again(dut, host, cycles):
    await ClockCycles(dut.clk, cycles)
    await host.write("START", 1)


def _chooser(ids):
    remaining = iter(ids)
    return lambda logits: next(remaining)
