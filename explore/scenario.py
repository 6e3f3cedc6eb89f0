"""What a chip is to be designed for: a workload, a node, goals and budgets."""

from dataclasses import dataclass

from explore.node import ROM_ANCHORS, Node, node
from explore.workload import Workload
from hwgen.errors import HwgenError

GOALS = {"high-performance": (0.4, 0.4, 0.2), "low-power": (0.2, 0.6, 0.2)}
"""Weights of speed, power and area, as the paper has them."""


@dataclass(frozen=True)
class Scenario:
    """One query. Budgets are None where there is none.

    Parameters
    ----------
    workload, nm : the model and the process node in nanometres.
    context : positions that the cache must hold.
    position : position of the token whose speed counts; default half of the context, the mean over a full run.
    prompt : tokens before the first answer, besides those of an image.
    weights : of ln(tokens/s), ln(W) and ln(mm2) in the objective; they sum to 1.
    power_max, area_max, latency_max : W, mm2, and seconds from a token of a stream to its next.
    clock_max : MHz that a system allows, besides what the node does.
    rom_anchor : "macro" for the published density of ROM macros, "cell" for the bare cell.
    """

    workload: Workload
    nm: int
    context: int = 2048
    position: int | None = None
    prompt: int = 32
    weights: tuple[float, float, float] = GOALS["high-performance"]
    power_max: float | None = None
    area_max: float | None = None
    latency_max: float | None = None
    clock_max: float | None = None
    rom_anchor: str = "macro"

    def __post_init__(self):
        node(self.nm)
        if not 1 <= self.context <= self.workload.max_context:
            raise HwgenError(f"Context must be 1 to {self.workload.max_context}{self.workload.why_no_longer}, "
                             f"not {self.context!r}")
        if self.position is not None and not 0 <= self.position < self.context:
            raise HwgenError(f"Position must be 0 to {self.context - 1}, not {self.position!r}")
        longest = self.context - self.workload.image_tokens
        if not 1 <= self.prompt <= longest:
            raise HwgenError(f"Prompt must be 1 to {longest} tokens, besides those of an image, not {self.prompt!r}"
                             if longest >= 1 else f"Context must be above {self.workload.image_tokens}, the tokens of "
                             f"an image, not {self.context!r}")
        if len(self.weights) != 3 or min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise HwgenError(f"Weights must be three numbers from 0 that sum to 1, not {self.weights!r}")
        if self.rom_anchor not in ROM_ANCHORS:
            raise HwgenError(f"ROM anchor must be {' or '.join(ROM_ANCHORS)}, not {self.rom_anchor!r}")
        for name in ("power_max", "area_max", "latency_max", "clock_max"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise HwgenError(f"{name} must be above 0, not {value!r}")

    @property
    def node(self) -> Node:
        """The process node."""
        return node(self.nm)

    @property
    def at(self) -> int:
        """Position of the token whose speed counts."""
        return self.context // 2 if self.position is None else self.position
