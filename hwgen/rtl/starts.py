"""What a tile knows of its streams: their tokens, whose instruction it is, and how to choose among them."""

from amaranth.hdl import Array
from amaranth.lib import data

POSITION_BITS, TOKEN_BITS = 20, 20
UNITS = 3


def stream_bits(streams: int) -> int:
    """Width of a stream's number; 0 where there is one."""
    return (streams - 1).bit_length()


def push_bits(streams: int) -> int:
    """Width of whom an instruction tells that it is complete: a bit for each unit, above them its stream."""
    return UNITS + stream_bits(streams)


def start_layout(streams: int) -> data.StructLayout:
    """A request to run the program, one cycle of `valid`; `idle` streams have no token. By stream, flat."""
    return data.StructLayout({
        "valid": 1, "clear": 1, "token": TOKEN_BITS * streams, "position": POSITION_BITS * streams,
        "output": streams, "logits": streams, "idle": streams,
    })


def of_stream(values, stream, streams: int):
    """The part of `values`, equal parts side by side, that belongs to `stream`."""
    if streams == 1:
        return values
    width = len(values) // streams
    return Array(values[width * s : width * (s + 1)] for s in range(streams))[stream]
