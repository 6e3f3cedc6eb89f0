"""Where sums could leave Q19.12: worst-case bounds of a graph's products, the window, what calibration saw."""

from __future__ import annotations

import numpy as np

from hwgen.arithmetic.mx import BLOCK, ELEMENT_FRACTION, SCALE_BIAS, Mx
from hwgen.errors import HwgenError
from hwgen.integer_graph import IntegerGraph, matrix_shape

WINDOW = 2.0**19
"""Q19.12 holds magnitudes below this."""
HEADROOM = 4.0
"""What calibration must leave free of the window where the worst case does not fit."""
GRAIN = 2.0**-12
_ROUNDING = (1 + 2.0**-7) ** 2
"""Two MXINT8 vectors may both be rounded up."""


def worst_case(graph: IntegerGraph) -> dict[str, float]:
    """Bounds of magnitudes by name: `{layer}.{matrix}`, `{layer}.scores`, `{layer}.sum of values`, `{layer}.residual`,
    `logits`. Every input is taken at the end of its int16 range."""
    config, bounds = graph.config, {}
    residual = 2.0 ** (int(graph.embed.scales.max()) - SCALE_BIAS + 1)
    for i, layer in enumerate(graph.layers):
        fracs = {"qkv": layer.attn_norm_frac, "o": layer.att_frac, "gate": layer.ffn_norm_frac,
                 "up": layer.ffn_norm_frac, "down": layer.h_frac}
        for name, frac in fracs.items():
            rows = _bound(getattr(layer, name), frac, matrix_shape(config, name)[1])
            bounds[f"{i}.{name}"] = float(rows.max())
            if name == "qkv":
                values = rows.reshape(config.kv_heads, -1, config.head_dim)[:, -1].max()
            if name in ("o", "down"):
                residual += float(rows.max())
        bounds[f"{i}.scores"] = config.head_dim * 2.0 ** (30 - layer.q_frac - layer.k_frac) * _ROUNDING
        bounds[f"{i}.sum of values"] = float(values) * graph.context * _ROUNDING
        bounds[f"{i}.residual"] = residual
    frac = graph.final_norm_frac if graph.head is not None else graph.final_frac
    return bounds | {"logits": float(_bound(graph.output, frac, config.hidden).max())}


def check_window(graph: IntegerGraph, seen: dict[str, float]):
    """HwgenError where the worst case leaves the window and `seen` (same names) leaves less than HEADROOM."""
    bounds = worst_case(graph)
    over = {name: seen[name] for name, bound in bounds.items()
            if not bound < WINDOW and not seen[name] * HEADROOM < WINDOW}
    if over:
        name = max(over, key=lambda n: over[n] if np.isfinite(over[n]) else np.inf)
        raise HwgenError(
            f"Calibrated magnitudes must be below {WINDOW / HEADROOM:.0f} where the worst case exceeds Q19.12, not "
            f"{over[name]:.6g} in {name} (worst case {bounds[name]:.3g}; {len(over)} of {len(bounds)} sums); "
            "--allow-wrap accepts it")


def _bound(w: Mx, frac: int, columns: int) -> np.ndarray:
    """Bound of each row's product with inputs of |value| <= 2^(15 - frac), rounding of the blocks included."""
    blocks = -(-columns // BLOCK)
    size = np.full((w.blocks, BLOCK), 2.0 ** (15 - frac))
    # A bias block meets [1, 1/64, 0...].
    size[blocks:] = 2.0 ** (-ELEMENT_FRACTION * np.minimum(np.arange(BLOCK), 1))
    step = max(1, (1 << 22) // (w.blocks * BLOCK))
    rows = [(_magnitudes(w[start : start + step]) * size).sum((-1, -2)) for start in range(0, len(w.scales), step)]
    return np.concatenate(rows) + w.blocks * GRAIN / 2


def _magnitudes(w: Mx) -> np.ndarray:
    scale = np.ldexp(1.0, w.scales.astype(np.int64) - SCALE_BIAS - ELEMENT_FRACTION)
    return np.abs(w.elements.astype(np.float64)) * scale[..., None]
