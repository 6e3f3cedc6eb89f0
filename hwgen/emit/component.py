"""One component alone, as `hwgen rtl` writes it: its knobs in, its Verilog out."""

import difflib

from hwgen.arithmetic.mxfp4 import FORMATS
from hwgen.compiler.compile import ADDRESS_LIMITS, IMEM_WORDS
from hwgen.compiler.words import rom_word_bytes, word_bytes
from hwgen.design import CHIP_RULES, TILE_RULES, Design, Rule, TileClass, check_knob
from hwgen.emit.chip import NETWORK, TileKind, address_bits, lint_waivers, tile_component
from hwgen.emit.templates import render
from hwgen.emit.verilog import module_files
from hwgen.errors import HwgenError, shown
from hwgen.rtl.matrix_unit import MatrixUnit
from hwgen.rtl.router import Router
from hwgen.rtl.vector_unit import VectorUnit

KNOBS = {
    "router": NETWORK,
    "tile": ("fetch", "stations", "vlen", "lanes", "weights", "dmem_kib", "imem_kib", "wmem_kib", "streams", *NETWORK),
    "matrix-unit": ("vlen", "weights", "streams"),
    "vector-unit": ("lanes", "vlen", "streams"),
    "rom": ("vlen", "weights", "wmem_kib"),
}
"""Component -> knobs that change its Verilog. In a chip `weights` is the integer graph's, not the design's."""
_RULES = CHIP_RULES | TILE_RULES | {"weights": Rule(lambda v: v in FORMATS, " or ".join(FORMATS), FORMATS)}
_DEFAULTS = {
    **{key: getattr(Design(4, 4), key) for key in (*NETWORK, "streams")},
    **{key: getattr(TileClass("tile"), key) for key in ("fetch", "stations", "vlen", "lanes")},
    "weights": "mxint8",
    "dmem_kib": 64, "imem_kib": 32, "wmem_kib": 128,
}


def parse_settings(kind: str, texts: list[str]) -> dict:
    """Knobs from `key=value` texts, as `component_files` wants them. Raises HwgenError as it does, and for doubles."""
    _check_kind(kind)
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise HwgenError(f"--set must be key=value, not {shown(text)}")
        if key in settings:
            raise HwgenError(f"--set {key} must be given once, not twice")
        settings[key] = _checked(kind, key, value)
    return settings


def component_files(kind: str, settings: dict) -> dict[str, str]:
    """Verilog of one component with its file list and waivers: {path: text}; its top module is `kind` with underscores.

    `settings` gives knobs of the design file (text as on the command line, or values); others have the design file's
    defaults. Raises HwgenError for an unknown component, knob or value.
    """
    _check_kind(kind)
    knobs = {key: _DEFAULTS[key] for key in KNOBS[kind]}
    knobs |= {key: _checked(kind, key, text) for key, text in settings.items()}
    try:
        files = _rom(knobs) if kind == "rom" else module_files({kind.replace("-", "_"): _component(kind, knobs)})
    except ValueError as error:
        raise HwgenError(str(error)) from None
    file_list = "".join(f"{name}\n" for name in files)
    return {**files, "filelist.f": file_list, "lint.vlt": lint_waivers([] if kind == "rom" else list(files))}


def _check_kind(kind):
    if kind not in KNOBS:
        raise HwgenError(f"Component must be {', '.join(KNOBS)}, not {shown(kind)}{_nearest(kind, KNOBS)}")


def _checked(kind, key, text):
    """The value of a knob, if the component has the knob and the knob the value."""
    if key not in KNOBS[kind]:
        raise HwgenError(f"{kind} setting must be {', '.join(KNOBS[kind])}, not {shown(key)}"
                         f"{_nearest(key, KNOBS[kind])}")
    value = _value(text)
    if value == "auto":
        raise HwgenError(f"{key} of a component alone must be a number of KiB, not 'auto': there is no model to fit")
    check_knob(_RULES, key, value)
    return value


def _component(kind, knobs):
    network = {key: value for key, value in knobs.items() if key in NETWORK}
    if kind == "router":
        return Router(**network)
    if kind == "matrix-unit":
        return MatrixUnit(**knobs)
    if kind == "vector-unit":
        return VectorUnit(**knobs)
    tile, streams = _kind(knobs), knobs["streams"]
    # messages reach all of vector memory
    reach = address_bits(tile.vmem_rows * tile.lanes)
    return tile_component(tile, address_bits=reach, streams=streams, **network)


def _kind(knobs):
    """A tile class with the capacities of the knobs: half of the data memory for vectors, a sixteenth for operands."""
    tile = {key: knobs[key] for key in ("fetch", "stations", "vlen", "lanes", "weights")}
    word, rom_word = word_bytes(knobs["vlen"]), rom_word_bytes(knobs["vlen"], knobs["weights"])
    data, program, weights = (int(knobs[f"{memory}_kib"] * 1024) for memory in ("dmem", "imem", "wmem"))
    row = 4 * knobs["lanes"]
    kind = TileKind(
        "tile", **tile, imem_words=max(1, program // (16 * knobs["fetch"])),
        vmem_rows=min(max(1, data // 2 // row), ADDRESS_LIMITS["vmem"] // knobs["lanes"]),
        xmem_words=max(1, data // 16 // word), kvmem_words=max(1, data * 7 // 16 // word),
        rom_words=max(1, weights // rom_word),
    )
    for knob, words, limit in (
            ("imem_kib", kind.imem_words, IMEM_WORDS), ("wmem_kib", kind.rom_words, ADDRESS_LIMITS["rom"]),
            ("dmem_kib", kind.xmem_words, ADDRESS_LIMITS["xmem"]),
            ("dmem_kib", kind.kvmem_words, ADDRESS_LIMITS["kvmem"])):
        if words > limit:
            raise HwgenError(f"{knob} must give at most {limit} words, which instructions can address, not {words}")
    return kind


def _rom(knobs):
    kind = _kind(_DEFAULTS | knobs)
    shape = {"width": kind.rom_width, "depth": kind.rom_words, "address": address_bits(kind.rom_words)}
    return {"rom.v": render("rom.v.j2", **shape)}


def _value(text):
    """The value that a YAML file would have for this text."""
    if not isinstance(text, str):
        return text
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _nearest(word, valid):
    close = difflib.get_close_matches(word, valid, 1, 0)
    return f" (did you mean {close[0]}?)" if close else ""
