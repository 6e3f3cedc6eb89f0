"""The command line as a user meets it: answers as JSON, one sentence and exit status 2 for everything wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/model"
DESIGN = ROOT / "examples/designs/2x2.yaml"


def hwgen(*arguments, timeout=300, **options):
    command = [sys.executable, "-m", "hwgen.cli", *(a if isinstance(a, bytes) else str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, **options)


def refused(*arguments, **options):
    """The sentence on stderr of a command that must fail, with nothing on stdout."""
    done = hwgen(*arguments, **options)
    assert done.returncode == 2, done.stderr
    assert not done.stdout and "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("q") / "story.q"
    done = hwgen("quantize", MODEL, "-o", path, "--tokens", 300, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {"kl", "top1", "ppl_float", "ppl_int"} <= figures.keys() and figures["kl"] < 0.05
    return path


def test_q_is_there_before_anything_is_measured(tmp_path):
    path = tmp_path / "story.q"
    arguments = ["quantize", MODEL, "-o", path, "--context", "32", "--tokens", "1000000"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "hwgen.cli", *arguments], cwd=ROOT, **piped) as process:
        for line in process.stderr:
            if line.startswith("drawing text"):
                break
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate()
    assert process.returncode == 2 and not printed
    assert told.endswith(f"hwgen: interrupted; {path} was written whole before\n")
    answer = json.loads(hwgen("reference", path, "--prompt-ids", "1", "--max-tokens", 2, "--json").stdout)
    assert len(answer["tokens"]) == 2


@pytest.mark.parametrize(("request_", "sentence"), [
    (["--prompt-ids", "1,512"], "Token id must be 0 to 511, not 512"),
    (["--prompt-ids", "1,2,3", "--context", 2], "Prompt must be at most 2 tokens long (the context), not 3"),
    (["--prompt-ids", "1", "--max-tokens", 0], "Maximum of new tokens must be at least 1, not 0"),
])
def test_a_request_is_checked_before_the_model_is_quantised(request_, sentence):
    done = hwgen("reference", MODEL, *request_)
    assert done.returncode == 2 and done.stderr == f"hwgen: {sentence}\n"


def test_measuring_can_be_left_out_and_explained():
    bare = json.loads(hwgen("quantize", MODEL, "--context", 8, "--tokens", 0, "--json").stdout)
    assert bare.keys() == {"output", "signature"}
    done = hwgen("quantize", MODEL, "--context", 8, "--tokens", 0, "--explain", "--json")
    found = json.loads(done.stdout)["explain"]
    assert {"rows", "integers", "emulation", "formats", "tokens"} == found.keys() and found["tokens"] == 1280
    assert {"weights", "operands", "KV cache", "h", "exp2", "rotation"} <= {row["choice"] for row in found["rows"]}
    assert [line.split(":")[0] for line in done.stderr.splitlines()][:4] == [
        "calibrating", "quantising", "drawing text", "measuring the integers"]


def test_model_and_its_q_file_give_the_same_tokens(graph_file):
    request = ["--prompt-ids", "1,20,30", "--max-tokens", 6, "--json"]
    answers = [json.loads(hwgen("reference", m, *request).stdout)["tokens"] for m in (MODEL, graph_file)]
    assert answers[0] == answers[1] and len(answers[0]) == 6


def test_prompt_text_gets_bos_and_text_comes_back():
    answer = json.loads(hwgen("reference", MODEL, "--prompt", "Once upon a time", "--max-tokens", 8, "--json").stdout)
    assert len(answer["tokens"]) == 8 and answer["text"].strip()


@pytest.mark.parametrize(("arguments", "message"), [
    (["reference", "nowhere", "--prompt-ids", "1"], "nowhere"),
    (["reference", MODEL, "--prompt-ids", "1,x"], "Prompt ids must be integers separated by commas, not '1,x'"),
    (["reference", MODEL, "--prompt-ids", "1_0"], "Prompt ids must be integers separated by commas, not '1_0'"),
    (["reference", MODEL, "--prompt", b"ab\xff"], "Text must be UTF-8, not 'ab"),
    (["quantize", MODEL, "--calibration", "/dev/null"], "Calibration text must hold words, not nothing"),
    (["rtl", "router", "-o", "x" * 300], "must be within reach, but: File name too long"),
    (["rtl", "tile", "--set", "dmem_kib=auto", "-o", "out"], "dmem_kib of a component alone must be a number of KiB"),
    (["rtl", "router", "--report"], "--report and --liberty must be given together"),
    (["rtl", "tile", "--report", "--liberty", "cells.lib"], "Component of --report must be router, not 'tile'"),
    (["rtl", "tile", "--set", "wmem_kib=1e6", "-o", "out"], "wmem_kib must give at most 16777216 words"),
    (["rtl", "tile", "--set", "dmem_kib=1e6", "-o", "out"], "dmem_kib must give at most 65536 words"),
    (["rtl", "router", "-o", DESIGN / "sub"], "Output folder must be in a writable folder"),
    (["reference", MODEL, "--prompt-ids", "9999"], "Token id must be 0 to 511, not 9999"),
    (["reference", MODEL, "--prompt-ids", ",".join("1" * 300)], "Prompt must be"),
    (["reference", MODEL], "Exactly one of --prompt and --prompt-ids must be given"),
    (["reference", MODEL, "--prompt-ids", "1", "--context", "9999"], "Context must be 1 to 256"),
    (["reference", MODEL, "--prompt-ids", "1", "--max-tokens", "0"], "at least 1, not 0"),
    (["sim", "nowhere", "--prompt-ids", "1"], "must be a folder that `hwgen generate` made"),
    (["rtl", "routr", "-o", "out"], "router"),
    (["rtl", "router", "--set", "flitbits=64", "-o", "out"], "flit_bits"),
    (["rtl", "router", "--set", "flit_bits=48", "-o", "out"], "must be 32, 64, 128, 256 or 512, not 48"),
    (["generate", MODEL, "nowhere.yaml", "-o", "out"], "must be a readable design file"),
    (["frobnicate"], "No such command"),
    (["quantize", MODEL, "-o", MODEL / "model.safetensors"], "Output must be a new file or one that"),
    (["quantize", MODEL, "-o", MODEL], "Output must be a new file or one that `hwgen quantize` wrote"),
    (["quantize", MODEL, "-o", "nowhere/story.q"], "Output must be in a folder that exists"),
    (["quantize", MODEL, "--seed", "-1"], "--seed"),
    (["quantize", MODEL, "--weights", "int4"], "Format of weights must be mxint8 or mxfp4, not 'int4'"),
    (["quantize", MODEL, "--head", "MXFP4"], "Format of embedding and head must be mxint8 or mxfp4, not 'MXFP4'"),
    (["reference", DESIGN, "--prompt-ids", "1"], "or an undamaged file that `hwgen quantize` wrote"),
], ids=str)
def test_refusals(arguments, message, tmp_path):
    arguments = [tmp_path / "out" if a == "out" else a for a in arguments]
    assert message in refused(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "sentence"), [
    (["generate", MODEL, DESIGN, "--no-images"], "hwgen: Files must fit where they are written, but: File too large"),
    (["quantize", MODEL, "--tokens", 64, "--context", 16], "hwgen: Output must be writable, not "),
    (["explore", MODEL, "--side", 4, "--evaluations", 100], "hwgen: Output folder must be writable, not "),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_no_room_for_files(command, sentence, tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = hwgen(*command, "-o", tmp_path / "out", preexec_fn=limited)
    told = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sentence in told and told.endswith(("File too large", "(os error 27)"))
    assert ("100 evaluations" in done.stdout) == (command[0] == "explore")  # a result that cannot be kept is printed
    assert not [path for path in tmp_path.rglob("*") if path.name != ".out.nodes"]


def test_prompt_needs_a_tokenizer(tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(MODEL, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    assert "--prompt must come with a model that has a tokenizer" in refused("reference", bare, "--prompt", "Once")


def test_design_too_small_says_by_how_much(graph_file, tmp_path):
    design = tmp_path / "small.yaml"
    design.write_text("width: 1\nheight: 1\ntiles:\n  - name: tile\n    wmem_kib: 8\n")
    sentence = refused("generate", graph_file, design, "-o", tmp_path / "out")
    assert "wmem_kib of tile class tile must be at least" in sentence and "KiB too small" in sentence
    assert not (tmp_path / "out").exists()


def test_context_of_a_q_file_is_fixed(graph_file, tmp_path):
    sentence = refused("generate", graph_file, DESIGN, "-o", tmp_path / "out", "--context", 17)
    assert sentence == f"hwgen: Context must be 256, as {graph_file} was quantised for, not 17"
    assert not (tmp_path / "out").exists()


def test_output_folder_needs_force_and_must_be_ours(graph_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    for extra in ([], ["--force"]):
        refused("generate", graph_file, DESIGN, "-o", out, *extra)
        assert [p.name for p in out.iterdir()] == ["precious.txt"]


def test_generate_without_images_needs_only_the_config_and_repeats_itself(tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(MODEL / "config.json", bare)
    made = []
    for name in ("a", "b"):
        done = hwgen("generate", bare, DESIGN, "-o", tmp_path / name, "--no-images", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["tiles"] == 4
        made.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*")
                     if p.is_file()})
    assert made[0] == made[1]
    assert {"manifest.json", "filelist.f", "constraints.sdc", "report.html", "rtl/chip.v"} <= made[0].keys()
    # nothing on stdout, not even the prompt
    assert "--no-images" in refused("sim", tmp_path / "a", "--prompt-ids", 1)


def test_no_command_shows_the_help():
    done = hwgen()
    assert done.returncode == 2 and "Usage: " in done.stdout and not done.stderr


def test_interrupted_generate_leaves_nothing(graph_file, tmp_path):
    command = [sys.executable, "-m", "hwgen.cli", "generate", str(graph_file), str(DESIGN), "-o", str(tmp_path / "out")]
    # workers of the test runner ignore interrupts, and children would inherit that
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    # the command itself loads this library, so from then on it is at work
    maps, patience = Path(f"/proc/{running.pid}/maps"), time.monotonic() + 60
    while "safetensors" not in maps.read_text() and time.monotonic() < patience:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 2 and "interrupted" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["quantize", "reference", "generate", "sim", "synth", "rtl", "noc-bench"])
def test_help_has_an_example_and_json(command):
    text = hwgen(command, "--help").stdout
    assert "Example: hwgen" in text and "--json" in text
