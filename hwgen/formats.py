"""The one rule for every file that hwgen writes and reads again: it carries a mark, `hwgen-KIND-N` with N its format.

The mark is checked when the file is read, before any work. What another version made, or one before there were marks
(format 0), is refused in a sentence that says what to do. N is raised here, with every change after which one of two
versions would misunderstand the other's files.
"""

import re
from dataclasses import dataclass

from hwgen.errors import HwgenError


@dataclass(frozen=True)
class Format:
    """One kind of file; `remedy` is what to do about a file of another version."""

    kind: str
    number: int
    remedy: str

    @property
    def mark(self) -> str:
        """What a file of this format carries."""
        return f"hwgen-{self.kind}-{self.number}"

    def check(self, mark: object, rule: str) -> None:
        """Raise HwgenError unless `mark`, as a file has it, is of this format; None where a file has none.

        `rule` begins the sentence: `X must be R, not v`.
        """
        if mark == self.mark:
            return
        found = re.fullmatch(rf"hwgen-{self.kind}-(\d{{1,9}})", mark) if isinstance(mark, str) else None
        number = int(found[1]) if found else 0
        raise HwgenError(f"{rule} made by another version of hwgen (format {number}, this one reads {self.number}): "
                         f"{self.remedy}")


GRAPH = Format("integer-graph", 1, "run `hwgen quantize` again")
BUILD = Format("build", 1, "run `hwgen generate` again")
SIMULATION = Format("simulation", 1, "run `hwgen sim` again")
SYNTHESIS = Format("synthesis", 1, "run `hwgen synth` again")
RUN = Format("run", 1, "run `hwgen explore` again")
SEARCH = Format("search", 1, "run `hwgen explore` again")
AGENT = Format("agent", 2, "run `python -m explore.train` again")
TRAINING = Format("training", 1, "run `python -m explore.train` again in a new folder")
