"""A BUILD folder that `hwgen generate` made: its manifest, and the results that later commands add to it."""

import json
from pathlib import Path

from hwgen.emit.write import restore
from hwgen.errors import HwgenError
from hwgen.formats import BUILD, SIMULATION, SYNTHESIS
from hwgen.whole_files import try_writing, write_text

RESULTS = {"sim-verilator.json": SIMULATION, "sim-icarus.json": SIMULATION, "synth.json": SYNTHESIS}
"""Name of a result -> its format."""
KEYS = {
    "manifest": {
        "hwgen", "format", "top", "files", "constraints", "images", "memory_images", "width", "height", "flit_bits",
        "virtual_channels", "buffer_flits", "routing", "multicast", "link_registers", "port_flits", "pipeline_stages",
        "streams", "clock_mhz", "context", "vocab", "bos", "eos_ids", "signature", "weights", "mxfp4", "registers",
        "status_bits", "counters", "ends", "model", "classes", "tiles"},
    "classes": {
        "name", "fetch", "stations", "vlen", "lanes", "dmem_kib", "imem_kib", "wmem_kib", "vmem_rows", "xmem_words",
        "kvmem_words", "imem_words", "rom_words"},
    "tiles": {
        "x", "y", "class", "instructions", "rom_words", "rom_depth", "xmem_words", "kv_words", "vmem_words", "layers",
        "rows", "heads"},
    "memory_images": {"file", "words", "digits"}}
"""Keys of a manifest, and of the entries of its lists of the same names; BUILD's number is theirs, too."""


def read_manifest(build: Path) -> dict:
    """The numbers of the chip in `build`. Raises HwgenError where the folder holds none, or another version's."""
    path, rule = Path(build, "manifest.json"), f"BUILD must be a folder that `hwgen generate` made, not {str(build)!r}"
    restore(build)
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(numbers, dict) or numbers.get("top") != "chip":
            raise ValueError("manifest.json describes no chip")
        BUILD.check(numbers.get("format"), rule)
        _check_keys(numbers)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HwgenError(f"{rule} ({reason})") from None
    return numbers


def _check_keys(numbers: dict) -> None:
    """Raise ValueError where a part of a manifest is not there."""
    parts = [("manifest", numbers)]
    for name in ("classes", "tiles", "memory_images"):
        entries = numbers.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"manifest.json lacks {name}")
        parts += [(name, entry) for entry in entries]
    for name, entry in parts:
        if missing := sorted(KEYS[name] - entry.keys()):
            raise ValueError(f"manifest.json lacks {missing[0]}")


def read_result(build: Path, name: str) -> dict | None:
    """A result of `build`, one of RESULTS; None where there is none yet.

    Raises HwgenError where it is damaged or another version's.
    """
    path = Path(build, name)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise HwgenError(f"{path} must be a readable result of hwgen, not damaged ({error}); delete it") from None
    RESULTS[name].check(result.get("format"), f"{path} must be a result of hwgen, not one")
    return result


def why_unwritable(build: Path) -> str | None:
    """Why no result could be kept in the folder `build`; None where one could be."""
    try:
        try_writing(build)
    except OSError as error:
        return error.strerror
    return None


def write_result(build: Path, name: str, result: dict) -> None:
    """Keep a result, one of RESULTS, in `build`. Raises HwgenError where it cannot be written."""
    write_text(Path(build, name), json.dumps({"format": RESULTS[name].mark, **result}) + "\n")
