"""Safetensors files read tensor by tensor. Done here because the library's numpy side knows no BF16."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwgen.errors import HwgenError

PIECE = 1 << 20
"""Elements compared at a time."""
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its shape, its type as the file spells it, and where its bytes start."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        """The tensor as float32; its type must be one of `DTYPES`."""
        return self.piece(0, math.prod(self.shape)).reshape(self.shape)

    def piece(self, start: int, end: int) -> np.ndarray:
        """Its elements start..end-1, in one row, as float32."""
        kind = DTYPES[self.dtype]
        data = np.memmap(self.file, kind, "r", self.offset + start * kind.itemsize, end - start)
        if self.dtype != "BF16":
            return np.array(data, np.float32)
        # BF16 is the upper half of a float32.
        return (data.astype(np.uint32) << 16).view(np.float32)


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors hold the same numbers, whatever their types; read in pieces, so memory stays bounded."""
    if one.shape != other.shape or not {one.dtype, other.dtype} <= DTYPES.keys():
        return False
    size = math.prod(one.shape)
    parts = ((start, min(start + PIECE, size)) for start in range(0, size, PIECE))
    return all(np.array_equal(one.piece(*part), other.piece(*part)) for part in parts)


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of `file` by name, without their values; raises `HwgenError` if it is truncated or damaged."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise HwgenError(f"Weight file {str(file)!r} is truncated or not safetensors: its header does not fit "
                             f"in {size} bytes")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        found = {name: _entry(file, 8 + length, entry) for name, entry in header.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise HwgenError(f"Weight file {str(file)!r} must be safetensors, not damaged in its header ({error})"
                         ) from error
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise HwgenError(f"Weight file {str(file)!r} is truncated: it must hold {end} bytes, not {size}")
    return found


def _entry(file: Path, start: int, entry: dict) -> StoredTensor:
    (first, end), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    if not all(type(value) is int and value >= 0 for value in (first, end, *shape)) or type(dtype) is not str:
        raise ValueError("offsets and shape must be whole numbers")
    if dtype in DTYPES and end - first != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{list(shape)} of {dtype} cannot take {end - first} bytes")
    return StoredTensor(file, start + first, shape, dtype)
