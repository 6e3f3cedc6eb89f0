"""Entry point of the command line: `hwgen COMMAND --help` shows an example of each."""

import os
import sys

from hwgen.errors import DISK_FULL, HwgenError
from hwgen.interrupts import interruptible
from hwgen.process import StdoutClosed, finish, prepare

# Products here are small: a second BLAS thread would only spin. Set before NumPy loads, in the commands.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Entry point: one sentence and exit status 2 for whatever the user can cause, Ctrl-C and SIGTERM included."""
    prepare()
    sys.exit(interruptible(lambda: finish(_run())))


def _run() -> int:
    """Exit status of the command."""
    try:
        from hwgen.commands import app

        return app(standalone_mode=False) or 0
    except HwgenError as error:
        return _failed(str(error))
    except StdoutClosed:
        return 1
    except OSError as error:
        return _failed(_sentence(error))
    except Exception as error:
        # The library's own errors, known by their interface: which package defines them depends on its version.
        if hasattr(error, "format_message"):
            return _failed(error.format_message())
        if hasattr(error, "exit_code"):
            return error.exit_code
        raise


def _sentence(error: OSError) -> str:
    """What the system refused, in a sentence."""
    reason = error.strerror or error
    if error.filename is not None:
        return f"{error.filename} must be within reach, but: {reason}"
    if error.errno in DISK_FULL:
        return f"Files must fit where they are written, but: {reason}"
    return f"Files and folders must be within reach, but: {reason}"


def _failed(sentence: str) -> int:
    if sentence:
        print(f"hwgen: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
