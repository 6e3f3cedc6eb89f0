"""A scenario as the agent sees it: features before any design, and outcomes with observations after one."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import log

import torch
from torch import Tensor

from explore.action import Codec
from explore.evaluate import Evaluation, evaluate
from explore.goal import Goals
from explore.limits import Reason, clock_limit_mhz
from explore.napkin import Napkin
from explore.practice import Practice, random_actions
from explore.scenario import Scenario
from explore.space import Space

POWER_PARTS = ("weights", "programs", "multipliers", "operands", "cache", "vector", "network", "clock", "leakage")
AREA_PARTS = ("matrix", "vector", "control", "router", "weights", "vision", "programs", "data", "periphery")
CYCLE_PARTS = ("embedding", "projections", "attention", "feed_forward", "head", "gathers")
OBSERVATIONS = (
    "ln_tok_s", "ln_power", "ln_area", "ln_latency", "violation", "ln_ttft", "ln_energy", "utilisation",
    *(f"power_{p}" for p in POWER_PARTS), *(f"area_{p}" for p in AREA_PARTS), *(f"cycles_{p}" for p in CYCLE_PARTS),
    *(f"broken_{r.name.lower()}" for r in Reason))
"""What an evaluation shows the agent: the first five are the outcome that goals score, the rest shares from 0 to 1."""


def observe(result: Evaluation) -> Tensor:
    """[B, len(OBSERVATIONS)] in single precision."""
    logs = [result.tok_s.log(), result.power.log(), result.area.log(), result.latency_s.log(),
            result.violation.clamp(max=1e6), result.ttft_s.log(), result.energy_per_token.log(),
            result.tok_s / result.peak_tok_s]
    shares = [parts.get(name, torch.zeros_like(whole)) / whole for names, parts, whole in (
        (POWER_PARTS, result.power_parts, result.power), (AREA_PARTS, result.area_parts, result.area),
        (CYCLE_PARTS, result.cycle_parts, result.cycles)) for name in names]
    broken = [((result.reasons & reason.bit) > 0).double() for reason in Reason]
    return torch.stack([*logs, *shares, *broken], 1).float().nan_to_num(0, 40, -40)


def scenario_features(scenario: Scenario) -> dict[str, float]:
    """What is known before any design, in the paper's groups, and the physics of the node; goals are apart."""
    w, n, at = scenario.workload, scenario.node, scenario.at
    c, p = w.config, w.program
    macs = w.macs_per_token(at)
    cached = sum(o.macs for o in w.cached_operators(at))
    sizes = {f"ln_{k}": log(getattr(c, k)) for k in
             ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab")}
    workload = {
        "ln_instructions": log(p.instructions), "parallelism": log(p.parallelism), "matmul_ratio": p.matrix_share,
        "memory_intensity": w.bytes_per_token(at) / macs, "vector_utilisation": cached / macs}
    hazards = {"raw": p.raw / p.instructions, "war": p.war / p.instructions, "waw": p.waw / p.instructions}
    model = {
        "ln_parameters": log(w.parameters), "ln_macs": log(macs), "ln_weight_bytes": log(w.weight_bytes),
        "ln_context": log(scenario.context), "ln_position": log(at + 1), "ln_prompt": log(scenario.prompt),
        "ln_kv_bytes": log(w.kv_bytes_per_token), "ln_cache_bytes": log(w.kv_bytes_per_token * scenario.context),
        "tied": float(c.tied), "image_tokens": w.image_tokens / 64,
        "ln_vision_macs": log(w.vision.macs / 1e9 + 1) if w.vision else 0.0}
    precision = {"bits_per_weight": 8 * w.weight_bytes / w.weight_elements,
                 "kv_share_of_fp16": w.kv_bytes_per_token / w.kv_bytes_fp16}
    area = {"ln_rom_mm2": log(8 * (w.weight_bytes + w.vision_weight_bytes) / n.rom_bits_mm2(scenario.rom_anchor)),
            "ln_cache_mm2": log(8 * w.kv_bytes_per_token * scenario.context / n.sram_bits_mm2)}
    physics = {f"ln_{k}": log(getattr(n, k)) for k in (
        "gates_mm2", "sram_bits_mm2", "energy_scale", "rom_fj_bit", "leakage_pw_gate", "leakage_pw_sram_bit",
        "leakage_pw_rom_bit", "vdd", "delay_scale")}
    physics |= {"ln_rom_bits_mm2": log(n.rom_bits_mm2(scenario.rom_anchor)),
                "ln_clock_limit": log(clock_limit_mhz(scenario))}
    return workload | sizes | hazards | model | precision | area | physics


@dataclass(frozen=True)
class Problem:
    """A scenario in a space, by actions of a codec."""

    scenario: Scenario
    codec: Codec

    @property
    def space(self) -> Space:
        return self.codec.space

    @cached_property
    def features(self) -> Tensor:
        return torch.tensor(list(scenario_features(self.scenario).values()))

    @property
    def goal(self) -> Goals:
        """The scenario's own goal."""
        s = self.scenario
        return Goals.of(s.weights, (s.power_max, s.area_max, s.latency_max))

    def evaluate_designs(self, designs: Tensor) -> Evaluation:
        """Rows [B, D] of the space, weighed without budgets: those belong to the goal."""
        return evaluate(designs, self._unlimited, self.space)

    def figures(self, action: Tensor) -> Evaluation:
        """All figures of actions [B, A], the scenario's budgets among the limits."""
        return evaluate(self.codec.designs(action), self.scenario, self.space)

    @cached_property
    def _unlimited(self) -> Scenario:
        return replace(self.scenario, power_max=None, area_max=None, latency_max=None)

    def canonical(self, actions: Tensor) -> Tensor:
        """Actions that stand for the same chips, equal for equal ones."""
        return self.codec.canonical(actions)

    def random_actions(self, count: int, generator: torch.Generator) -> Tensor:
        """Canonical ones, uniform over the settings of every knob."""
        return self.canonical(random_actions(self.codec.shape, count, generator))

    def within_clock(self, actions: Tensor) -> Tensor:
        """Canonical actions whose clock is at most what the node and the system allow."""
        actions, labels = self.canonical(actions), self.codec.labels()
        if "clock_mhz" not in labels:
            return actions
        knob = labels.index("clock_mhz")
        low, high = (log(v) for v in self.codec.ordinals[knob].values)
        limit = 2 * (log(clock_limit_mhz(self.scenario)) - low) / (high - low) - 1
        actions[:, knob] = actions[:, knob].clamp(max=max(-1.0, limit - 1e-5))
        return actions

    @cached_property
    def hints(self) -> Napkin:
        return Napkin(self.codec, tuple(scenario_features(self.scenario)))

    def practice(self, name: str, seed: int) -> Practice:
        """The scenario to learn on."""
        return Practice(name, self.features, self.codec.shape, len(OBSERVATIONS), self.outcomes, seed=seed,
                        hints=self.hints)

    def outcomes(self, actions: Tensor) -> Tensor:
        """[B, len(OBSERVATIONS)] of actions [B, A]; the first five columns are the outcome."""
        return observe(self.evaluate_designs(self.codec.designs(actions)))
