"""One matrix product of a model: what is multiplied, how often, and what must come before."""

from dataclasses import dataclass

PARTS = ("attention", "ffn", "vocabulary", "vision")
"""The operator classes whose work a tile class takes a share of, and the image part, which is counted only."""


@dataclass(frozen=True)
class Operator:
    """A weight matrix of `rows` x `columns`, or a product with cached keys or values where `weights` is 0.

    `count`: uses per token (per image in the vision part). `copies`: distinct matrices. `after`: names of the
    operators whose results it needs. `gather`: one row is read, nothing is multiplied.
    `narrow`: its elements are 4-bit codes (MXFP4), else 8-bit (MXINT8).
    """

    name: str
    part: str
    rows: int
    columns: int
    count: int
    after: tuple[str, ...] = ()
    copies: int = 1
    cached: bool = False
    gather: bool = False
    bias: bool = False
    narrow: bool = False

    @property
    def weights(self) -> int:
        """Weight elements in all copies, without biases."""
        return 0 if self.cached else self.copies * self.rows * self.columns

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all uses."""
        return 0 if self.gather else self.count * self.rows * self.columns

    @property
    def blocks(self) -> int:
        """32-element MX blocks in all copies; a bias takes one more a row."""
        return 0 if self.cached else self.copies * self.rows * (-(-self.columns // 32) + self.bias)

    @property
    def block_bytes(self) -> int:
        """Bytes of an MX block: 32 elements and their scale."""
        return 17 if self.narrow else 33

    @property
    def bytes(self) -> int:
        """Bytes of all copies, scales, biases and the padding of rows included."""
        return self.blocks * self.block_bytes
