"""The image part of a vision-language model: a SigLIP tower, pixel shuffle and connector, counted but not emitted.

`hwgen generate` builds the language part; the tower counts in parameters, weights and time to the first token.
"""

from dataclasses import dataclass

from explore.operator import Operator
from hwgen.errors import HwgenError, shown

DEFAULTS = {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
            "num_channels": 3, "image_size": 224, "patch_size": 32}
"""What the Hugging Face Idefics3 and SmolVLM vision configurations assume for keys that a file leaves out."""
LARGEST = 1 << 16
"""Size beyond which a file is damaged rather than a tower large."""
_MOST_MACS = 1 << 60
"""What the evaluator's whole numbers hold, with room."""


@dataclass(frozen=True)
class VisionTower:
    """A tower for one square image, `shuffle` x `shuffle` patches joined into each token of width `text_hidden`."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    channels: int
    image: int
    patch: int
    shuffle: int
    text_hidden: int

    @property
    def patches(self) -> int:
        """Patches of one image, all computed by the tower."""
        return (self.image // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image that the language part reads, after pixel shuffle."""
        return self.patches // self.shuffle**2

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Matrix products with weights; `count` is for one image."""
        each = self.layers * self.patches
        h = self.hidden
        return (
            Operator("patch", "vision", h, self.channels * self.patch**2, self.patches),
            Operator("vision_qkv", "vision", 3 * h, h, each, ("patch", "vision_fc2"), copies=self.layers),
            Operator("vision_o", "vision", h, h, each, ("vision_qkv",), copies=self.layers),
            Operator("vision_fc1", "vision", self.ffn, h, each, ("vision_o",), copies=self.layers),
            Operator("vision_fc2", "vision", h, self.ffn, each, ("vision_fc1",), copies=self.layers),
            Operator("connector", "vision", self.text_hidden, h * self.shuffle**2, self.tokens, ("vision_fc2",)),
        )

    @property
    def parameters(self) -> int:
        """Weights, biases (none in the connector), positions and LayerNorm gains and offsets."""
        h, weights = self.hidden, sum(o.weights for o in self.operators)
        return weights + self.layers * (9 * h + self.ffn) + 3 * h + self.patches * h

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image: every patch attends to every patch."""
        attention = 2 * self.layers * self.patches**2 * self.hidden
        return attention + sum(o.macs for o in self.operators)


def read_vision(raw: dict, text_hidden: int, name: str) -> VisionTower | None:
    """The tower in a parsed config.json, or None. Raises HwgenError for sizes that form no tower."""
    vision = raw.get("vision_config")
    if vision is None:
        return None
    if not isinstance(vision, dict):
        raise HwgenError(f"Model {name!r} is not supported: vision_config must be an object, not {shown(vision)}")
    sizes = {key: vision.get(key, value) for key, value in DEFAULTS.items()} | {
        "scale_factor": raw.get("scale_factor", 2)}
    for key, value in sizes.items():
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise HwgenError(f"Model {name!r} is not supported: {key} must be a whole number from 1 to {LARGEST}, "
                             f"not {shown(value)}")
    side = sizes["image_size"] // sizes["patch_size"]
    if side < 1 or side % sizes["scale_factor"]:
        raise HwgenError(f"Model {name!r} is not supported: scale_factor must divide the {side} patches of a side, "
                         f"not be {sizes['scale_factor']}")
    tower = VisionTower(
        layers=sizes["num_hidden_layers"], hidden=sizes["hidden_size"], ffn=sizes["intermediate_size"],
        heads=sizes["num_attention_heads"], channels=sizes["num_channels"], image=sizes["image_size"],
        patch=sizes["patch_size"], shuffle=sizes["scale_factor"], text_hidden=text_hidden)
    if tower.macs >= _MOST_MACS:
        raise HwgenError(f"Model {name!r} is not supported: an image must take fewer than {_MOST_MACS:.2g} "
                         f"multiply-accumulates of its tower, not {tower.macs:.2g}")
    return tower
