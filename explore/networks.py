"""Networks of the agent: mixed actions, a gated mixture of experts, ensembles for critics and surrogate."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_SIGMA = (-5.0, 1.0)
"""Bounds of log sigma. The paper's [-20, 2] lets sigma die: an ordinal of 64 steps needs no finer than 0.01."""


@dataclass(frozen=True)
class ActionShape:
    """Layout of an action vector: `ordinals` numbers in [-1, 1], then a one-hot group for every category.

    `steps[i]`: settings of ordinal i, evenly spaced; 0 for a continuous one; -n for 1..n spaced by their logarithm.
    `choices[j]`: those of category j.
    """

    steps: tuple[int, ...]
    choices: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.steps) + sum(self.choices)

    def groups(self, x: Tensor) -> tuple[Tensor, ...]:
        """The category groups of [B, size]."""
        return x[:, len(self.steps):].split(list(self.choices), 1) if self.choices else ()

    def snap(self, x: Tensor) -> Tensor:
        """The legal action nearest to any [B, size]: ordinals at their settings, the largest of a group 1."""
        steps = torch.tensor(self.steps, dtype=x.dtype, device=x.device)
        ordinals = x[:, : len(self.steps)].clamp(-1, 1)
        half = ((steps - 1) / 2).clamp(min=0.5)
        even = ((ordinals + 1) * half).round() / half - 1
        log = steps.abs().clamp(min=2).log()
        uneven = ((ordinals + 1) / 2 * log).exp().round().log() / log * 2 - 1
        ordinals = torch.where(steps > 0, even, torch.where(steps < 0, uneven, ordinals))
        ordinals = torch.where(steps == 1, torch.zeros_like(ordinals), ordinals)
        hot = [F.one_hot(g.argmax(1), g.shape[1]).to(x.dtype) for g in self.groups(x)]
        return torch.cat([ordinals, *hot], 1)


class Experts(nn.Module):
    """A dense mixture of two-layer perceptrons; returns the mixed features and the load-balance loss.

    The loss is experts * sum of squared mean gate weights: 1 when every expert is used alike.
    """

    def __init__(self, inputs: int, hidden: int, experts: int):
        super().__init__()
        self.gate = nn.Linear(inputs, experts)
        self.first = nn.Parameter(torch.empty(experts, inputs, hidden))
        self.second = nn.Parameter(torch.empty(experts, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(2, experts, 1, hidden))
        for weight in (self.first, self.second):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.gate(x).softmax(1)
        h = F.gelu(torch.baddbmm(self.bias[0], x.expand(len(self.first), -1, -1), self.first))
        h = F.gelu(torch.baddbmm(self.bias[1], h, self.second))
        balance = gate.shape[1] * gate.mean(0).square().sum()
        return torch.einsum("be,ebh->bh", gate, h), balance


class Actor(nn.Module):
    """State -> distribution over actions: a squashed Gaussian per ordinal, a softmax per category."""

    def __init__(self, inputs: int, shape: ActionShape, hidden: int, experts: int):
        super().__init__()
        self.shape = shape
        self.body = Experts(inputs, hidden, experts)
        self.head = nn.Linear(hidden, 2 * len(shape.steps) + sum(shape.choices))
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, state: Tensor):
        """(mu, log sigma, list of category log-probabilities, load-balance loss)."""
        features, balance = self.body(state)
        n = len(self.shape.steps)
        out = self.head(features)
        low, high = LOG_SIGMA
        log_sigma = low + (high - low) * torch.sigmoid(out[:, n: 2 * n])
        logits = out[:, 2 * n:].split(list(self.shape.choices), 1) if self.shape.choices else ()
        return out[:, :n], log_sigma, [g.log_softmax(1) for g in logits], balance

    def sample(self, state: Tensor, generator: torch.Generator | None = None, given: Tensor | None = None):
        """(legal action with straight-through gradients, its log-probability with the categories' entropy [B],
        load balance, log-density [B] of the `given` actions).
        """
        mu, log_sigma, logs, balance = self(state)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        raw = mu + log_sigma.exp() * noise
        log_prob = (-0.5 * noise.square() - log_sigma - 0.5 * math.log(2 * math.pi)).sum(1)
        log_prob = log_prob - (2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(1)
        soft = [torch.tanh(raw)]
        for log in logs:
            uniform = torch.rand(log.shape, generator=generator, device=log.device).clamp(1e-9, 1 - 1e-7)
            soft.append((log - (-uniform.log()).log()).softmax(1))
            log_prob = log_prob + (log.exp() * log).sum(1)
        soft = torch.cat(soft, 1)
        action = soft + (self.shape.snap(soft.detach()) - soft).detach()
        density = None if given is None else self._density(mu, log_sigma, logs, given)
        return action, log_prob, balance, density

    def _density(self, mu, log_sigma, logs, action):
        wanted = torch.atanh(action[:, : mu.shape[1]].clamp(-0.97, 0.97))
        error = (wanted - mu) / log_sigma.exp()
        total = (-0.5 * error.square() - log_sigma).sum(1)
        for log, hot in zip(logs, self.shape.groups(action), strict=True):
            total = total + (log * hot).sum(1)
        return total

    def mode(self, state: Tensor) -> Tensor:
        """The legal action at the centre of the distribution."""
        mu, _, logs, _ = self(state)
        return self.shape.snap(torch.cat([torch.tanh(mu), *logs], 1))


class Ensemble(nn.Module):
    """Independent perceptrons with two hidden layers, computed together: [B, inputs] -> [members, B, outputs]."""

    def __init__(self, members: int, inputs: int, hidden: int, outputs: int):
        super().__init__()
        widths = [inputs, hidden, hidden, outputs]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(members, a, b) / math.sqrt(a)) for a, b in zip(widths, widths[1:], strict=False))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, b)) for b in widths[1:])

    def forward(self, *parts: Tensor) -> Tensor:
        h = torch.cat(parts, 1).expand(len(self.weights[0]), -1, -1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            h = F.gelu(h) if index < 2 else h
        return h
