"""The process's surroundings as hwgen needs them, whatever the user's are: standard streams and warnings."""

import io
import os
import shutil
import sys
import tempfile
import warnings
from contextlib import suppress


class StdoutClosed(BaseException):
    """Nobody reads standard output any more: the end, quietly, of whatever is under way."""


NARROWEST = 60
"""Columns that a terminal has for us at least: below, words and numbers would be cut."""


def prepare() -> None:
    """Call this first: before other modules are imported, which may warn."""
    _forget_warnings()
    with suppress(OSError):  # tools that children start ask nobody else
        os.environ["TMPDIR"] = tempfile.gettempdir()
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    _fill_closed()
    sys.stdout = sys.__stdout__ = _rewrapped(sys.stdout, 1, _Stdout)
    sys.stderr = sys.__stderr__ = _rewrapped(sys.stderr, 2, _Stderr)


def finish(status: int) -> int:
    """The exit status after all that was printed is out."""
    try:
        sys.stdout.flush()
    except StdoutClosed:
        return 1
    except OSError as error:
        print(f"hwgen: Standard output must be writable, but: {error.strerror}", file=sys.stderr)
        return 2
    return status


def _forget_warnings():
    """Warnings of libraries are no errors here, even if PYTHONWARNINGS says so; children are Python, too."""
    os.environ.pop("PYTHONWARNINGS", None)
    if sys.warnoptions:
        sys.warnoptions.clear()
        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def _fill_closed():
    """Open the standard streams that are closed, before a file takes their numbers: stdout as a pipe without reader."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            unread, handle = os.pipe() if number == 1 else (None, os.open(os.devnull, os.O_RDWR))
            if unread is not None:
                os.close(unread)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)


def _rewrapped(stream: io.TextIOBase | None, number: int, kind: type) -> io.TextIOBase:
    """The same stream with the manners of `kind`, if it is Python's own; what its encoding lacks is replaced."""
    if stream is None:
        return kind(open(number, "wb", closefd=False), "utf-8", "replace")  # noqa: SIM115
    if type(stream) is not io.TextIOWrapper:
        return stream
    settings = stream.encoding, stream.errors if number == 2 else "replace"
    buffered, through = stream.line_buffering, stream.write_through
    return kind(stream.detach(), *settings, line_buffering=buffered, write_through=through)


class _Stdout(io.TextIOWrapper):
    """Raises StdoutClosed, once, where nobody reads any more; other errors are for the caller."""

    def write(self, text):
        try:
            return super().write(text)
        except BrokenPipeError:
            self._give_up()

    def flush(self):
        try:
            super().flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self):
        # what waits in the buffer would fail again at the end
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)
        raise StdoutClosed


class _Stderr(io.TextIOWrapper):
    """Progress and complaints, which are lost where nobody can read them: a closed pipe, a terminal that is gone."""

    def write(self, text):
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self):
        with suppress(OSError):
            super().flush()
