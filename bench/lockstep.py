"""Searches side by side whose points are evaluated in one batch: 10 designs take the evaluator as long as 500."""

import threading
from collections.abc import Callable, Sequence

import torch

from explore.ask_tell import Weigh


class Lockstep:
    """Runs searches in threads. Each is given a `Weigh`; when all that still run have asked, their points are weighed
    together, in the order of the searches, so that what each finds does not depend on which thread is first."""

    def __init__(self, weigh: Weigh):
        self._weigh = weigh
        self._turn = threading.Condition()
        self._asked, self._answers, self._running, self._error = {}, {}, 0, None

    def run(self, searches: Sequence[Callable[[Weigh], None]]) -> None:
        """Until all have ended; the first error of any of them is raised."""
        self._running = len(searches)
        threads = [threading.Thread(target=self._follow, args=(number, search), daemon=True)
                   for number, search in enumerate(searches)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error:
            raise self._error

    def _follow(self, number, search):
        try:
            search(lambda rows, slope=False: self._ask(number, rows, slope))
        except BaseException as error:  # raised again by run
            self._error = self._error or error
        with self._turn:
            self._running -= 1
            self._answer()

    def _ask(self, number, rows, slope):
        with self._turn:
            self._asked[number] = rows, slope
            self._answer()
            self._turn.wait_for(lambda: number in self._answers or self._error)
            if self._error:
                raise RuntimeError("A search beside this one has failed") from self._error
            return self._answers.pop(number)

    def _answer(self):
        """Weigh what was asked, once nobody is missing; an error ends all."""
        if not self._error and self._asked and len(self._asked) == self._running:
            try:
                for slope in (False, True):
                    numbers = sorted(number for number, asked in self._asked.items() if asked[1] == slope)
                    if numbers:
                        self._weigh_all(numbers, slope)
            except BaseException as error:  # of whoever was last to ask, so of all
                self._error = error
            self._asked.clear()
        self._turn.notify_all()

    def _weigh_all(self, numbers, slope):
        rows = [self._asked[number][0] for number in numbers]
        outcomes, slopes = self._weigh(torch.cat(rows), slope)
        sizes = [len(r) for r in rows]
        for number, mine, ascent in zip(numbers, outcomes.split(sizes),
                                        slopes.split(sizes) if slope else [None] * len(sizes), strict=True):
            self._answers[number] = mine, ascent
