"""The front door for model files: a Hugging Face folder or a GGUF file in, one `FloatModel` out."""

from pathlib import Path

from hwgen.errors import HwgenError
from hwgen.float_model import FloatModel
from hwgen.load_gguf import load_gguf
from hwgen.load_hf import load_hf

__all__ = ["FloatModel", "load"]

_RULE = "Model must be a Hugging Face folder, a GGUF file or an undamaged file that `hwgen quantize` wrote"


def load(path: str | Path, *, weights: bool = True) -> FloatModel:
    """Reads the model at `path`: a Hugging Face folder (or its config.json) or a GGUF file.

    With `weights=False` the sizes are enough: `tensors` is empty, and a folder needs only its config.json.
    Names, shapes and types are checked here; values when a tensor is read, so memory stays bounded.
    Raises `HwgenError` for whatever is missing, damaged or not supported, all reasons in one error.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return load_hf(path, weights=weights)
        if path.name == "config.json" and path.is_file():
            return load_hf(path.parent, weights=weights)
        if not path.exists():
            raise HwgenError(f"{_RULE}, not {str(path)!r}, which does not exist")
        if _is_gguf(path):
            return load_gguf(path, weights=weights)
    except OSError as error:
        raise HwgenError(f"Model {str(path)!r} cannot be read: {error.strerror or error}") from error
    raise HwgenError(f"{_RULE}, not {str(path)!r}, which is of another kind or damaged")


def _is_gguf(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF" or path.suffix == ".gguf"
