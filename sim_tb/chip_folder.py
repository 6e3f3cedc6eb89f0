"""A chip's folder as the benches read it: its manifest and its memory images, checked before anything runs.

Keys of manifest.json used here: format, and memory_images: {"file", "words", "digits"} of every image that the chip
loads. An image has one word a line, in hexadecimal, all words alike long.
"""

import json
import re
from pathlib import Path

from sim_tb.errors import SimulatorError

FORMAT = "hwgen-build-1"
"""The only manifests that are read, among those that name their format."""
_PIECE = 1 << 22
"""Bytes of an image that are looked at together, about."""
_HEX = b"0123456789abcdefABCDEF"


def read_manifest(build: Path) -> dict:
    """The numbers of the chip in `build`. Raises SimulatorError where it holds none, or another format's."""
    rule = f"BUILD must be a folder with the manifest.json of a chip, not {str(build)!r}"
    try:
        manifest = json.loads(Path(build, "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SimulatorError(f"{rule} ({getattr(error, 'strerror', None) or error})") from None
    if not isinstance(manifest, dict) or not {"top", "files"} <= manifest.keys():
        raise SimulatorError(f"{rule} (it describes no chip)")
    if manifest.get("format", FORMAT) != FORMAT:
        raise SimulatorError(f"Format of manifest.json must be {FORMAT}, not {manifest['format']!r}: the chip and this "
                             "bench come from different versions")
    return manifest


def check_images(build: Path, manifest: dict) -> None:
    """Raise SimulatorError unless every memory image is there, whole and nothing but words.

    Simulators take what they find: of a file cut short the rest of a memory is unknown, or zero.
    """
    for image in manifest.get("memory_images", ()):
        path, words, digits = Path(build, image["file"]), image["words"], image["digits"]
        try:
            # a pipe, say, would wait for ever
            wrong = _fault(path, words, digits) if path.is_file() or not path.exists() else "something else"
        except OSError as error:
            wrong = f"unreadable ({error.strerror})"
        if wrong:
            raise SimulatorError(f"Image {image['file']} must be a file of {words} words of {digits} hexadecimal "
                                 f"digits, a line each, as manifest.json says, not {wrong}")


def _fault(path, words, digits):
    """What an image is instead of what it must be; None where nothing is wrong."""
    line = digits + 1
    with open(path, "rb") as file:
        seen = 0
        while piece := file.read(max(1, _PIECE // line) * line):
            lines, rest = divmod(len(piece), line)
            ends = piece[digits::line]
            if rest or ends.count(b"\n") != lines or len(piece.translate(None, _HEX)) != lines:
                break
            seen += lines
        else:
            if seen == words:
                return None
    return _first_fault(path, words, digits)


def _first_fault(path, words, digits):
    """The same for an image that is not written as usual, slowly: line by line."""
    word = re.compile(rb"[0-9a-fA-F]{%d}[ \t\r]*\n?" % digits)
    seen = 0
    with open(path, "rb") as file:
        while line := file.readline(digits + 80):
            if not word.fullmatch(line):
                text = line.rstrip(b"\r\n").decode(errors="replace")
                return f"{text[:24] + '...' * (len(text) > 24)!r} in line {seen + 1}"
            seen += 1
    return None if seen == words else f"{seen} words"
