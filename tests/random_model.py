"""Small models with random weights, among them large outliers."""

import numpy as np

from hwgen.float_model import FloatModel
from hwgen.model_config import ModelConfig, tensor_shapes

_SIZES = ("vocab", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn")
SHAPES = {
    "odd sizes": (50, 40, 2, 6, 2, 24, 52),
    "untied, biases": (33, 32, 1, 2, 2, 4, 32),
    "wide heads": (40, 64, 1, 2, 1, 48, 70),
}


def random_model(shape: str, *, seed: int = 0, outlier: float = 1.0) -> FloatModel:
    """A model of one of SHAPES; one weight in fifty is `outlier` times larger."""
    biases = "biases" in shape
    config = ModelConfig(
        **dict(zip(_SIZES, SHAPES[shape], strict=True)), tied="untied" not in shape, attention_bias=biases,
        output_bias=biases, mlp_bias=biases, norm_eps=1e-5, max_context=70, bos=1, eos_ids=(2,))
    random = np.random.default_rng(seed)
    tensors = {}
    for name, size in tensor_shapes(config).items():
        values = random.standard_normal(size) * (1 if len(size) == 1 or name == "embed" else size[-1] ** -0.5)
        tensors[name] = (values * np.where(random.random(size) < 0.02, outlier, 1)).astype(np.float32)
    return FloatModel(config, tensors, None, "random")
