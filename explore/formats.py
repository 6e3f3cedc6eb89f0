"""What a format of weights costs in accuracy, measured, to be named wherever such a design is shown."""

from hwgen.integer_graph import MATRICES

MEASURED = {
    ("mxint8", "mxint8"): (0.0064, 0.957), ("mxfp4", "mxint8"): (0.213, 0.771),
    ("mxint8", "mxfp4"): (0.078, 0.840), ("mxfp4", "mxfp4"): (0.277, 0.734),
}
"""(layers, embedding and head) -> (KL, top-1) against float of stories260K, 20,480 tokens: `hwgen quantize --json`."""


def format_note(mxfp4: frozenset[str]) -> str:
    """Sentences about the formats of a workload: how to quantise to them, and what they cost on a model."""
    chosen = ("mxfp4" if mxfp4 & set(MATRICES) else "mxint8", "mxfp4" if "embed" in mxfp4 else "mxint8")
    kl, top1 = MEASURED[chosen]
    best_kl, best_top1 = MEASURED["mxint8", "mxint8"]
    note = f"hwgen quantize --weights {chosen[0]} --head {chosen[1]}. "
    if chosen == ("mxint8", "mxint8"):
        return note + f"On stories260K this has KL {kl:g} and top-1 {top1:.1%} against float."
    return note + (f"On stories260K, rounded to nearest, this has KL {kl:g} and top-1 {top1:.1%} against float, MXINT8 "
                   f"{best_kl:g} and {best_top1:.1%}: MXFP4 is for models trained or calibrated for it.")
