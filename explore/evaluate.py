"""The evaluator: speed, power, area and cost of whole batches of designs, in closed form per tile class.

Everything is float64 and made of the same operations on every device, so that CPU and CUDA agree; gradients reach
every ordinal and continuous knob but the number of pipeline stages (rounding passes them on).
"""

from dataclasses import dataclass
from functools import cache

from torch import Tensor

from explore.area import area_mm2
from explore.cycles import Overheads, cycles
from explore.energy import power_w
from explore.limits import Reason, violations
from explore.logic_area import gates
from explore.network_load import packets
from explore.scenario import Scenario
from explore.space import Knobs, Space, knobs_of
from explore.tile_load import tile_load
from hwgen.design import Design

LIFE_SECONDS = 3 * 365.25 * 24 * 3600
"""Time over which a die is written off: three years of work."""
USD_PER_JOULE = 0.10 / 3.6e6
"""10 cents a kWh."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of a batch of designs, tensors [B].

    `tok_s`: tokens/s of the chip, all streams together; `tok_s_stream` of one. `latency_s`: seconds from a token of a
    stream to its next, a step. `cycles` of a step. `ttft_s`: from START to the first answer, prompt and image included,
    while all streams run, but for the image tower, which counts for one stream's image. `power`: W, and `power_parts`
    by what draws it. `area`: mm2, and `area_parts`. `energy_per_token`: J, leakage included. `cost`: USD a good die;
    `cost_per_mtok`: USD per million tokens, three years' write-off and energy. `violation`: summed relative excess over
    limits and budgets; `feasible` where it is 0; `reasons`: bits of `limits.Reason`.
    `floor_power`: W that reading weights and KV cache once a token, as if all were ROM, takes at that speed;
    `peak_tok_s`: what the multipliers allow.
    """

    tok_s: Tensor
    tok_s_stream: Tensor
    latency_s: Tensor
    ttft_s: Tensor
    cycles: Tensor
    cycle_parts: dict[str, Tensor]
    power: Tensor
    power_parts: dict[str, Tensor]
    area: Tensor
    area_parts: dict[str, Tensor]
    energy_per_token: Tensor
    cost: Tensor
    cost_per_mtok: Tensor
    floor_power: Tensor
    peak_tok_s: Tensor
    violation: Tensor
    feasible: Tensor
    reasons: Tensor

    def reasons_of(self, index: int) -> list[str]:
        """Sentences that say why one design is refused."""
        bits = int(self.reasons[index])
        return [reason.sentence for reason in Reason if bits & reason.bit]


@cache
def default_space() -> Space:
    """The space of `evaluate` where none is given: up to three tile classes."""
    return Space(3)


def evaluate(designs: Tensor, scenario: Scenario, space: Space | None = None, *,
             overheads: Overheads | None = None) -> Evaluation:
    """The figures of `designs` [B, D], rows of `space`."""
    return evaluate_knobs((space or default_space()).values(designs), scenario, overheads=overheads)


def evaluate_design(design: Design, scenario: Scenario) -> Evaluation:
    """The figures of one design, a batch of one; its classes may lie anywhere on the mesh.

    With pipeline stages every class is taken to have its part of each stage: `place` refuses a design where one that
    lies in rows leaves a stage without a share, which is not looked for here.
    """
    return evaluate_knobs(knobs_of(design), scenario)


def evaluate_knobs(knobs: Knobs, scenario: Scenario, *, overheads: Overheads | None = None) -> Evaluation:
    """The figures of designs given by the values of their knobs."""
    load = tile_load(knobs, scenario)
    form = packets(knobs, load.reach)
    timing = cycles(knobs, load, form, scenario, scenario.at, overheads=overheads)
    read = scenario.prompt + scenario.workload.image_tokens
    reading = cycles(knobs, load, form, scenario, (read - 1) // 2, output=False, overheads=overheads)
    hertz = knobs.clock_mhz[:, 0] * 1e6
    latency = timing.total / hertz
    tok_s = knobs.streams[:, 0] / latency
    logic = gates(knobs, mxfp4=bool(scenario.workload.mxfp4))
    area_parts = area_mm2(knobs, load, logic, scenario)
    area = sum(area_parts.values())
    power_parts = power_w(knobs, load, form, logic, timing, area, scenario)
    power = sum(power_parts.values())
    workload = scenario.workload
    lanes = (knobs.nodes * knobs.vlen).sum(1)
    tower = workload.vision.macs / lanes if workload.vision else 0.0
    ttft = (reading.total * read + timing.head - reading.head + tower) / hertz
    dies = scenario.node.good_dies(area.clamp(max=20000.0)).clamp(min=1e-3)
    cost = scenario.node.wafer_usd / dies
    floor = scenario.node.rom_fj_bit * 1e-15 * 8 * workload.bytes_per_token(scenario.at) * tok_s
    excess, reasons = violations(knobs, load, form, scenario, area, power, latency)
    return Evaluation(
        tok_s=tok_s, tok_s_stream=1 / latency, latency_s=latency, ttft_s=ttft, cycles=timing.total,
        cycle_parts=timing.parts, power=power, power_parts=power_parts, area=area, area_parts=area_parts,
        energy_per_token=power / tok_s, cost=cost,
        cost_per_mtok=1e6 / tok_s * (cost / LIFE_SECONDS + power * USD_PER_JOULE), floor_power=floor,
        peak_tok_s=hertz * lanes / workload.macs_per_token(scenario.at), violation=excess, feasible=excess == 0,
        reasons=reasons)
