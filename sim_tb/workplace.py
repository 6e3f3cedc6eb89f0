"""Where tools work: in folders with plain names, in an environment of our own; and what stays from one run to the next.

make, compilers, linkers and loaders take some characters of a path for their own syntax: blanks, #, $, %, : and more.
So they work in a scratch folder without any, and reach what lies elsewhere through links in it.
"""

import atexit
import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
_PREFIX = "hwgen-work-"
_DEAD_S = 60
"""Age at which what no process holds was left by one that was killed."""
_INHERITED = re.compile(
    "PATH|HOME|TZ|LD_LIBRARY_PATH|LD_PRELOAD|NIX_.*|"
    # where a compiler that is not the system's finds its own files
    "CPATH|C_INCLUDE_PATH|CPLUS_INCLUDE_PATH|LIBRARY_PATH|COMPILER_PATH|GCC_EXEC_PREFIX"
)


def tool_environment(scratch: Path) -> dict[str, str]:
    """Environment of a tool: nothing of the user's that could change what it makes, such as MAKEFLAGS or CXXFLAGS.

    Messages are in English, so that they can be searched.
    """
    kept = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    return {"PATH": os.defpath} | kept | {"LC_ALL": "C", "TMPDIR": str(scratch)}


@contextlib.contextmanager
def scratch_folder():
    """A folder with a plain name for the time of the block, and for no longer than this process. Raises OSError.

    What processes left that were killed goes first.
    """
    folder = _plain_folder()
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # without locks nothing is taken for dead
                stack.enter_context(held(folder))
            sweep(folder.parent, f"{_PREFIX}*")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lasting_folder() -> Path:
    """A folder with a plain name that stays until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(scratch_folder())


def _plain_folder():
    for place in _places():
        resolved = os.path.realpath(place)
        if _PLAIN.fullmatch(resolved):
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=resolved))
    raise FileNotFoundError(errno.ENOENT, "No folder for temporary files has a plain name; TMPDIR may name one")


def _places():
    return tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"


def link(scratch: Path, name: str, target: Path) -> Path:
    """A plain name in `scratch` for the file or folder `target`."""
    path = scratch / name
    path.symlink_to(Path(target).absolute())
    return path


def cache_folder() -> Path | None:
    """The user's folder for what can be made again; None for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given, "hwgen")
    try:
        return Path(Path.home(), ".cache", "hwgen")
    except RuntimeError:
        return None


def keep(made: Path, target: Path) -> None:
    """Copy a file to `target`, whole or not at all, unless there is one already. Raises OSError.

    Whoever else does the same, reads or runs it is not disturbed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, "partial_*")
    handle, partial = tempfile.mkstemp(prefix="partial_", dir=target.parent)
    try:
        with open(handle, "wb") as copy, open(made, "rb") as source:
            shutil.copyfileobj(source, copy)
            os.fchmod(handle, stat.S_IMODE(os.fstat(source.fileno()).st_mode))
        try:
            os.link(partial, target)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def sweep(folder: Path, pattern: str, seconds: float = _DEAD_S, *, but: str = "") -> None:
    """Remove our files and folders of that pattern which nobody changed for so long and no process holds."""
    with contextlib.suppress(OSError):
        for path in Path(folder).glob(pattern):
            if path.name != but:
                with contextlib.suppress(OSError):
                    _remove_dead(path, seconds)


def _remove_dead(path, seconds):
    found = path.lstat()
    if found.st_uid != os.geteuid() or time.time() - found.st_mtime < seconds:
        return
    with held(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def held(path: Path, lock: int = fcntl.LOCK_SH):
    """Keeps others from taking a file or folder for dead, until the process ends at the latest. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, lock)
        yield
    finally:
        os.close(handle)
