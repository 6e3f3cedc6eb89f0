"""What the suite says of itself at the end."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TESTS = """
import subprocess, sys, time
SPIN = "import time\\nwhile time.process_time() < {}: pass"
def test_alone(): exec(SPIN.format(time.process_time() + 0.3))
def test_in_a_child(): subprocess.run([sys.executable, "-c", SPIN.format(0.6)])
def test_asleep(): time.sleep(0.5)
"""


def test_slowest_tests_are_told_by_cpu_seconds_with_those_of_their_children(tmp_path):
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "test_spin.py").write_text(TESTS)
    done = subprocess.run([sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    lines = re.findall(r"^ *([\d.]+)  (?:.*::)?(\w+)", done.stdout, re.MULTILINE)
    spent = {name: float(seconds) for seconds, name in lines}
    assert list(spent) == ["test_in_a_child", "test_alone", "test_asleep", "all"]
    assert 0.6 <= spent["test_in_a_child"] < 2 and 0.3 <= spent["test_alone"] < 1 and spent["test_asleep"] < 0.2
    assert spent["all"] > sum(spent.values()) - spent["all"]
