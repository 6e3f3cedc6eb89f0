"""Files that are written whole or not at all, and whether a folder can be written, found out by trying.

What is not whole yet lies beside its place under a hidden name, locked by the process that writes it: of what a killed
process left the lock is gone, so that the next one may remove it.
"""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from hwgen.errors import HwgenError

HIDDEN = ".hwgen-"
"""In the names of what is not whole yet, RANDOM follows. A name that begins with it is for the folder it lies in, and
does not count as contents; another begins with a dot and the name that it is to have."""
RANDOM = "[a-z0-9_]{8}"
"""What `tempfile` puts at the end of a name."""
_OLD_SECONDS = 3600
"""Age after which what is without a lock counts as left behind, where the file system knows no locks."""
_NAME_BYTES = 100
"""Of a file's name, as much as the name of a temporary one beside it repeats."""


def try_writing(folder: Path) -> None:
    """Write a file in `folder` and remove it. Raises OSError where that is not possible.

    Permissions do not tell: nothing to root, and nobody of read-only mounts, quotas and full disks.
    """
    handle, path = tempfile.mkstemp(dir=folder, prefix=HIDDEN)
    os.unlink(path)
    with os.fdopen(handle, "wb") as file:
        file.write(b"hwgen")


@contextmanager
def whole_file(path: Path):
    """The path of a file to fill, which takes the place of `path` in one step if the block ends without an exception.

    A symbolic link stays, and what it points to is replaced. After an exception nothing new is left; what a killed
    process left of an earlier attempt is removed. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    for old in hidden_beside(path):
        if old.is_file():
            with locked(old) as ours:
                if ours:
                    old.unlink(missing_ok=True)
    with make_locked(lambda: _make_file(path)) as partial:
        try:
            yield partial
            os.chmod(partial, 0o666 & ~_umask())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises HwgenError."""
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise HwgenError(f"{path} must be writable: {error.strerror}") from None


def hidden_prefix(path: Path) -> str:
    """How names begin of what is to become `path`, in the same folder; RANDOM follows."""
    name = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return f".{name}{HIDDEN}"


def hidden_beside(path: Path) -> list[Path]:
    """What is to become `path` or was, in the same folder; nothing where that cannot be listed."""
    pattern = re.compile(re.escape(hidden_prefix(path)) + RANDOM)
    with suppress(OSError):
        return [path.parent / name for name in os.listdir(path.parent) if pattern.fullmatch(name)]
    return []


@contextmanager
def make_locked(make: Callable[[], tuple[Path, Path]]):
    """The first path that `make` makes, while this process has a lock on the second, the same or a file within.

    Another process may take what is made and not yet locked for left behind; then `make` is called again.
    """
    while True:
        path, lock = make()
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        try:
            if _lock(handle) and _is_open(lock, handle):
                yield path
                return
        finally:
            os.close(handle)


@contextmanager
def locked(lock: Path):
    """Whether this process has a lock on a file while the block runs: whether that of its maker is gone."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        yield _lock(handle, old=True) and _is_open(lock, handle)
    finally:
        os.close(handle)


def _make_file(path: Path) -> tuple[Path, Path]:
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=hidden_prefix(path))
    os.close(handle)
    return Path(partial), Path(partial)


def _lock(handle: int, old: bool = False) -> bool:
    """Lock an open file without waiting. Where the file system knows no locks: True, with `old` only if it is that."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not old or time.time() - os.fstat(handle).st_mtime > _OLD_SECONDS
    return True


def _is_open(path: Path, handle: int) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
