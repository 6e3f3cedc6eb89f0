"""Stored steps of training, those drawn more often that the critics misjudge."""

import torch
from torch import Tensor


class Replay:
    """Prioritised ring of steps; columns are tensors of equal length."""

    def __init__(self, capacity: int, generator: torch.Generator):
        self.capacity, self.generator = capacity, generator
        self.columns: dict[str, Tensor] = {}
        self.weight, self.size, self.next, self.peak = torch.zeros(capacity), 0, 0, 1.0

    def add(self, **rows: Tensor) -> None:
        if not self.columns:
            self.columns = {k: v.new_zeros(self.capacity, *v.shape[1:]) for k, v in rows.items()}
        count = len(next(iter(rows.values())))
        place = (self.next + torch.arange(count)) % self.capacity
        for key, value in rows.items():
            self.columns[key][place] = value
        self.weight[place] = self.peak
        self.next, self.size = (self.next + count) % self.capacity, min(self.size + count, self.capacity)

    def draw(self, count: int, beta: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(places, importance weights up to 1, rows)."""
        edges = self.weight[: self.size].double().cumsum(0)
        at = torch.rand(count, generator=self.generator, dtype=torch.float64) * edges[-1]
        place = torch.searchsorted(edges, at).clamp(max=self.size - 1)
        weight = (self.weight[place] / edges[-1] * self.size).float().clamp(min=1e-8) ** -beta
        return place, weight / weight.max(), {k: v[place] for k, v in self.columns.items()}

    def any(self, count: int) -> dict[str, Tensor]:
        """Rows drawn alike."""
        place = torch.randint(self.size, (count,), generator=self.generator)
        return {k: v[place] for k, v in self.columns.items()}

    def reprioritise(self, place: Tensor, error: Tensor, exponent: float) -> None:
        self.weight[place] = (error.abs() + 1e-3) ** exponent
        self.peak = max(self.peak, float(self.weight[place].max()))

    def state_dict(self) -> dict:
        return {"columns": self.columns, "weight": self.weight, "at": (self.size, self.next, self.peak)}

    def load_state_dict(self, state: dict) -> None:
        self.columns, self.weight = state["columns"], state["weight"]
        self.size, self.next, self.peak = state["at"]
