"""The commands, by what they work on; each registers itself with the application, in the order of a user's way."""

from hwgen.commands import model

# isort: split
from hwgen.commands import build

# isort: split
from hwgen.commands import network

# isort: split
from hwgen.commands import explore
from hwgen.commands.terminal import app

__all__ = ["app", "build", "explore", "model", "network"]
