"""Entry point of the command line: `hwgen COMMAND --help` shows an example of each."""

import os
import sys

from hwgen.commands import app
from hwgen.errors import DISK_FULL, HwgenError
from hwgen.interrupts import interruptible

# Products here are small: a second BLAS thread would only spin. Set before NumPy loads, in the commands.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Entry point: one sentence and exit status 2 for whatever the user can cause, Ctrl-C and SIGTERM included."""
    sys.exit(interruptible(_run))


def _run():
    """Exit status of the command."""
    try:
        return app(standalone_mode=False) or 0
    except HwgenError as error:
        _fail(str(error))
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.filename is not None:
            _fail(f"{error.filename} must be within reach, but: {error.strerror}")
        if error.errno in DISK_FULL:
            _fail(f"Files must fit where they are written, but: {error.strerror}")
        raise
    except Exception as error:
        # The library's own errors, known by their interface: which package defines them depends on its version.
        if hasattr(error, "format_message"):
            _fail(error.format_message())
        if hasattr(error, "exit_code"):
            return error.exit_code
        raise


def _fail(sentence: str):
    if sentence:
        print(f"hwgen: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
