"""How tools make a program: commands, what they need, and that they are run in a scratch folder until it is there."""

import importlib.metadata
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from sim_tb.errors import SimulatorError
from sim_tb.workplace import link, tool_environment

_EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")
_COMPLAINT = re.compile(
    r"(?<![-\w/])error\b|fatal|cannot be read|cannot find|can not be run|undefined reference|\*\*\*", re.IGNORECASE)


@dataclass(frozen=True)
class Recipe:
    """What leads to the program {scratch}/chip.

    {scratch} stands for a folder with a plain name wherever it occurs, {jobs} for the number of processors.

    commands: run one after another in {scratch}.
    links: names in {scratch} -> what they lead to; the sources, too.
    versions: of the tools; another version makes another program.
    environment: further variables of the commands: where things are, nothing that changes the program.
    """

    sim: str
    commands: list[list[str]]
    versions: list[str]
    links: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def key(self) -> list:
        """Of everything that the program depends on but its sources."""
        return [self.commands, self.versions]

    def follow(self, scratch: Path) -> Path:
        """Make the program. Raises SimulatorError if a command fails."""
        for name, target in self.links.items():
            link(scratch, name, target)

        def filled(text):
            return text.replace("{scratch}", str(scratch)).replace("{jobs}", str(os.cpu_count() or 1))

        own = {name: filled(value) for name, value in self.environment.items()}
        with open(scratch / "log", "w+", encoding="utf-8", errors="replace") as log:
            for command in self.commands:
                words = [filled(word) for word in command]
                if _call(words, scratch, tool_environment(scratch) | own, log):
                    log.seek(0)
                    raise SimulatorError(f"{self.sim} must accept the chip, but says: {complaint(log.read())}")
        return scratch / "chip"


def _call(command, folder, environment, log):
    """Run to the end, its whole process group with it if this is interrupted."""
    process = None
    try:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        return process.wait()
    finally:
        end_process(process)


def end_process(process: subprocess.Popen | None) -> None:
    """Kill a process that leads a session, with all it started, if it still runs."""
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def first_line(*command: str) -> str:
    """Of what a tool says of its version; empty where it says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
                              env=tool_environment(Path("/tmp")))
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").partition("\n")[0].strip()


def package_version(name: str) -> str:
    """Of an installed Python package; empty where nobody knows."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def complaint(text: str) -> str:
    """The most telling line of a tool's output: the last Python exception, or the first error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if _EXCEPTION.match(line)]
    wrong = [line for line in lines if _COMPLAINT.search(line)]
    return (raised[-1:] + wrong[:1] + lines[-1:] + ["(nothing)"])[0][:400]
