"""Rows of a long bench, kept as they come, so that one that was stopped goes on."""

import json
import sys
from pathlib import Path


class RowFile:
    """A file of JSON lines; `rows` are those that it held. Without a path nothing is kept.

    A last line that was cut off is dropped. Every added row goes to standard error, too, to show that work goes on.
    """

    def __init__(self, path: Path | None):
        self.path, self.rows = path, []
        if path and path.exists():
            text = path.read_text("utf-8")
            whole = text[: text.rfind("\n") + 1]
            self.rows = [json.loads(line) for line in whole.splitlines()]
            path.write_text(whole, "utf-8")

    def __enter__(self):
        self._file = open(self.path, "a", encoding="utf-8") if self.path else None
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()

    def add(self, row: dict) -> None:
        line = json.dumps(row)
        print(line, file=sys.stderr, flush=True)
        if self._file:
            self._file.write(line + "\n")
            self._file.flush()
