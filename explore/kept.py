"""Searches of finished nodes, kept where a RUN is to be whole: a kill loses the search of one node at most."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

import hwgen
from explore.agent import read_saved, write_saved
from explore.problem import OBSERVATIONS, Problem
from explore.scenario import Scenario
from explore.search import Search
from hwgen.emit.write import kept_folder
from hwgen.errors import HwgenError
from hwgen.formats import SEARCH
from hwgen.whole_files import HIDDEN

_PARTS = ("actions", "outcomes", "scores", "proposed")


class Kept:
    """What is kept for the folder `output`; None keeps nothing.

    `settings`: all that a search depends on besides its scenario and the program, as JSON has it. A search is taken up
    again only where all three are the same. Raises HwgenError where nothing can be kept.
    """

    def __init__(self, output: Path | None, settings: dict):
        self.settings = settings
        self.folder = None if output is None else kept_folder(output, "nodes")
        self.output = output
        if self.folder is not None:
            self._try()

    def _try(self):
        """Makes the folder and leaves all as it was: what cannot be written is refused before the search."""
        missing = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        try:
            self._make()
        finally:
            for path in missing:
                with suppress(OSError):
                    path.rmdir()

    def _make(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HwgenError(f"Output folder must be writable, not {self.output}: {error.strerror}") from None

    def _path(self, scenario: Scenario) -> Path:
        key = json.dumps([_program(), self.settings, asdict(scenario)], sort_keys=True, default=sorted)
        return self.folder / f"{scenario.nm}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"

    def load(self, problem: Problem) -> Search | None:
        """The search of this problem, if it is kept whole."""
        if self.folder is None:
            return None
        try:
            saved = read_saved(self._path(problem.scenario), SEARCH)
        except HwgenError:
            return None
        parts = [saved.get(name) for name in _PARTS]
        return Search(problem, *parts) if _whole(problem, *parts) else None

    def save(self, found: Search) -> None:
        """Keeps a search, in one step, where there is room."""
        if self.folder is None:
            return
        path = self._path(found.problem.scenario)
        if path.is_dir():  # the next run searches anew
            return
        with suppress(HwgenError):  # what cannot be kept is searched anew after a kill
            self._make()
            write_saved({"format": SEARCH.mark, **{name: getattr(found, name) for name in _PARTS}}, path)

    def clear(self) -> None:
        """Removes all that is kept for this folder, of other settings too."""
        if self.folder is not None:
            for file in (*self.folder.glob("*.pt"), *self.folder.glob(f".*.pt{HIDDEN}*")):
                with suppress(OSError):
                    file.unlink()
            with suppress(OSError):
                self.folder.rmdir()


def _whole(problem: Problem, actions, outcomes, scores, proposed) -> bool:
    """Whether these are the parts of a search: finite numbers of the right shapes."""
    tables = (actions, outcomes, scores)
    if not all(isinstance(t, Tensor) and t.dtype == torch.float32 for t in tables) or type(proposed) is not float:
        return False
    count = scores.numel()
    shapes = [(count, problem.codec.shape.size), (count, len(OBSERVATIONS)), (count,)]
    return bool(count and [tuple(t.shape) for t in tables] == shapes and isfinite(proposed)
                and all(bool(t.isfinite().all()) for t in tables))


@cache
def _program() -> str:
    """A digest of the code and figures that results follow from."""
    digest = hashlib.sha256(torch.__version__.encode())
    for package in (Path(__file__).parent, Path(hwgen.__file__).parent):
        for file in sorted(f for f in package.rglob("*") if f.suffix in (".py", ".json")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
