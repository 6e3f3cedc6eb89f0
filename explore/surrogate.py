"""The agent's model of the world: what a design of a scenario comes to, predicted without asking the evaluator.

An ensemble corrects the napkin's counts (`explore/napkin.py`): cycles, gates, bits and energies in units that do not
depend on the node. The node's figures, which are part of the state, then make speed, power and area of them. So a node
that was never trained on is no other task, and an error of one part stays one of that part.
"""

from math import inf, log

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.goal import VIOLATION, Goals
from explore.napkin import CLOCK, COUNTS, CYCLES, HINTS, LIMITS, Napkin
from explore.networks import Ensemble
from explore.node import RETICLE_MM2
from explore.problem import OBSERVATIONS

MARGIN = 0.02
"""Nats below a budget at which `Surrogate.worth` begins to fall."""
FIGURES = 3
"""Predicted figures: ln tok/s, ln W, ln mm2."""
SCALES = ("features_mean", "features_std", "hints_mean", "hints_std", "counts_mean", "counts_std", "border", "spread")
_LN10 = log(10)
_AT = {name: i for i, name in enumerate(OBSERVATIONS)}
_LOGIC, _SRAM, _ROM, _READS, _WORK, _NETWORK, _FLIPS = range(CYCLES, len(COUNTS))

_UNITS = ("multipliers", "operands", "cache", "vector")
_AREA = ((("matrix", "vector", "control", "router"), "gates_mm2"), (("data",), "sram_bits_mm2"),
         (("weights", "vision", "programs"), "rom_bits_mm2"))


class Surrogate:
    """`members` perceptrons of width `hidden`; `napkin` gives counts and hints. Its predictions are differentiable."""

    def __init__(self, napkin: Napkin, actions: int, *, members: int, hidden: int):
        self.napkin, size = napkin, len(napkin.names)
        self.net = Ensemble(members, size + actions + HINTS, hidden, len(COUNTS) + 1)
        self.features_mean, self.features_std = torch.zeros(size), torch.ones(size)
        self.hints_mean, self.hints_std = torch.zeros(HINTS), torch.ones(HINTS)
        self.counts_mean, self.counts_std = torch.zeros(len(COUNTS)), torch.ones(len(COUNTS))
        self.border = torch.zeros(())
        self.spread = torch.full((FIGURES,), 0.1)
        self._column = {name: i for i, name in enumerate(napkin.names)}

    def fit_scales(self, features: Tensor, actions: Tensor, observed: Tensor) -> None:
        """Fixes the scales of inputs and corrections by feasible observations [N, 5 + ...]."""
        hints = self.napkin(actions, features)
        self.border = self._inside(observed).mean()
        error = self._counts(observed, features, hints) - hints[:, : len(COUNTS)]
        self.features_mean, self.features_std = features.mean(0), features.std(0).clamp(min=1e-2)
        self.hints_mean, self.hints_std = hints.mean(0), hints.std(0).clamp(min=1e-2)
        self.counts_mean = error.median(0).values
        self.counts_std = 1.5 * (error - self.counts_mean).abs().mean(0).clamp(min=0.02)

    def predict(self, actions: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(ln tok/s, ln W and ln mm2 [members, B, 3], chance that the chip can be built [B]); features [B or 1, F]."""
        counts, broken, hints = self._forward(actions, features)
        # What is far too large by the napkin cannot be built, whatever a network says so far from what it has seen.
        fits = (hints[:, -LIMITS:] < 1).all(1)
        return self._figures(counts, hints, features), torch.sigmoid(-broken).mean(0) * fits

    def worth(self, actions: Tensor, features: Tensor, goals: Goals) -> Tensor:
        """The objective [B] that is expected under goals [B], less a penalty for each limit that looks broken.

        Differentiable, for an actor to climb. The penalties, in nats, are rates chosen by hand that begin a little
        before the limit and are capped, so that one limit far broken does not drown all else in a batch.
        """
        counts, broken, hints = self._forward(actions, features)
        figures = self._figures(counts, hints, features).mean(0)
        speed, power, area = figures.unbind(1)
        latency = self.napkin.codec.streams(actions).log() - speed
        limits = goals.budgets.clamp(max=goals.budgets.new_tensor([inf, RETICLE_MM2, inf]))
        over = (torch.stack([power, area, latency], 1) - limits.log() + MARGIN).clamp(min=0, max=3).sum(1)
        unsound = F.softplus(broken.mean(0) + 1).clamp(max=8)
        far = (hints[:, -LIMITS:] + 0.3).clamp(min=0).sum(1)
        objective = (figures * goals.weights * figures.new_tensor([1.0, -1.0, -1.0])).sum(1)
        return objective - 3 * over - 0.5 * unsound - 2 * far

    def place(self, actions: Tensor, features: Tensor) -> Tensor:
        """Where designs lie for the model [B, HINTS]: errors of designs that lie near each other are alike."""
        return self.scaled(self.napkin(actions, features))

    def scaled(self, hints: Tensor) -> Tensor:
        """Hints as a network takes them."""
        return ((hints - self.hints_mean) / self.hints_std).clamp(-6, 6)

    def loss(self, actions: Tensor, features: Tensor, observed: Tensor) -> tuple[Tensor, float]:
        """(loss, mean error of the figures) on observations [B, 5 + ...]; learns the usual error into `spread`."""
        counts, broken, hints = self._forward(actions, features)
        error = self._figures(counts, hints, features) - observed[:, :FIGURES]
        parts = (counts - self._counts(observed, features, hints)) / self.counts_std
        unsound = (observed[:, VIOLATION] > 0).float().expand(broken.shape)
        loss = 20 * F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02)
        loss = loss + 0.3 * F.smooth_l1_loss(parts, torch.zeros_like(parts), beta=0.2)
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(broken, unsound)
        with torch.no_grad():
            sound = (1 - unsound)[..., None]
            typical = (error.abs() * sound).sum((0, 1)) / sound.sum().clamp(min=1)
            self.spread.lerp_(typical, 0.01)
        return loss, float(typical.mean())

    def _forward(self, actions, features):
        hints = self.napkin(actions, features)
        inputs = ((features - self.features_mean) / self.features_std).clamp(-6, 6).expand(len(actions), -1)
        out = self.net(inputs, actions, self.scaled(hints))
        counts = hints[:, : len(COUNTS)] + self.counts_mean + out[..., :-1] * self.counts_std
        return counts, out[..., -1], hints

    def _physics(self, features, name):
        return features[:, self._column[f"ln_{name}"]]

    def _figures(self, counts, hints, features):
        """What counts come to on the scenario's node."""
        def node(name):
            return self._physics(features, name)

        hertz = hints[:, CLOCK]
        speed = hertz - counts[..., :CYCLES].logsumexp(-1)
        logic, sram, rom = (counts[..., i] for i in (_LOGIC, _SRAM, _ROM))
        area = [logic - node("gates_mm2"), sram - node("sram_bits_mm2"), rom - node("rom_bits_mm2")]
        pico, femto = -12 * _LN10, -15 * _LN10
        power = [counts[..., _READS] + node("rom_fj_bit") + speed + femto,
                 counts[..., _WORK] + node("energy_scale") + speed + pico,
                 counts[..., _NETWORK] + node("energy_scale") + speed + pico,
                 counts[..., _FLIPS] + node("energy_scale") + hertz + femto,
                 logic + node("leakage_pw_gate") + pico, sram + node("leakage_pw_sram_bit") + pico,
                 rom + node("leakage_pw_rom_bit") + pico]
        area, power = (torch.stack(parts, -1).logsumexp(-1) for parts in (area, power))
        return torch.stack([speed, power, area - self.border], -1)

    def _counts(self, observed, features, hints):
        """The counts [B, ...] that were observed: `_figures` undone, part by part."""
        seen, hertz = observed.double(), hints[:, CLOCK].double()
        speed, power, area = seen[:, 0], seen[:, 1], seen[:, 2]

        def node(name):
            return self._physics(features, name).double()

        def part(whole, prefix, *names):
            return whole + sum(seen[:, _AT[f"{prefix}_{name}"]] for name in names).clamp(min=1e-9).log()

        pico, femto = -12 * _LN10, -15 * _LN10
        made = [part(hertz - speed, "cycles", name) for name in COUNTS[:CYCLES]]
        made += [part(area, "area", *names) + node(density) for names, density in _AREA]
        made += [part(power, "power", "weights", "programs") - node("rom_fj_bit") - speed - femto,
                 part(power, "power", *_UNITS) - node("energy_scale") - speed - pico,
                 part(power, "power", "network") - node("energy_scale") - speed - pico,
                 part(power, "power", "clock") - node("energy_scale") - hertz - femto]
        return torch.stack(made, 1).float()

    @staticmethod
    def _inside(observed):
        """ln of the share of a die within pads and seal."""
        return observed[:, [_AT[f"area_{name}"] for names, _ in _AREA for name in names]].sum(1).log()

    def state_dict(self) -> dict:
        return {"net": self.net.state_dict(), "scales": [getattr(self, name) for name in SCALES]}

    def load_state_dict(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        for name, value in zip(SCALES, state["scales"], strict=True):
            setattr(self, name, value.clone())
