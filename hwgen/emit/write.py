"""Output folders: written whole or not at all, and never over something that hwgen did not make.

A folder that is there keeps its identity, and so do its subfolders: it may be a mount point, somebody's current folder,
or lie where nothing can be renamed. All that is new is written into a hidden folder within, then moved to its place,
and what it replaces is moved out; a journal tells how to undo that. Whoever meets the journal of a process that is gone
undoes it, so that a kill at any time leaves the earlier contents. A folder that is not there appears in one step.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hwgen.errors import DISK_FULL, HwgenError
from hwgen.whole_files import HIDDEN, RANDOM, hidden_beside, hidden_prefix, locked, make_locked, try_writing

MARKER = ".hwgen"
"""File in every folder that hwgen made; only such a folder may be overwritten."""

Content = str | bytes | Iterable[str | bytes]
"""Contents of a file, text as UTF-8; large ones come as pieces, so that they never lie in memory as a whole."""


def check_output(folder: Path, force: bool) -> None:
    """Raise HwgenError unless `folder` may be written: new, empty, or, with `force`, made by hwgen; and can be."""
    target = _check_contents(folder, force)
    if target.exists():
        try:
            _try_all(target)
        except OSError as error:
            raise _unwritable(folder, error) from None
        return
    near = next(parent for parent in target.parents if parent.exists())
    try:
        try_writing(near)
    except OSError as error:
        raise HwgenError(f"Output folder must be in a writable folder, not {folder}: {near} is none ({error.strerror})"
                         ) from None


def restore(folder: Path) -> None:
    """Put right what killed processes left in `folder` and beside it. Raises HwgenError where that is not possible."""
    target = _target(folder)
    for stage in _stages(target):
        with locked(stage / "lock") as ours:
            if ours:
                try:
                    _undo(stage, target)
                except (OSError, ValueError) as error:  # a journal may be damaged after a loss of power
                    reason = getattr(error, "strerror", None) or error
                    raise HwgenError(f"Folder {str(folder)!r}, which hwgen wrote when it was killed, must get back its "
                                     f"earlier contents from {stage}, but: {reason}") from None
                _remove(stage)
        with suppress(OSError):
            stage.rmdir()  # killed before there was a lock


def kept_folder(folder: Path, name: str) -> Path:
    """Where to keep what is needed until `folder` is whole: within it, or beside it while it is not there."""
    target = _target(folder)
    return target / f"{HIDDEN}{name}" if target.is_dir() else target.with_name(f".{target.name}.{name}")


@contextmanager
def output_folder(folder: Path, force: bool = False):
    """A new folder to fill, whose contents take the place of those of `folder` if the block ends without an exception.

    Until then `folder` keeps what it holds; after an exception (an interrupt, too) nothing new is left.
    """
    check_output(folder, force)
    target = _target(folder)
    created = _make_parents(target)
    try:
        with _stage(target) as stage:
            new = stage / "new"
            new.mkdir()
            (new / MARKER).write_text("This folder was made by hwgen, which may overwrite it.\n")
            yield new
            _check_contents(folder, force)
            try:
                if target.exists():
                    _replace_contents(stage, target)
                else:
                    new.rename(target)
            except OSError as error:
                raise _unwritable(folder, error) from None
    except BaseException as error:
        for parent in created:
            with suppress(OSError):
                parent.rmdir()
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


def _target(folder: Path) -> Path:
    """The folder itself, past all symbolic links to it, which stay."""
    return Path(os.path.realpath(folder))


def _check_contents(folder: Path, force: bool) -> Path:
    """The folder past links. Raises HwgenError unless what it holds may be overwritten."""
    target = _target(folder)
    if target.is_symlink():
        raise HwgenError(f"Output folder must be a folder, not the link {folder} to itself")
    restore(target)
    if not target.exists():
        near = next(parent for parent in target.parents if parent.exists())
        if not near.is_dir():
            raise HwgenError(f"Output folder must be in a writable folder, not {folder}: {near} is none")
        return target
    if not target.is_dir():
        raise HwgenError(f"Output folder must be a folder, not the file {folder}")
    if not _names(target):
        return target
    if not (target / MARKER).is_file():
        raise HwgenError(f"Output folder must be new, empty or made by hwgen, not {folder}, which holds other files")
    if not force:
        raise HwgenError(f"Output folder must be new or empty, not {folder}: --force overwrites what hwgen made there")
    return target


def _names(folder: Path) -> list[str]:
    """What is in a folder, but for what hwgen keeps there until it is whole."""
    return sorted(name for name in os.listdir(folder) if not name.startswith(HIDDEN))


def _try_all(folder: Path) -> None:
    """Write a file in every folder of which contents may have to move. Raises OSError."""
    try_writing(folder)
    with os.scandir(folder) as entries:
        inside = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in inside:
        if not os.path.basename(path).startswith(HIDDEN):
            with suppress(FileNotFoundError):  # another process may remove its own meanwhile
                _try_all(Path(path))


def _unwritable(folder: Path, error: OSError) -> HwgenError:
    return HwgenError(f"Output folder must be writable, not {folder}: {error.strerror}")


def _make_parents(folder: Path) -> list[Path]:
    """Create the folder's parent; returns the folders that were missing, the innermost first."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        os.makedirs(folder.parent, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return missing


@contextmanager
def _stage(target: Path):
    """A temporary folder on the file system of `target`: within it, or beside it while it is not there."""
    def make():
        within = target.is_dir()
        stage = Path(tempfile.mkdtemp(dir=target if within else target.parent,
                                      prefix=HIDDEN if within else hidden_prefix(target)))
        return stage, stage / "lock"

    with contextlib.ExitStack() as stack:
        try:
            stage = stack.enter_context(make_locked(make))
        except OSError as error:
            raise _unwritable(target, error) from None
        try:
            yield stage
        finally:
            # a journal that is still there could not be undone: `restore` tries again
            if not _journal(stage).exists():
                _remove(stage)


def _stages(target: Path) -> list[Path]:
    """What `_stage` made for this folder and is still there, whether a process fills it or not."""
    pattern = re.compile(re.escape(HIDDEN) + RANDOM)
    within = []
    if target.is_dir():
        within = [target / name for name in os.listdir(target) if pattern.fullmatch(name)]
    return [path for path in (*within, *hidden_beside(target)) if path.is_dir() and not path.is_symlink()]


def _remove(stage: Path) -> None:
    """Remove a stage, its lock last: until then it is known for one."""
    for part in ("new", "old", "journal", "journal.part"):
        path = stage / part
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        (stage / "lock").unlink(missing_ok=True)
        stage.rmdir()


def _journal(stage: Path) -> Path:
    return stage / "journal"


def _replace_contents(stage: Path, folder: Path) -> None:
    """Move what is in stage/new into `folder`, and what that replaces into stage/old; all of it or nothing."""
    new, old = stage / "new", stage / "old"
    with _alone(folder):
        moves = list(_moves(folder, new))
        old.mkdir()
        part = stage / "journal.part"
        part.write_text(json.dumps(moves), encoding="utf-8")
        part.rename(_journal(stage))
        try:
            for path, _, comes in moves:
                if os.path.lexists(folder / path):
                    (old / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).rename(old / path)
                if comes:
                    (new / path).rename(folder / path)
        except BaseException:
            _undo(stage, folder)
            raise
        _journal(stage).unlink()


def _moves(folder: Path, new: Path, at: str = ""):
    """(path, whether it goes, whether it comes): what moves as a whole for `folder` to hold what `new` does."""
    old_names, new_names = set(os.listdir(folder / at)), set(os.listdir(new / at))
    for name in sorted(old_names | new_names):
        path = os.path.join(at, name)
        if path.startswith(HIDDEN):
            continue
        if all(inside.is_dir() and not inside.is_symlink() for inside in (folder / path, new / path)):
            yield from _moves(folder, new, path)
        else:
            yield path, name in old_names, name in new_names


def _undo(stage: Path, folder: Path) -> None:
    """Take back what the journal of a stage tells, as far as it was done. May itself be killed and called again."""
    if not _journal(stage).exists():
        return
    new, old = stage / "new", stage / "old"
    for path, goes, comes in reversed(json.loads(_journal(stage).read_text(encoding="utf-8"))):
        came = comes and os.path.lexists(folder / path) and not os.path.lexists(new / path)
        if came and (not goes or os.path.lexists(old / path)):
            (folder / path).rename(new / path)
        if os.path.lexists(old / path):
            (old / path).rename(folder / path)
    _journal(stage).unlink()


@contextmanager
def _alone(folder: Path):
    """One process after the other, where the file system knows locks of folders."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
