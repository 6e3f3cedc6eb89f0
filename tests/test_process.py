"""Commands in surroundings of all kinds: streams, users, folders and terminals that are not as one is used to."""

import errno
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_model import random_model
from test_synth import VERILOG, chip_manifest, environment

import explore.command  # noqa: F401
import hwgen.emit.component
import hwgen.generate
import hwgen.noc_bench
import hwgen.router_report
from hwgen import cli
from hwgen.commands import app
from hwgen.commands.terminal import ids_of
from hwgen.emit import write
from hwgen.errors import HwgenError
from hwgen.quantize import quantize

ROOT = Path(__file__).parent.parent
DESIGN = "width: 1\nheight: 1\ntiles:\n  - {name: one, vlen: 8, lanes: 1, fetch: 1, stations: 1}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a Q file, a design and a BUILD for Yosys."""
    folder = tmp_path_factory.mktemp("place")
    quantize(random_model("odd sizes"), context=16).save(folder / "a.q")
    (folder / "one.yaml").write_text(DESIGN)
    build = folder / "build"
    (build / "rtl").mkdir(parents=True)
    for name, text in VERILOG.items():
        (build / "rtl" / f"{name}.v").write_text(text)
    for name in ("rom", "sram"):
        (build / "rtl" / f"{name}.v").write_text(environment().get_template(f"{name}.v.j2").render())
    files = [f"rtl/{name}.v" for name in ("rom", "sram", *reversed(VERILOG))]
    (build / "manifest.json").write_text(json.dumps(chip_manifest(files=files)))
    return folder


def fails(error):
    def raises(*_):
        raise error

    return raises


def forked(place, command, *, setting=(), bare=False, user=None, encoding="utf-8", stdout="file", closed=(), cwd=None,
           before=None):
    """(status, stdout, stderr) of a command in a child process that has imported everything already.

    `stdout`: a file, "gone" (a pipe that nobody reads) or "closed"; `closed`: other streams that are; `before` is
    called in the child.
    """
    arguments = [word.replace("PLACE", str(place)) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            status = 99
            try:
                if bare:
                    os.environ.clear()
                os.environ.update(setting)
                os.chdir(cwd or place)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                if stdout == "gone":
                    unread, handle = os.pipe()
                    os.close(unread)
                    os.dup2(handle, 1)
                sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
                sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
                for number in (*closed, *((1,) if stdout == "closed" else ())):
                    os.close(number)
                    setattr(sys, ("stdin", "stdout", "stderr")[number], None)
                if user:
                    os.getuid = lambda: user
                    pwd.getpwuid = fails(KeyError("no such user"))
                sys.argv = ["hwgen", *arguments]
                tempfile.tempdir = None
                if before:
                    before()
                cli.main()
            except SystemExit as end:
                status = end.code
            except BaseException:
                import traceback
                os.write(err.fileno(), traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read().decode(errors="replace")


COMMANDS = {
    "help": ["--help"],
    "help of explore": ["explore", "--help"],
    "reference": ["reference", "PLACE/a.q", "--prompt-ids", "1", "--max-tokens", "2"],
    "reference, json": ["reference", "PLACE/a.q", "--prompt-ids", "1", "--max-tokens", "2", "--json"],
    "rtl": ["rtl", "rom", "-o", "PLACE/out/rtl"],
    "synth": ["synth", "PLACE/build"],
    "synth, json": ["synth", "PLACE/build", "--json"],
}
SLOW = {
    "generate": ["generate", "PLACE/a.q", "PLACE/one.yaml", "--no-images", "-o", "PLACE/generated"],
    "explore": ["explore", "stories260k", "--side", "2", "--evaluations", "64", "-o", "PLACE/explored"],
}
SURROUNDINGS = {
    "ascii": {"encoding": "ascii"},
    "cp1252": {"encoding": "cp1252"},
    "nobody": {"bare": True, "user": 54321},
    "no stdin": {"closed": (0,)},
    "no stderr": {"closed": (2,)},
    "dumb": {"setting": {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "x"}},
}
WORST = {"encoding": "ascii", "bare": True, "user": 54321, "cwd": "/proc", "closed": (0, 2),
         "setting": {"TMPDIR": "/nowhere", "COLUMNS": "1", "TERM": "dumb", "NO_COLOR": "1"}}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_worst_surroundings(command, place):
    status, out, _ = forked(place, COMMANDS[command], **WORST)
    assert status == 0 and out.strip() and out.isascii()
    if command == "synth":
        assert b"?" not in out and b"whole chip" in out  # nothing is cut


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_every_surrounding_alone(surroundings, place):
    status, out, err = forked(place, COMMANDS["reference, json"], **SURROUNDINGS[surroundings])
    assert status == 0 and json.loads(out)["tokens"] and not err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_is_gone_ends_every_command_quietly(command, place):
    shutil.rmtree(place / "out", ignore_errors=True)
    assert forked(place, COMMANDS[command], stdout="gone") == (1, b"", "")


@pytest.mark.parametrize("command", ["help", "reference, json", "synth"])
def test_a_stdout_that_is_closed_is_one_that_nobody_reads(command, place):
    assert forked(place, COMMANDS[command], stdout="closed") == (1, b"", "")


@pytest.mark.parametrize("redirection", ["| true", ">&-", ">/dev/full"])
def test_nothing_is_said_after_the_end(redirection):
    """Not by the interpreter either, when it flushes its streams."""
    line = f"'{sys.executable}' -m hwgen.cli --help {redirection}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    full = "hwgen: Files must fit where they are written, but: No space left on device\n"
    assert (done.stdout, done.stderr) == (("2\n", full) if redirection == ">/dev/full" else ("1\n", ""))


@pytest.mark.parametrize("command", SLOW)
def test_a_bare_environment_where_warnings_are_errors(command, place):
    bare = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "LC_ALL": "C", "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0", "TMPDIR": "/nowhere", "TERM": "dumb"}
    arguments = [word.replace("PLACE", str(place)) for word in SLOW[command]]
    done = subprocess.run([sys.executable, "-m", "hwgen.cli", *arguments], cwd="/proc", capture_output=True, env=bare)
    assert done.returncode == 0 and done.stdout.isascii() and not done.stderr


def test_arguments_are_utf8_in_any_locale(monkeypatch):
    def encode(text):
        return ids_of(text, None)(SimpleNamespace(encode=str))

    assert encode("naïve") == "naïve" and encode("na\udcff") == "na\udcff"
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert encode("na\udcc3\udcafve") == "naïve"


def test_without_any_temporary_folder_there_is_a_sentence(place):
    def nowhere():
        tempfile._candidate_tempdir_list = lambda: ["/nowhere"]

    status, out, err = forked(place, COMMANDS["synth"], before=nowhere)
    assert (status, out) == (2, b"") and err.startswith("hwgen: Files and folders must be within reach, but: No usable "
                                                         "temporary directory found in ['/nowhere']")


def test_a_result_for_a_folder_that_cannot_be_written_is_announced_and_printed(place):
    def read_only():
        make = tempfile.mkstemp

        def refuse(suffix=None, prefix=None, dir=None, text=False):
            if Path(dir or "/") == place / "build":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))
            return make(suffix, prefix, dir, text)

        tempfile.mkstemp = refuse

    for name in ("synth.json", "report.html"):
        (place / "build" / name).unlink(missing_ok=True)
    status, out, err = forked(place, COMMANDS["synth, json"], before=read_only)
    note, sentence = err.strip().splitlines()
    assert status == 2 and json.loads(out)["modules"]
    assert note == f"note: the result will be printed only, as {place}/build cannot be written: Read-only file system"
    assert sentence == f"hwgen: {place}/build/synth.json must be writable: Read-only file system"


FLITS = {"flits": 1, "bound": 3, "unicast": 12345, "multicast": []}
MEASURED = {"design": dict.fromkeys(("width", "height", "flit_bits", "virtual_channels", "buffer_flits"), 2) | {
    "routing": "xy", "multicast": False}, "cycles": 100, "seed": 0, "accepted": 0.99, "all_gather": [FLITS], "curves": [
        {"pattern": "uniform", "flits": 1, "saturation": 0.345, "points": [
            {"load": 0.1, "offered": 0.1, "latency": 7.5}]}]}
ROUTER = {"liberty": "cells", "cells": 10, "flip_flops": 2, "area": 1.0, "kge": 1.0, "path_ps": 1.0, "cycle": None}


@pytest.mark.parametrize(("command", "wanted"), [
    (["noc-bench", "PLACE/one.yaml"], "12,345"), (["noc-bench", "PLACE/one.yaml", "--json"], "12345"),
    (["rtl", "router", "--report", "--liberty", "any.lib"], "10 cells"),
    (["explore", "stories260k", "--side", "2", "--evaluations", "64", "--json"], '"evaluations": 64')], ids=str)
def test_a_result_that_cannot_be_kept_is_printed(command, wanted, place, tmp_path, monkeypatch, capsys):
    """Though all could be written before the work, and what is measured is given here."""
    monkeypatch.setattr(hwgen.noc_bench, "noc_bench", lambda *_, **__: MEASURED)
    monkeypatch.setattr(hwgen.router_report, "router_report", lambda *_: ROUTER)
    monkeypatch.setattr(hwgen.emit.component, "component_files", lambda *_: {"router.v": ""})
    monkeypatch.setattr(write, "write_files", fails(OSError(errno.ENOSPC, "No space left on device")))
    arguments = [word.replace("PLACE", str(place)) for word in command]
    with pytest.raises(HwgenError, match="Output folder must be writable, not .*out: No space left on device"):
        app([*arguments, "-o", str(tmp_path / "out")], standalone_mode=False)
    assert wanted in capsys.readouterr().out and not (tmp_path / "out").exists()
