"""Rough figures of a design, as one would write on a napkin: what critics and surrogate see besides the knobs.

Rows over multipliers for time, gates for area, clocked gates for power. The networks learn what is wrong with them;
the evaluator (`explore/evaluate.py`) is neither asked nor imported, and every choice here is free of consequence for
what a design is worth.
"""

import torch
from torch import Tensor

from explore.action import Codec
from hwgen.design import SHARES

HINTS = 16
_NEEDED = ("ln_layers", "ln_hidden", "ln_ffn", "ln_heads", "ln_kv_heads", "ln_head_dim", "ln_vocab", "ln_position",
           "ln_context", "ln_rom_mm2", "ln_cache_mm2", "ln_gates_mm2", "ln_sram_bits_mm2", "ln_energy_scale",
           "ln_leakage_pw_gate", "ln_leakage_pw_sram_bit", "ln_leakage_pw_rom_bit", "ln_rom_fj_bit", "ln_macs",
           "ln_rom_bits_mm2")


class Napkin:
    """`features`: names of a scenario's features in their order."""

    def __init__(self, codec: Codec, features: tuple[str, ...]):
        self.codec, self.at = codec, [features.index(name) for name in _NEEDED]

    def __call__(self, actions: Tensor, features: Tensor) -> Tensor:
        """[B, 16] for actions [B, A] and features [B, F] or [1, F]: logarithms, differentiable.

        First speed, power and area as estimated, then tiles, clock, sides, MACs and lanes a cycle, cycles of each part,
        SRAM, clocked and leaking power.
        """
        f = dict(zip((n.removeprefix("ln_") for n in _NEEDED), features[:, self.at].exp().unbind(1), strict=True))
        v = self.codec.numbers(actions)
        tiles = (v["width"] * v["height"])[:, None]
        nodes = tiles * v["part"] / v["part"].sum(1, keepdim=True).clamp(min=1e-3)
        nodes = nodes * (nodes.detach() >= 0.5)
        present = (nodes > 0).float()
        vlen, lanes = v["vlen"], v["lanes"]
        weight = {name: vlen * v[name] * present for name in SHARES}
        few_lanes = torch.where(present > 0, lanes, torch.full_like(lanes, 64.0)).amin(1)
        able = (nodes * (weight["attention"] > 0)).sum(1).clamp(min=1)
        parts = self._cycles(f, v, weight, nodes, vlen, few_lanes, able)
        layers = f["layers"]
        cycles = sum(parts) + layers * 300
        hertz = v["clock_mhz"].exp() * 1e6
        tok_s = hertz / cycles
        wires = v["flit_bits"] * (v["buffer_flits"] * 12 + 155)
        gates = (nodes * (40_000 + 595 * vlen + 15_500 * lanes + 1500 * v["fetch"] + 2300 * v["stations"])).sum(1)
        gates = gates + tiles[:, 0] * wires
        copies = (able / f["kv_heads"]).clamp(min=1).minimum(f["heads"] / f["kv_heads"])
        vector_bits = 32 * tiles[:, 0] * (3 * f["hidden"] + f["ffn"] + 2 * f["heads"] * f["head_dim"] + f["context"])
        vector_bits = vector_bits + 32 * layers * f["kv_heads"] * copies * f["context"]
        sram = f["cache_mm2"] * copies * f["sram_bits_mm2"] + vector_bits
        area = gates / f["gates_mm2"] + sram / f["sram_bits_mm2"] + f["rom_mm2"]
        clocked = gates * 1.08e-15 * f["energy_scale"] * hertz
        leaking = 1e-12 * (gates * f["leakage_pw_gate"] + sram * f["leakage_pw_sram_bit"]
                           + f["rom_mm2"] * f["rom_bits_mm2"] * f["leakage_pw_rom_bit"])
        work = tok_s * f["macs"] * (2e-12 * f["energy_scale"] + 8.25e-15 * f["rom_fj_bit"])
        figures = [tok_s, clocked + leaking + work, area, tiles[:, 0], hertz, v["width"] + v["height"],
                   (nodes * vlen).sum(1), (nodes * lanes).sum(1), few_lanes, *parts, sram, clocked, leaking]
        return torch.stack([x.expand(len(actions)) for x in figures], 1).clamp(min=1e-12).log()

    @staticmethod
    def _cycles(f, v, weight, nodes, vlen, few_lanes, able):
        """Cycles of q, k and v; of o and the feed-forward part; of the head; of attention with vectors and gathers."""
        def rows(count, name, *lengths):
            total = (weight[name] * nodes).sum(1, keepdim=True).clamp(min=1e-3)
            exact = count[:, None] * weight[name] / total
            most = exact + (exact.detach().ceil() - exact.detach())
            return (most * sum((length[:, None] / vlen).clamp(min=1) for length in lengths)).amax(1)

        out, layers = f["heads"] * f["head_dim"], f["layers"]
        qkv = layers * rows(out + 2 * f["kv_heads"] * f["head_dim"], "attention", f["hidden"])
        feed = layers * (rows(f["hidden"], "ffn", out, f["ffn"]) + 2 * rows(f["ffn"], "ffn", f["hidden"]))
        head = rows(f["vocab"], "vocabulary", f["hidden"])
        widest = torch.where(weight["attention"] > 0, vlen, torch.ones_like(vlen)).amax(1)
        heads = (f["heads"] / able.minimum(f["heads"])).detach().ceil()
        score = 2 * f["position"] * (f["head_dim"] / widest).clamp(min=1) + 3 * f["position"] / few_lanes
        vectors = (6 * f["hidden"] + out + f["ffn"]) / few_lanes + 120
        words = (2 * f["hidden"] + out + f["ffn"]) / (v["flit_bits"] / 32) + 10 * (v["width"] + v["height"])
        return qkv, feed, head, layers * (heads * score + vectors + words)
