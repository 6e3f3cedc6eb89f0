"""Output folders: written whole or not at all, and never over something that hwgen did not make."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

from hwgen.errors import DISK_FULL, HwgenError

MARKER = ".hwgen"
"""File in every folder that hwgen made; only such a folder may be overwritten."""

Content = str | bytes | Iterable[str | bytes]
"""Contents of a file, text as UTF-8; large ones come as pieces, so that they never lie in memory as a whole."""


def check_output(folder: Path, force: bool) -> None:
    """Raise HwgenError unless `folder` may be written: new, empty, or, with `force`, made by hwgen."""
    folder = Path(folder)
    if not folder.exists():
        near = next(parent for parent in folder.absolute().parents if parent.exists())
        if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
            raise HwgenError(f"Output folder must be in a writable folder, not {folder}: {near} is none")
        return
    if not folder.is_dir():
        raise HwgenError(f"Output folder must be a folder, not the file {folder}")
    if not any(folder.iterdir()):
        return
    if not (folder / MARKER).is_file():
        raise HwgenError(f"Output folder must be new, empty or made by hwgen, not {folder}, which holds other files")
    if not force:
        raise HwgenError(f"Output folder must be new or empty, not {folder}: --force overwrites what hwgen made there")


@contextmanager
def output_folder(folder: Path, force: bool = False):
    """A new folder to fill, which takes the place of `folder` if the block ends without an exception.

    Until then `folder` stays as it is; after an exception (an interrupt, too) nothing new is left.
    """
    check_output(folder, force)
    folder = Path(folder).resolve()
    created = _make_parents(folder.parent)
    try:
        with _folder_beside(folder) as near:
            new, old = Path(near, "new"), Path(near, "old")
            new.mkdir()
            (new / MARKER).write_text("This folder was made by hwgen, which may overwrite it.\n")
            yield new
            check_output(folder, force)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except BaseException:
                if old.exists():
                    old.rename(folder)
                raise
    except BaseException as error:
        for parent in created:
            shutil.rmtree(parent, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _unwritable(folder, error) from None
        raise


def write_files(folder: Path, files: Mapping[str, Content]) -> None:
    """Write {relative path: contents} into an existing folder."""
    for path, content in files.items():
        target = Path(folder, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            for piece in (content,) if isinstance(content, (str, bytes)) else content:
                file.write(piece.encode() if isinstance(piece, str) else piece)


def write_folder(folder: Path, files: Mapping[str, Content], force: bool = False) -> None:
    """Write {relative path: contents} as the whole of `folder`, or change nothing. See `check_output`."""
    with output_folder(folder, force) as new:
        write_files(new, files)


def _folder_beside(folder: Path):
    """A temporary folder on the same file system."""
    try:
        return tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> HwgenError:
    return HwgenError(f"Output folder must be writable, not {folder}: {error.strerror}")


def _make_parents(folder: Path) -> list[Path]:
    """Create `folder`; returns the topmost folder that was missing, in a list, or nothing."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return missing[-1:]
