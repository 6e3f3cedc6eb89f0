import json
import re
from html.parser import HTMLParser

import pytest
from small_chip import chip_manifest, simulation

from hwgen.build_folder import write_result
from hwgen.errors import HwgenError, NotKept
from hwgen.figures import RESOLUTION, timeline_lane, token_bars
from hwgen.report import keep_result, report_html, write_report

SYNTH = {"liberty": None, "modules": [
    {"module": "rom", "kind": "memory", "instances": 8, "parts": {}, "by_type": {}, "cells": 0, "flip_flops": 0,
     "all_cells": 0, "all_flip_flops": 0, "area": None, "all_area": None, "kge": None, "path_ps": None},
    {"module": "router", "kind": "logic", "instances": 4, "parts": {}, "by_type": {"$_NAND_": 1234}, "cells": 1234,
     "flip_flops": 77, "all_cells": 1234, "all_flip_flops": 77, "area": None, "all_area": None, "kge": None,
     "path_ps": None},
    {"module": "chip", "kind": "composition", "instances": 1, "parts": {"router": 4, "rom": 8}, "by_type": {},
     "cells": 0, "flip_flops": 0, "all_cells": 4936, "all_flip_flops": 308, "area": None, "all_area": None,
     "kge": None, "path_ps": None},
]}


@pytest.fixture(scope="module")
def numbers():
    return chip_manifest()


class Balance(HTMLParser):
    """Checks that every element ends where it should, and collects visible text."""

    VOID = {"meta", "input", "br"}

    def __init__(self, page):
        super().__init__()
        self.open, self.words = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def metrics(page):
    found = json.loads(re.search(r'id="metrics">(.*?)</script>', page, re.S)[1])
    return {metric["key"]: metric["values"] for metric in found}


@pytest.mark.parametrize("sim", [False, True])
@pytest.mark.parametrize("synth", [False, True])
def test_page_is_whole_and_needs_no_network(numbers, sim, synth):
    page = report_html(numbers, simulation(numbers) if sim else None, SYNTH if synth else None)
    text = Balance(page).text
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", page)
    assert ("Last simulation" in text) == sim
    assert ("Synthesis" in text) == synth
    assert page == report_html(numbers, simulation(numbers) if sim else None, SYNTH if synth else None)


def test_mesh_shows_every_tile(numbers):
    page = report_html(numbers)
    text = Balance(page).text
    assert text.count("VLEN 32 · LANES 8 · FETCH 2") == 3
    assert text.count("VLEN 16 · LANES 4 · FETCH 1") == 1
    rom = [tile["rom_words"] * (33 if tile["class"] == "general" else 17) for tile in numbers["tiles"]]
    assert metrics(page)["share"] == pytest.approx([100 * r / sum(rom) for r in rom], abs=1e-3)
    assert f"{rom[0] / 1024:.1f} / {numbers['tiles'][0]['rom_depth'] * 33 / 1024:.1f}" in text


def test_formats_and_the_words_of_a_rom_with_codes(numbers):
    mixed = chip_manifest(mxfp4=frozenset({"down", "qkv"}))
    page = report_html(mixed)
    text = Balance(page).text
    assert "weights MXFP4 (down, qkv), else MXINT8" in " ".join(text.split())
    assert "weights MXINT8" in " ".join(Balance(report_html(numbers)).text.split())
    first = mixed["tiles"][0]
    assert f"{first['rom_words'] * 34 / 1024:.1f} / {first['rom_depth'] * 34 / 1024:.1f}" in text
    assert first["rom_words"] < numbers["tiles"][0]["rom_words"]
    assert mixed["classes"][0]["wmem_kib"] == mixed["classes"][0]["rom_words"] * 34 / 1024


def test_memories_hold_what_is_used(numbers):
    page = metrics(report_html(numbers))
    for name in ("wmem", "dmem", "imem"):
        provided = {c["name"]: c[f"{name}_kib"] for c in numbers["classes"]}
        for used, tile in zip(page[name], numbers["tiles"], strict=True):
            assert 0 < used <= provided[tile["class"]] + 1e-3


def test_simulation_figures(numbers):
    page = report_html(numbers, simulation(numbers))
    text = Balance(page).text
    assert "400,000 tokens/s at 400 MHz" in text  # 1000 cycles at 400 MHz
    assert "4,000 cycles to the first token" in text
    assert metrics(page)["mac_busy"] == [50.0] * 4
    assert page.count('class="mac" style="width: 50.00%"') == 4
    assert "matrix 43 %" in text  # 10 x 40 of 940 cycles


def test_text_of_the_model_is_escaped(numbers):
    page = report_html(numbers, simulation(numbers))
    assert "<script>alert" not in page
    assert "a &lt;script&gt;alert(1)&lt;/script&gt; &amp; b" in page


def test_overflow_is_told(numbers):
    sim = simulation(numbers)
    assert "sticky" not in Balance(report_html(numbers, sim)).text
    assert "Overflow: the chip raised a sticky flag" in Balance(report_html(numbers, sim | {"overflow": True})).text


def test_run_without_text_timeline_or_tokens(numbers):
    sim = simulation(numbers) | {"text": None}
    del sim["timeline"]
    text = Balance(report_html(numbers, sim)).text
    assert "Last simulation" in text and "unit by unit" not in text
    empty = sim | {"tokens": [], "cycles_per_token": []}
    assert "Last simulation" not in Balance(report_html(numbers, empty)).text


def test_synthesis_table(numbers):
    text = Balance(report_html(numbers, None, SYNTH)).text
    assert "router 4 1,234 77 1,234" in text
    assert "whole chip 4,936 308 4,936" in text


def test_large_mesh_is_summed_by_class(numbers):
    first = numbers["tiles"][0]
    wide = numbers | {"width": 20, "height": 10, "tiles": [
        first | {"x": i % 20, "y": i // 20, "heads": list(range(4))} for i in range(200)]}
    page = report_html(wide, simulation(wide))
    assert "mean of general" in Balance(page).text
    assert "136 more tiles are left out" in Balance(page).text
    assert len(page) < 1_000_000


def test_timeline_stays_small_and_keeps_short_intervals():
    spans = [(at, at + 1) for at in range(0, 200_000, 2)]
    assert len(timeline_lane(spans, 0, 200_000, "matrix")) < 20 * RESOLUTION
    assert "M2000 0H2001V10" in timeline_lane([(50_000, 50_001)], 0, 100_000, "matrix")


def test_bars_scale_with_cycles():
    chart = token_bars([100, 50, 100], [10, 10, 10], list("abc"))
    heights = re.findall(r'class="bar[^"]*" .*?height="([\d.]+)"', chart)
    assert float(heights[1]) == pytest.approx(float(heights[2]) / 2, abs=0.1)
    assert "9,000 ↑ prompt" in token_bars([9000, 50, 100], [10, 10, 10], list("abc"))


def test_written_beside_the_results(numbers, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(numbers))
    assert write_report(tmp_path).read_text(encoding="utf-8") == report_html(numbers)
    sim = simulation(numbers)
    write_result(tmp_path, "sim-verilator.json", sim)
    write_result(tmp_path, "synth.json", SYNTH)
    assert write_report(tmp_path).read_text(encoding="utf-8") == report_html(numbers, sim, SYNTH)
    names = {"manifest.json", "sim-verilator.json", "synth.json", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_foreign_folders_are_refused(tmp_path):
    with pytest.raises(HwgenError, match=r"BUILD must be a folder that `hwgen generate` made, not .*No such file"):
        write_report(tmp_path)
    (tmp_path / "manifest.json").write_text('{"top": "mesh"}')
    with pytest.raises(HwgenError, match="BUILD must be a folder that `hwgen generate` made"):
        write_report(tmp_path)


def test_damaged_results_are_refused(numbers, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(numbers))
    (tmp_path / "sim-verilator.json").write_text('{"tokens": [')
    with pytest.raises(HwgenError, match="sim-verilator.json must be a readable result of hwgen, not damaged"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_cannot_be_made_loses_no_result(numbers, tmp_path):
    """Whatever is wrong with a manifest that has all its keys."""
    strange = numbers | {"tiles": [tile | {"class": "unknown"} for tile in numbers["tiles"]]}
    (tmp_path / "manifest.json").write_text(json.dumps(strange))
    sentence = r"^synth.json and report.html must be written to '.*', but: KeyError: 'unknown'$"
    with pytest.raises(NotKept, match=sentence) as error:
        keep_result(tmp_path, "synth.json", SYNTH, SYNTH["modules"])
    assert error.value.result == SYNTH["modules"]
    assert json.loads((tmp_path / "synth.json").read_text())["modules"] == SYNTH["modules"]


@pytest.mark.parametrize(("prompts", "tokens", "steps"), [
    ([[1, 2], [3, 4]], [[5, 6], [7]], 2),
    ([[1], [1] * 10], [[5], [6]], 2),  # one has ended long before the other begins
    ([[1], [], [2, 3], []], [[5, 5, 5], [], [6], []], 3),
])
def test_a_run_of_several_streams(numbers, prompts, tokens, steps):
    run = simulation(numbers) | {"prompt_ids": prompts, "tokens": tokens, "cycles_per_token": [2000] * steps,
                                 "text": [f"text {len(own)}" if own else "" for own in tokens]}
    page = report_html(numbers | {"streams": len(prompts)}, sim=run)
    words = " ".join(Balance(page).words)
    assert f"{len(prompts)} streams in flight" in words and "cycles per step" in words
    assert page.count("<blockquote>") == sum(map(bool, prompts))
    count = sum(map(len, tokens))
    assert f"tokens of {sum(map(bool, prompts))} streams" in words and str(count) in words


def test_streams_that_put_nothing_out_leave_the_report_as_it_was(numbers):
    run = simulation(numbers) | {"prompt_ids": [[1], [2]], "tokens": [[], []], "cycles_per_token": [], "text": ["", ""]}
    assert "Last simulation" not in report_html(numbers | {"streams": 2}, sim=run)
