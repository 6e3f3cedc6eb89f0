"""What a router costs in a cell library, as `hwgen rtl router --report` tells it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_synth import LIBERTY

ROOT = Path(__file__).parent.parent
THRESHOLDS = "".join(f"{kind}_pct_{edge} : {value}; " for kind, values in (
    ("input_threshold", (50, 50)), ("output_threshold", (50, 50)), ("slew_lower_threshold", (20, 20)),
    ("slew_upper_threshold", (80, 80))) for edge, value in zip(("rise", "fall"), values, strict=True))
TABLES = "".join(f'{kind} (t) {{ values ("0.3, 0.5", "0.4, 0.6"); }} ' for kind in (
    "cell_rise", "cell_fall", "rise_transition", "fall_transition"))
TIMED = LIBERTY.replace('time_unit : "1ns";', f'time_unit : "1ns"; {THRESHOLDS}').replace(
    'pin (Q) { direction : output; function : "IQ"; }',
    f'pin (Q) {{ direction : output; function : "IQ"; timing () {{ related_pin : "CK"; timing_type : rising_edge; '
    f"{TABLES} }} }}").replace(
    "pin (D) { direction : input; capacitance : 0.002; }",
    "pin (D) { direction : input; capacitance : 0.002; timing () { related_pin : CK; timing_type : setup_rising; "
    'rise_constraint (scalar) { values ("0.1"); } fall_constraint (scalar) { values ("0.1"); } } }')
"""The library with what a timing analyser wants besides."""
SMALL = ("--set", "flit_bits=32", "--set", "width=2", "--set", "height=2")
NAND2, FLIP_FLOP = 4, 20
"""Areas in the library of the test."""


def report(tmp_path, *settings, flits=2, options=("--json",)):
    path = tmp_path / "mini.lib"
    path.write_text(TIMED)
    command = [sys.executable, "-m", "hwgen.cli", "rtl", "router", "--report", "--liberty", path, *SMALL,
               "--set", f"buffer_flits={flits}", *settings]
    done = subprocess.run([*map(str, command), *options], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_area_counts_the_mapped_cells(tmp_path):
    plain, deeper = (json.loads(report(tmp_path, flits=flits))["report"] for flits in (2, 3))
    for found, flits in ((plain, 2), (deeper, 3)):
        gates = found["cells"] - found["flip_flops"]
        least, most = (found["flip_flops"] * FLIP_FLOP + gates * area for area in (2, NAND2))
        assert least <= found["area"] <= most and found["kge"] == pytest.approx(found["area"] / NAND2 / 1000, abs=6e-4)
        assert found["path_ps"] > 500 and found["liberty"] == "mini.lib"
        # flits of 32 bits and their ends at five ports
        assert found["flip_flops"] >= 5 * flits * 33
    assert deeper["area"] > 1.2 * plain["area"]
    # nanoseconds over two routers, where OpenSTA is there
    assert (plain["cycle"] is None) == (shutil.which("sta") is None) and plain["cycle"] != 0


def test_text_and_files_come_together(tmp_path):
    text = report(tmp_path, "-o", tmp_path / "router", options=())
    assert "kGE" in text and (tmp_path / "router/router.v").exists()
