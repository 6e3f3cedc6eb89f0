"""The one error class a user may cause; the command line prints its sentence and exits with status 2."""

from errno import EDQUOT, EFBIG, ENOSPC

DISK_FULL = (ENOSPC, EDQUOT, EFBIG)
"""Numbers of the OSErrors that end a write half-way; they name no file."""


class HwgenError(Exception):
    """A single clear sentence, `X must be R, not v`, for something the user supplied."""


class NotKept(HwgenError):
    """A result is there, but could not be written: commands print `result` before they fail with the sentence."""

    def __init__(self, sentence: object, result):
        super().__init__(str(sentence))
        self.result = result
