import os
import signal
import time

import pytest

from hwgen.interrupts import interruptible


def status_of(work, before=lambda: None):
    """(exit status, stderr) of a child process that runs `work`, interruptible."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(write, 2)
            before()
            os._exit(interruptible(work))
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read, errors="replace") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_unwinds_what_is_under_way(number, tmp_path):
    def work():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            (tmp_path / "cleared").touch()
        return 0

    status, _ = status_of(work)
    assert status == 2 and (tmp_path / "cleared").exists()


def test_nohup_stays_ignored():
    def work():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.1)
        return 7

    assert status_of(work, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))[0] == 7
