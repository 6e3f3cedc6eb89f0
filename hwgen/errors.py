"""The one error class a user may cause; the command line prints its sentence and exits with status 2."""

from errno import EDQUOT, EFBIG, ENOSPC
from reprlib import Repr

DISK_FULL = (ENOSPC, EDQUOT, EFBIG)
"""Numbers of the OSErrors that end a write half-way; they name no file."""
LONGEST = 60
"""Characters of a value in a sentence."""

_repr = Repr()
_repr.maxlevel = 2
_repr.maxstring = _repr.maxother = LONGEST


class HwgenError(Exception):
    """A single clear sentence, `X must be R, not v`, for something the user supplied."""


class NotKept(HwgenError):
    """A result is there, but could not be written: commands print `result` before they fail with the sentence."""

    def __init__(self, sentence: object, result):
        super().__init__(str(sentence))
        self.result = result


def shown(value: object) -> str:
    """A value as a sentence has it: its repr, of long strings, lists and objects only what tells them apart."""
    text = _repr.repr(value)
    return text if len(text) <= 3 * LONGEST else f"{text[: 3 * LONGEST]}..."


def listed(names: list[str]) -> str:
    """Names as a sentence has them: the first three, and how many more there are."""
    first = ", ".join(name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in names[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
