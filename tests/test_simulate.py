"""Simulating a chip folder: a toy chip with the real host port, in both simulators."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_chip import CONTEXT, VOCAB, tokens, write_toy

from hwgen.errors import HwgenError
from hwgen.isa import ENDS
from hwgen.simulate import simulate
from hwgen.testbench import testbench_files as bench_files

PROMPT = [1, 2, 3]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("chip") / "toy")


@pytest.fixture(params=["verilator", "icarus"])
def sim(request):
    return request.param


def changed(toy, tmp_path, path, old, new):
    """An uncompiled copy of the toy with a piece of a file replaced."""
    build = tmp_path / "toy"
    shutil.copytree(toy, build, ignore=shutil.ignore_patterns("sim"))
    text = (build / path).read_text()
    assert old in text
    (build / path).write_text(text.replace(old, new))
    return build


def test_tokens_appear_one_by_one(toy, sim):
    seen, stages = [], []
    result = simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=8, on_token=seen.append, on_stage=stages.append)
    assert result["tokens"] == seen == tokens(PROMPT, 8)
    assert stages == ["compile", "run"]
    assert not (result["overflow"] or result["fault"] or result["err_range"] or result["err_busy"])
    assert len(result["cycles_per_token"]) == 8
    assert 0 <= result["cycles"] - sum(result["cycles_per_token"]) <= 6
    # three tokens of 200 cycles before the first answer, one before each of the others
    assert 600 < result["cycles_per_token"][0] < 660 and 200 < result["cycles_per_token"][7] < 220
    assert result["tiles"][0].items() >= {"x": 0, "y": 0, "running": 10, "mac_busy": 11, "issue_blocked": 17}.items()


def test_run_ends_with_context_and_with_eos(toy, sim):
    prompt = list(range(VOCAB)) + [5] * (CONTEXT - VOCAB)
    result = simulate(toy, sim=sim, prompt_ids=prompt, max_tokens=10)
    assert result["tokens"] == tokens(prompt, 1)
    wanted = tokens(PROMPT, 8)
    assert simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=8, eos=wanted[2])["tokens"] == wanted[:3]
    # the last of a full list, whose other ends do not come before it; one is in the prompt
    others = [token for token in range(VOCAB) if token not in wanted[:3]]
    ends = [PROMPT[1], *[token for token in others if token != PROMPT[1]][:ENDS - 2], wanted[2]]
    assert simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=8, eos=ends)["tokens"] == wanted[:3]


def test_logits_and_the_hosts_choice(toy, sim):
    greedy = simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=3, mode="logits")
    assert greedy["tokens"] == tokens(PROMPT, 3)
    assert greedy["logits"] == [[9 if i == best else -i for i in range(VOCAB)] for best in greedy["tokens"]]
    own = simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=2, mode="logits", next_ids=[7, 0])
    assert own["logits"][1].index(9) == tokens([0, 0, 0, 7], 1)[0]


@pytest.mark.parametrize("disturbance", [
    {"output_pause": [900, 3]}, {"output_pause": [1, 1, 7, 2]}, {"eager": True}, {"reset_after": [1, 40, 333, 700]},
], ids=str)
def test_disturbances_change_no_token(toy, sim, disturbance):
    result = simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=6, **disturbance)
    assert result["tokens"] == tokens(PROMPT, 6)
    assert not result["err_busy"]


def test_a_second_start_is_refused_by_the_chip(toy, sim):
    result = simulate(toy, sim=sim, prompt_ids=PROMPT, max_tokens=6, start_again_after=300)
    assert result["tokens"] == tokens(PROMPT, 6)
    assert result["err_busy"]


def test_chip_is_compiled_once_per_source(toy, tmp_path):
    build = changed(toy, tmp_path, "rtl/tile_toy.v", "next + flags", "next + flags")
    simulate(build, sim="icarus", prompt_ids=PROMPT, max_tokens=1)
    compiled, = (build / "sim" / "icarus").iterdir()
    before = compiled.stat().st_mtime_ns
    simulate(build, sim="icarus", prompt_ids=PROMPT, max_tokens=1)
    assert compiled.stat().st_mtime_ns == before
    tile = build / "rtl" / "tile_toy.v"
    tile.write_text(tile.read_text().replace("next + flags[5:0]", "next + 6'd1"))
    assert simulate(build, sim="icarus", prompt_ids=PROMPT, max_tokens=1)["tokens"] == [(3 * 5 + 3 + 1) % VOCAB]
    fresh, = (build / "sim" / "icarus").iterdir()
    assert fresh != compiled


@pytest.mark.parametrize("options, message", [
    ({"prompt_ids": [1, VOCAB]}, f"Token id must be 0 to {VOCAB - 1}, not {VOCAB}"),
    ({"prompt_ids": [1, -1]}, f"Token id must be 0 to {VOCAB - 1}, not -1"),
    ({"prompt_ids": [[1], [2]]}, "Prompts must be at most 1, as many as the chip has streams, not 2"),
    ({"max_tokens": [1, 2]}, "List of max_tokens must have a number for each of 1 streams, not 2"),
    ({"prompt_ids": []}, f"Prompt must be 1 to {CONTEXT} tokens long, not 0"),
    ({"prompt_ids": [1] * 60, "start_pos": 10}, "Prompt must be 1 to 54 tokens long, not 60"),
    ({"max_tokens": 0}, "Number of new tokens must be at least 1, not 0"),
    ({"mode": "text"}, "Mode must be tokens or logits, not 'text'"),
    ({"eos": range(ENDS + 1)}, f"Ends of a text must be at most {ENDS}, as many as the chip looks for, not {ENDS + 1}"),
    ({"eos": [1, VOCAB]}, f"Token id must be 0 to {VOCAB - 1}, not {VOCAB}"),
    ({"sim": "questa"}, "Simulator must be verilator or icarus, not 'questa'"),
])
def test_bad_requests(toy, options, message):
    with pytest.raises(HwgenError) as error:
        simulate(toy, **{"sim": "icarus", "prompt_ids": [1], "max_tokens": 1} | options)
    assert str(error.value) == message


def test_no_such_chip(tmp_path):
    with pytest.raises(HwgenError, match="must be a folder that `hwgen generate` made"):
        simulate(tmp_path, sim="icarus", prompt_ids=[1], max_tokens=1)


@pytest.mark.parametrize("sim, program", [("icarus", "iverilog"), ("verilator", "g++")])
def test_simulator_that_is_not_installed(toy, tmp_path, monkeypatch, sim, program):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HwgenError, match=f"Simulator {sim} must .*{program}"):
        simulate(build, sim=sim, prompt_ids=[1], max_tokens=1)
    assert not (build / "sim").exists()


@pytest.mark.parametrize("sim", ["verilator", "icarus"])
def test_verilog_that_no_simulator_takes(toy, tmp_path, sim):
    build = changed(toy, tmp_path, "rtl/tile_toy.v", "assign in_credit = ", "assign in_credit = = ")
    with pytest.raises(HwgenError, match=f"{sim} must accept the chip, but says: .*tile_toy.v"):
        simulate(build, sim=sim, prompt_ids=[1], max_tokens=1)
    assert not list((build / "sim" / sim).iterdir())


def test_chip_that_is_not_what_the_manifest_says(toy, tmp_path):
    build = changed(toy, tmp_path, "manifest.json", '"context": 64', '"context": 63')
    with pytest.raises(HwgenError, match="Register CONTEXT must be 63, as in the manifest, not 64"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1)


def test_missing_rom_image_is_an_error(toy, tmp_path):
    build = changed(toy, tmp_path, "manifest.json", '"chip"', '"chip"')
    (build / "rom" / "toy.hex").unlink()
    with pytest.raises(HwgenError, match="ROM image rom/toy.hex cannot be read"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1)


def test_chip_that_never_answers(tmp_path):
    build = write_toy(tmp_path / "toy", delay=10_000_000)
    with pytest.raises(HwgenError, match="The chip must answer within 1000 cycles, but its status is .*busy"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1, patience=1000)


def test_interrupted_compilation_leaves_nothing(toy, tmp_path):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "// new\nmodule chip")
    code = ("import sys; from pathlib import Path; from hwgen.simulate import simulate;"
            "simulate(Path(sys.argv[1]), sim='verilator', prompt_ids=[1], max_tokens=1)")
    # workers of the test runner and background jobs of a shell ignore interrupts, and children would inherit that
    process = subprocess.Popen([sys.executable, "-c", code, str(build)], stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    folder = build / "sim" / "verilator"
    while not list(folder.glob("partial_*/Vtop.mk")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    assert list(folder.iterdir()) == []


def test_emitted_testbench_runs_alone(toy, tmp_path):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    request = {"prompt_ids": PROMPT, "max_tokens": 3, "expected": tokens(PROMPT, 3)}
    for path, text in bench_files(request).items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_text(text)
    command = ["make", "-C", str(build / "tb"), "SIM=icarus", f"PYTHON={sys.executable}"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert run.returncode == 0 and "20 10 25" in run.stdout, run.stderr
    wrong = request | {"expected": [1, 2, 3]}
    Path(build, "tb", "request.json").write_text(json.dumps(wrong))
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode and "Tokens must be [1, 2, 3], not [20, 10, 25]" in run.stderr
