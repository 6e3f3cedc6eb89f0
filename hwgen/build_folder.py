"""A BUILD folder that `hwgen generate` made: its manifest, and the results that later commands add to it."""

import json
import os
import tempfile
from pathlib import Path

from hwgen.errors import HwgenError


def read_manifest(build: Path) -> dict:
    """The numbers of the chip in `build`. Raises HwgenError where the folder holds none."""
    path = Path(build, "manifest.json")
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(numbers, dict) or numbers.get("top") != "chip":
            raise ValueError("manifest.json describes no chip")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HwgenError(f"BUILD must be a folder that `hwgen generate` made, not {str(build)!r} ({reason})") from None
    return numbers


def read_result(build: Path, name: str) -> dict | None:
    """A result file of `build` such as synth.json; None where there is none yet. HwgenError where it is damaged."""
    path = Path(build, name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HwgenError(f"{path} must be a readable result of hwgen, not damaged ({error}); delete it") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path = Path(path)
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise HwgenError(f"{path.parent} must be a writable folder: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(partial, path)
    except OSError as error:
        Path(partial).unlink(missing_ok=True)
        raise HwgenError(f"{path} must be writable: {error.strerror}") from None
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
