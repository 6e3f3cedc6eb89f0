"""Simulating a chip folder: a toy chip with the real host port, in both simulators."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from toy_chip import CONTEXT, VOCAB, tokens, write_toy

from hwgen.errors import HwgenError
from hwgen.isa import ENDS
from hwgen.simulate import simulate
from hwgen.testbench import testbench_files as bench_files
from sim_tb.workplace import cache_folder

ROOT = Path(__file__).parent.parent
PROMPT = [1, 2, 3]
ODD = "-a b#c;d:e$f'g\"h%i \u00e9*j\nk\\l&m|n(o)"
"""A folder's name with all that make, shells, compilers and loaders take for their own."""
EXPORTED = {
    "COCOTB_TEST_FILTER": "nothing", "COCOTB_TESTCASE": "nothing", "COCOTB_TEST_MODULES": "none",
    "COCOTB_RANDOM_SEED": "nonsense", "COCOTB_LOG_LEVEL": "LOUD", "COCOTB_RESULTS_FILE": "/nowhere/results.xml",
    "COCOTB_MAX_FAILURES": "-", "COCOTB_LIST_TESTS": "1", "COCOTB_PDB_ON_EXCEPTION": "1", "COCOTB_ATTACH": "600",
    "COCOTB_TOPLEVEL": "none", "COCOTB_RESOLVE_X": "nonsense", "COCOTB_USER_COVERAGE": "1",
    "GPI_USERS": "/nowhere/lib.so", "GPI_EXTRA": "/nowhere/lib.so:entry", "GPI_LOG_LEVEL": "LOUD", "GPI_DEBUG": "1",
    "PYGPI_USERS": "none:none", "PYGPI_PYTHON_BIN": "/nowhere/python", "LIBPYTHON_LOC": "/nowhere/libpython.so",
    "PYTHONWARNINGS": "error", "PYTHONPATH": "relative:/nowhere", "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2",
    "MAKEFLAGS": "-n", "MAKEFILES": "/nowhere/makefile", "VERILATOR_ROOT": "/nowhere", "VPATH": "/nowhere",
    "CXX": "false", "CXXFLAGS": "-no-such-flag", "CPPFLAGS": "-no-such-flag", "LDFLAGS": "-no-such-flag",
    "OBJCACHE": "false", "LANG": "de_DE.UTF-8", "IVERILOG_VPI_MODULE_PATH": "/nowhere",
}
"""Variables of users that once meant something to one of the tools."""


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory):
    """All of this in folders with odd names, in an environment of somebody who has seen a lot."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("machine")
        cache = cache_folder().parent
        cache.mkdir(parents=True, exist_ok=True)
        (folder / f"cache {ODD}").symlink_to(cache)
        (folder / f"tmp {ODD}").mkdir()
        patch.setenv("XDG_CACHE_HOME", str(folder / f"cache {ODD}"))
        patch.setenv("TMPDIR", str(folder / f"tmp {ODD}"))
        patch.setattr(tempfile, "tempdir", None)
        for name, value in EXPORTED.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("chip") / ODD)


@pytest.fixture(params=["verilator", "icarus"])
def sim(request):
    return request.param


def started(code, *arguments, **variables):
    """A process of Python, told what to do."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)])


def changed(toy, tmp_path, path, old, new):
    """An uncompiled copy of the toy with a piece of a file replaced."""
    build = tmp_path / ODD
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
    assert not (build / "sim").exists()


def test_chip_that_is_not_what_the_manifest_says(toy, tmp_path):
    build = changed(toy, tmp_path, "manifest.json", '"context": 64', '"context": 63')
    with pytest.raises(HwgenError, match="Register CONTEXT must be 63, as in the manifest, not 64"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1)


def test_missing_rom_image_is_an_error_of_the_chip_too(toy, tmp_path):
    listed = '[{"file": "rom/toy.hex", "words": 32, "digits": 8}]'
    build = changed(toy, tmp_path, "manifest.json", listed, "[]")
    (build / "rom" / "toy.hex").unlink()
    with pytest.raises(HwgenError, match="ROM image rom/toy.hex cannot be read"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1)


def test_chip_that_never_answers(tmp_path):
    build = write_toy(tmp_path / "toy", delay=10_000_000)
    with pytest.raises(HwgenError, match="The chip must answer within 1000 cycles, but its status is .*busy"):
        simulate(build, sim="icarus", prompt_ids=[1], max_tokens=1, patience=1000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_compilation_leaves_nothing(toy, tmp_path, number):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "// new\nmodule chip")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"prompt_ids": [1], "max_tokens": 1}))
    work = tmp_path / "work"
    work.mkdir()
    # workers of the test runner and background jobs of a shell ignore interrupts, and children would inherit that
    process = started("from sim_tb.run import main; sys.exit(main(['--sim', 'verilator', '--build', *sys.argv[1:]]))",
                      build, request, TMPDIR=work)
    while not list(work.glob("*/Vtop.mk")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate()[1] == ""
    assert process.returncode == 130
    assert list(work.iterdir()) == [] and not (build / "sim").exists()


def test_emitted_testbench_runs_alone(toy, tmp_path):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    request = {"prompt_ids": PROMPT, "max_tokens": 3, "expected": tokens(PROMPT, 3)}
    for path, text in bench_files(request).items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_text(text)
    command = ["make", "-C", str(build / "tb"), "SIM=icarus", f"PYTHON={sys.executable}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHONPATH"))}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and "20 10 25" in run.stdout, run.stderr
    wrong = request | {"expected": [1, 2, 3]}
    Path(build, "tb", "request.json").write_text(json.dumps(wrong))
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode and "Tokens must be [1, 2, 3], not [20, 10, 25]" in run.stderr
