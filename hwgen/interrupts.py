"""Ctrl-C, SIGTERM and SIGHUP, answered with one sentence and exit status 2 wherever they strike."""

import atexit
import os
import signal
import sys
from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def interruptible(run: Callable[[], int]) -> int:
    """The exit status that `run` returns; an interrupt unwinds it and ends the process with status 2."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # so that nohup may say
            signal.signal(number, _interrupt)
    sys.unraisablehook = _repeat_interrupt
    try:
        return run()
    except BaseException:
        if not _interrupt.seen:
            raise
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if _interrupt.seen:
            print(f"hwgen: interrupted; {_interrupt.note}", file=sys.stderr, flush=True)
            atexit._run_exitfuncs()
            # CPython ends itself with SIGINT, not this status, if a KeyboardInterrupt ever passed through exec(text)
            os._exit(2)


def _interrupt(number, frame):
    # remembered, as what is under way may turn the exception into one of its own (an import, a SyntaxError)
    _interrupt.seen = True
    raise KeyboardInterrupt


_interrupt.seen = False
_interrupt.note = "nothing half-written was left"


def say_when_interrupted(note: str) -> None:
    """What is said of an interrupt from now on, in place of that nothing half-written was left."""
    _interrupt.note = note


def _repeat_interrupt(unraisable):
    """Python drops exceptions in finalisers: an interrupt that arrives there comes again when they are done."""
    if unraisable.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.__unraisablehook__(unraisable)
