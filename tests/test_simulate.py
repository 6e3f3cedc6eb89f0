"""Simulating a chip folder: a toy chip with the real host port, in both simulators."""

import importlib.metadata
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
from random_model import random_model
from small_chip import DESIGN
from toy_chip import CONTEXT, VOCAB, tokens, write_toy

from hwgen.compiler.compile import compile_chip as compile_graph
from hwgen.design import parse_design
from hwgen.emit.chip import ChipSpec
from hwgen.emit.write import write_files
from hwgen.errors import HwgenError, NotKept
from hwgen.formats import BUILD
from hwgen.images import program_image, rom_image
from hwgen.isa import ENDS
from hwgen.manifest import manifest
from hwgen.quantize import quantize
from hwgen.run import run
from hwgen.simulate import _intervals, simulate
from hwgen.testbench import testbench_files as bench_files
from sim_tb.chip_folder import FORMAT, check_images, read_manifest
from sim_tb.errors import SimulatorError
from sim_tb.recipe import complaint
from sim_tb.run import main as bench_main
from sim_tb.simulators import _recipe, compile_chip, run_bench
from sim_tb.verilate import OPTIMISATION, _keep_runtime, _take_runtime
from sim_tb.workplace import cache_folder, keep, scratch_folder

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
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
        (folder / f"venv {ODD}").symlink_to(sys.prefix)
        patch.setattr(sys, "executable", str(folder / f"venv {ODD}" / "bin" / "python"))
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


@pytest.mark.parametrize("contents, found", [
    (None, "unreadable (No such file or directory)"),
    ("folder", "something else"),
    (b"", "0 words"),
    (b"0000000f\n" * (VOCAB - 1), f"{VOCAB - 1} words"),
    (b"0000000f\n" * (VOCAB + 2), f"{VOCAB + 2} words"),
    (b"0000000f\n" * (VOCAB - 1) + b"0000", f"'0000' in line {VOCAB}"),
    (b"0000000f\n" * 3 + b"0000000g\n" + b"0000000f\n" * (VOCAB - 4), "'0000000g' in line 4"),
    (bytes(9 * VOCAB), r"'\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                       r"\x00...' in line 1"),
    (b"0000000f 0000000f\n" * (VOCAB // 2), "'0000000f 0000000f' in line 1"),
    (b"0000000\nf" * VOCAB, "'0000000' in line 1"),
    (b"\n" * 9 * VOCAB, "'' in line 1"),
], ids=["missing", "folder", "empty", "cut", "too long", "cut in a word", "garbage", "zeros", "two a line", "shifted",
        "lines"])
def test_memory_image_that_is_not_whole(toy, tmp_path, contents, found, capsys):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    image = build / "rom" / "toy.hex"
    image.unlink()
    if contents == "folder":
        image.mkdir()
    elif contents is not None:
        image.write_bytes(contents)
    wanted = (f"Image rom/toy.hex must be a file of {VOCAB} words of 8 hexadecimal digits, a line each, as "
              f"manifest.json says, not {found}")
    for sim in ("icarus", "verilator"):
        with pytest.raises(HwgenError) as error:
            simulate(build, sim=sim, prompt_ids=[1], max_tokens=1)
        assert str(error.value) == wanted
        request = tmp_path / "request.json"
        request.write_text(json.dumps({"prompt_ids": [1], "max_tokens": 1}))
        assert bench_main(["--sim", sim, "--build", str(build), str(request)]) == 2
        assert capsys.readouterr() == ("", wanted + "\n")
    assert not (build / "sim").exists()


@pytest.mark.parametrize("text", [b"0000000F\n" * VOCAB, b"0000000f\r\n" * VOCAB, (b"0000000f\n" * VOCAB)[:-1]])
def test_memory_images_that_say_the_same(tmp_path, text):
    (tmp_path / "image").write_bytes(text)
    check_images(tmp_path, {"memory_images": [{"file": "image", "words": VOCAB, "digits": 8}]})


def test_large_memory_images_are_read_in_pieces(tmp_path):
    words = 300_000
    text = bytearray(b"0123456789abcdef0123456789abcdef\n" * words)
    numbers = {"memory_images": [{"file": "image", "words": words, "digits": 32}]}
    (tmp_path / "image").write_bytes(text)
    check_images(tmp_path, numbers)
    text[33 * (words - 1) + 31] = ord("x")
    (tmp_path / "image").write_bytes(text)
    with pytest.raises(SimulatorError, match=f"must .* not '0123456789abcdef01234567...' in line {words}$"):
        check_images(tmp_path, numbers)


@pytest.mark.parametrize("weights", ["mxint8", "mxfp4"])
def test_every_image_of_a_chip_is_in_the_manifest(tmp_path, weights):
    chip = compile_graph(quantize(random_model("odd sizes"), weights=weights), parse_design(DESIGN))
    images = {}
    for tile in range(4):
        images[ChipSpec.program_image(tile % 2, tile // 2)] = program_image(chip, tile)
        images[ChipSpec.rom_image(tile % 2, tile // 2)] = rom_image(chip, tile)
    write_files(tmp_path, images)
    numbers = manifest(chip, [], True)
    assert {image["file"] for image in numbers["memory_images"]} == images.keys()
    check_images(tmp_path, numbers)
    assert manifest(chip, [], False)["memory_images"] == []


def test_benches_read_the_format_that_is_written():
    assert BUILD.mark == FORMAT


@pytest.mark.parametrize("text, message", [
    (None, "No such file or directory"), ("{", "Expecting property name"), ("[]", "it describes no chip"),
    ('{"top": "chip", "files": [], "format": "hwgen-build-0"}', "^Format of .* must be .* not 'hwgen-build-0'")])
def test_manifests_that_benches_refuse(tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SimulatorError, match=message):
        read_manifest(tmp_path)


def test_no_test_is_no_success(toy):
    with pytest.raises(SimulatorError, match="^The bench must pass in icarus, but ended with: "):
        run_bench(toy, "icarus", compile_chip(toy, "icarus"), {}, print, module="sim_tb.errors")


def fake_version(folder, tool, version):
    """A tool that says it is another version; then it is the one that is installed."""
    folder.mkdir(exist_ok=True)
    (folder / tool).write_text(f"""#!/bin/sh
case "$*" in -V|--version) echo "{version}";; *) exec {shutil.which(tool)} "$@";; esac
""")
    (folder / tool).chmod(0o755)


@pytest.mark.parametrize("tool", ["iverilog", "vvp"])
def test_another_version_of_icarus_compiles_again(toy, tmp_path, monkeypatch, tool):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    compiled = compile_chip(build, "icarus")
    compiled.write_text('#! /usr/bin/vvp\n:ivl_version "0.1 (ancient)";\n')
    assert compile_chip(build, "icarus") == compiled
    fake_version(tmp_path / "bin", tool, "Icarus Verilog version 99.9")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    fresh = compile_chip(build, "icarus")
    assert fresh != compiled and "ancient" not in fresh.read_text()


def test_other_versions_make_other_programs(toy, tmp_path, monkeypatch):
    def key():
        return _recipe("verilator", read_manifest(toy), OPTIMISATION).key()

    keys, real = [key()], importlib.metadata.version
    for newer in ("verilator", "cocotb"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, new=newer: real(name) + "+" * (name == new))
        keys.append(key())
    fake_version(tmp_path / "bin", "g++", "g++ 99.9")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    keys.append(key())
    assert not any(key in keys[:number] for number, key in enumerate(keys))


def test_processes_share_a_build(toy, tmp_path):
    """Two compile and run the same at once; a third holds a chip while the source changes under it."""
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    code = ("from pathlib import Path; from hwgen.simulate import simulate; print(simulate(Path(sys.argv[1]), "
            "sim='icarus', prompt_ids=[1, 2, 3], max_tokens=3)['tokens'])")
    both = [started(code, build) for _ in range(2)]
    assert [process.communicate() for process in both] == [(f"{tokens(PROMPT, 3)}\n", "")] * 2
    compiled, = (build / "sim" / "icarus").iterdir()
    holder = started("from pathlib import Path; from sim_tb.simulators import compiled_chip, run_bench\n"
                     "build = Path(sys.argv[1])\n"
                     "with compiled_chip(build, 'icarus') as chip:\n"
                     "    print(chip.name, flush=True); input()\n"
                     "    run_bench(build, 'icarus', chip, {'prompt_ids': [1, 2, 3], 'max_tokens': 3}, print)", build)
    assert holder.stdout.readline() == f"{compiled.name}\n"
    tile = build / "rtl" / "tile_toy.v"
    tile.write_text(tile.read_text().replace("next + flags[5:0]", "next + 6'd1"))
    second = compile_chip(build, "icarus")
    assert {path.name for path in second.parent.iterdir()} == {compiled.name, second.name}
    output, errors = holder.communicate("\n")
    assert json.loads(output.replace("'", '"').splitlines()[0])["token"] == tokens(PROMPT, 1)[0] and not errors
    tile.write_text(tile.read_text().replace("next + 6'd1", "next + 6'd2"))
    third = compile_chip(build, "icarus")
    assert list(third.parent.iterdir()) == [third]


def test_what_killed_processes_left_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = started("from sim_tb.workplace import scratch_folder\n"
                      "with scratch_folder() as folder: print(folder, flush=True); input()", TMPDIR=tmp_path)
    left = Path(process.stdout.readline().rstrip("\n"))
    assert left.parent == tmp_path
    for alive in (True, False):
        os.utime(left, (0, 0))
        with scratch_folder():
            assert left.exists() == alive
        process.kill()
        process.communicate()
    young = tmp_path / "hwgen-work-abcdefgh"
    young.mkdir()
    with scratch_folder():
        assert young.exists()


def test_kept_files_are_whole_and_stay(tmp_path):
    made, target = tmp_path / "made", tmp_path / "place" / "target"
    made.write_text("first")
    keep(made, target)
    made.write_text("second")
    (target.parent / "partial_dead").write_text("half")
    os.utime(target.parent / "partial_dead", (0, 0))
    with open(target) as reader:
        keep(made, target)
        assert reader.read() == "first"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(OSError):
        keep(made, target / "below a file")


@pytest.mark.parametrize("cache", [True, False])
def test_build_that_cannot_be_written(toy, tmp_path, monkeypatch, cache):
    """Not even by root: a file stands where the folder of compiled chips would be."""
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    (build / "sim").write_text("in the way")
    home = tmp_path / "home"
    if cache:
        home.mkdir()
    else:
        home.write_text("in the way, too")
    process = started("import json; from hwgen.cli import main\n"
                      "sys.argv[1:] = ['sim', sys.argv[1], '--sim', 'icarus', '--prompt-ids', '1,2,3', '--max-tokens', "
                      "'3', '--json']; main()", build, XDG_CACHE_HOME=home, TMPDIR=tmp_path)
    output, errors = process.communicate()
    assert json.loads(output)["tokens"] == tokens(PROMPT, 3), errors
    assert len(list(home.rglob("chip_*"))) == cache
    assert not list(tmp_path.glob("hwgen-work-*"))


@pytest.mark.parametrize("broken", ["json", "report"])
def test_result_that_cannot_be_kept_is_there(toy, tmp_path, monkeypatch, broken):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    (build / "sim").symlink_to(toy / "sim")
    if broken == "json":
        (build / "sim-icarus.json").mkdir()
        (build / "sim-icarus.json" / "file").touch()
    else:
        monkeypatch.setattr("hwgen.report.write_report", lambda build: {}["key of another version"])
    with pytest.raises(NotKept, match="Is a directory" if broken == "json" else "must be written .*KeyError") as error:
        run(build, sim="icarus", prompt_ids=[lambda tokenizer: PROMPT], max_tokens=3)
    assert error.value.result["tokens"] == tokens(PROMPT, 3) and "timeline" not in error.value.result


def test_runtime_of_verilator_is_kept_whole(tmp_path, monkeypatch):
    cache, scratch = tmp_path / "cache", tmp_path / "scratch"
    kept = cache / "verilator_1"
    scratch.mkdir()
    (scratch / "verilated.o").write_text("first")
    _keep_runtime(scratch, kept)
    (scratch / "verilated.o").write_text("second")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="not empty"):
        patch.setattr(Path, "exists", lambda path: False)  # the other process was not done yet
        _keep_runtime(scratch, kept)
    assert list(cache.iterdir()) == [kept]
    _take_runtime(kept, scratch)
    assert (scratch / "verilated.o").read_text() == "first"


def test_a_user_without_home_or_name(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    for folder in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        assert cache_folder() is None


def test_trace_that_was_cut_off():
    whole = [{"x": 0, "y": 0, "unit": "matrix", "start": 10, "stop": 15}]
    assert _intervals("10 0 0 1\n15 0 0 0\n20 0 0 1\n2") == whole


@pytest.mark.parametrize("lines, line", [
    (["g++ -Werror -c x.cpp", "x.cpp:3:5: error: expected ';'", "make: *** [Vtop.mk:9: x.o] Error 1"],
     "x.cpp:3:5: error: expected ';'"),
    (["make: Entering directory '/x'", "Vtop.mk:52: *** missing separator.  Stop.", "make: Leaving directory '/x'"],
     "Vtop.mk:52: *** missing separator.  Stop."),
    (["make: *** No rule to make target 'b', needed by 'chip'.  Stop.", "make: Leaving directory '/x'"],
     "make: *** No rule to make target 'b', needed by 'chip'.  Stop."),
    (["/usr/bin/ld: cannot find -lcocotb", "collect2: error: ld returned 1 exit status"],
     "/usr/bin/ld: cannot find -lcocotb"),
    (["%Error: a.v:3: syntax error, unexpected =", "%Error: Exiting due to 1 error(s)"],
     "%Error: a.v:3: syntax error, unexpected ="),
    (["Traceback (most recent call last):", "  fatal", "ValueError: Register X must be 1", "INFO done"],
     "ValueError: Register X must be 1"),
    ([], "(nothing)"),
])
def test_what_tools_complain_of(lines, line):
    assert complaint("\n".join(lines)) == line


def test_requests_that_the_bench_refuses(toy, tmp_path, capsys):
    request = tmp_path / "request.json"
    for text, message in [(None, "No such file"), ("{", "Expecting property"), ("{}", "must have prompt_ids")]:
        if text is not None:
            request.write_text(text)
        assert bench_main(["--build", str(toy), str(request)]) == 2
        output, errors = capsys.readouterr()
        assert output == "" and errors.startswith("Request must ") and message in errors


def test_emitted_testbench_runs_alone(toy, tmp_path):
    build = changed(toy, tmp_path, "rtl/chip.v", "module chip", "module chip")
    request = {"prompt_ids": PROMPT, "max_tokens": 3, "expected": tokens(PROMPT, 3)}
    for path, text in bench_files(request).items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_text(text)
    command = ["make", "-C", str(build / "tb"), "SIM=icarus", f"PYTHON={PYTHON}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHONPATH"))}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and "20 10 25" in run.stdout, run.stderr
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as unread:
        unread.stdout.close()
        assert "Traceback" not in unread.stderr.read() and unread.wait()
    wrong = request | {"expected": [1, 2, 3]}
    Path(build, "tb", "request.json").write_text(json.dumps(wrong))
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode and "Tokens must be [1, 2, 3], not [20, 10, 25]" in run.stderr
