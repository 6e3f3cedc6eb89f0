"""The bench of the evaluator's speed runs and prints its number."""

import re
import sys

import pytest

from bench.evaluator_speed import main


def rate(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["evaluator_speed", *arguments])
    main()
    line = re.fullmatch(r"(\S+), batches of (\d+): ([\d,]+) designs per CPU second\n", capsys.readouterr().out)
    assert line, "one line"
    return line[1], int(line[2]), int(line[3].replace(",", ""))


def test_it_prints_designs_a_second(capsys, monkeypatch):
    name, batch, speed = rate(capsys, monkeypatch, "stories260k", "--batch", "32")
    assert (name, batch) == ("stories260k", 32) and speed > 0


@pytest.mark.full
def test_it_is_not_slow_by_an_order(capsys, monkeypatch):
    """A tenth of what is asked for, 50,000: this sees a loop over designs, not a busy machine."""
    name, batch, speed = rate(capsys, monkeypatch)
    assert (name, batch) == ("llama-3.1-8b", 4096) and speed > 5000
