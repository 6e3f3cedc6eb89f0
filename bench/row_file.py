"""Rows of a long bench, kept as they come, so that one that was stopped goes on."""

import hashlib
import json
import os
import sys
from pathlib import Path


class RowFile:
    """A file of JSON lines; `rows` are those that it held. Without a path nothing is kept.

    The first line is `about`, what the rows depend on: a file of another run is refused with exit status 2. A last line
    that was cut off is dropped. Every added row goes to standard error, too, to show that work goes on.
    """

    def __init__(self, path: Path | None, about: dict):
        self.path, self.rows, self._about = path, [], about
        if path and path.exists():
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            first, *rows = [json.loads(line) for line in whole.splitlines()] or [about]
            if first != about:
                print(f"{path} must be of the same run, {about}, not of {first}", file=sys.stderr)
                raise SystemExit(2)
            self.rows = rows
            os.truncate(path, len(whole))

    def __enter__(self):
        self._file = open(self.path, "a", encoding="utf-8") if self.path else None
        if self._file and not self._file.tell():
            self._write(self._about)
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()

    def add(self, row: dict) -> None:
        print(json.dumps(row), file=sys.stderr, flush=True)
        if self._file:
            self._write(row)

    def _write(self, row):
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def digest(path: Path) -> str:
    """A name for the contents of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
