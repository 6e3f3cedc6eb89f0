"""The one error class a user may cause; the command line prints its sentence and exits with status 2."""


class HwgenError(Exception):
    """A single clear sentence, `X must be R, not v`, for something the user supplied."""
