"""The wheel alone, away from the checkout, makes a chip and runs it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_llama import tiny

ROOT = Path(__file__).parent.parent
RUN = """
import sys
import hwgen
assert hwgen.__file__.startswith(sys.argv[1]), hwgen.__file__
from hwgen.cli import main
sys.argv = ["hwgen", *sys.argv[2:]]
main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True,
                   capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def hwgen(site, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = subprocess.run([sys.executable, "-P", "-c", RUN, str(site), *map(str, arguments), "--json"], cwd=folder,
                         env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_wheel_makes_a_chip_that_answers(installed, tmp_path):
    tiny().save_pretrained(tmp_path / "model")
    hwgen(installed, tmp_path, "generate", "model", "1x1", "-o", "chip", "--context", 8)
    asked = ["--prompt-ids", "1,2", "--max-tokens", 1]
    expected = hwgen(installed, tmp_path, "reference", "model", *asked, "--context", 8)
    assert hwgen(installed, tmp_path, "sim", "chip", "--sim", "icarus", *asked)["tokens"] == expected["tokens"]
    assert (tmp_path / "chip/tb/sim_tb/bench.py").is_file()
