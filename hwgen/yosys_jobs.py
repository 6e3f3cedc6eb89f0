"""Yosys scripts in processes of their own, so that a crash or Ctrl-C leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_RUNNER = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for line in sys.stdin.read().splitlines():
    libyosys.run_pass(line, design)
"""


class YosysFailure(Exception):
    """Yosys ended with an error; the text is what it said last."""


def run_scripts(scripts: dict[str, list[str]], folder: Path, *, processes: int = 2) -> dict[str, str]:
    """Run scripts (name -> Yosys commands) in `folder`, at most `processes` at a time; name -> log.

    The first failure ends the others and raises YosysFailure, as does any exception that comes meanwhile. A shell runs
    ABC, so that `folder`, which takes its temporary files, must have a plain name, as from `sim_tb.workplace`.
    """
    waiting, running = list(scripts), {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                name = waiting.pop(0)
                running[name] = _start(name, scripts[name], folder)
            time.sleep(0.02)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                if running.pop(name).returncode:
                    raise YosysFailure(f"{name}: {_complaint(_log(folder, name).read_text(errors='replace'))}")
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {name: _log(folder, name).read_text(errors="replace") for name in scripts}


def _log(folder, name):
    return Path(folder, f"{name}.log")


def _start(name, script, folder):
    source = Path(folder, f"{name}.ys")
    source.write_text("\n".join(script))
    with open(source) as commands, open(_log(folder, name), "w") as log:
        # a session of its own: it ends when this process says so, with what it started
        return subprocess.Popen([sys.executable, "-c", _RUNNER], stdin=commands, stdout=log, stderr=subprocess.STDOUT,
                                cwd=folder, start_new_session=True, env=os.environ | {"TMPDIR": str(folder)})


def _complaint(log):
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "ERROR:" in line]
    return (errors or lines or ["no reason given"])[-1]
