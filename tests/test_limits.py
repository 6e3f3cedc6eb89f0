"""What the compiler refuses the evaluator refuses, for its reason, and neither refuses a word earlier."""

import pytest

from explore.evaluate import evaluate_design
from explore.limits import Reason
from explore.scenario import Scenario
from explore.workload import Workload
from hwgen.compiler.compile import compile_chip
from hwgen.design import Design, TileClass
from hwgen.errors import HwgenError
from hwgen.integer_graph import shape_only
from hwgen.model_config import ModelConfig

SMALL = {"vocab": 100, "hidden": 32, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 32,
         "norm_eps": 1e-5, "max_context": 1 << 20, "tied": True}


def _reasons(design, config, context):
    return evaluate_design(design, Scenario(Workload("small", config), 3, context=context, prompt=1)).reasons_of(0)


def _agree(design, config, context, reason, message):
    """Both refuse with `reason` and `message`, or, where that is None, neither."""
    config = ModelConfig(**SMALL | config)
    assert _reasons(design, config, context) == ([] if message is None else [reason.sentence])
    if message is None:
        compile_chip(shape_only(config, context), design)
    else:
        with pytest.raises(HwgenError, match=message):
            compile_chip(shape_only(config, context), design)


STRIDE = r"COPY stride must be 0 to 4095, not 4096, in the program of tile 0,0 with vlen {} and context {}$"
KWORDS = r"MATMUL kwords must be 0 to 4095, not {}, in the program of tile 0,0 with vlen 8 and context 8$"


@pytest.mark.parametrize(("vlen", "context", "config", "reason", "message"), [
    (8, 32760, {}, Reason.KV, None), (8, 32761, {}, Reason.KV, STRIDE.format(8, 32761)),
    (16, 65520, {}, Reason.KV, None), (16, 65521, {}, Reason.KV, STRIDE.format(16, 65521)),
    (8, 8, {"ffn": 32760}, Reason.XMEM, None), (8, 8, {"ffn": 32761}, Reason.XMEM, KWORDS.format(4096)),
    (8, 8, {"hidden": 32760}, Reason.XMEM, None), (8, 8, {"hidden": 32761}, Reason.XMEM, KWORDS.format(4096)),
    (8, 8, {"heads": 39, "head_dim": 840}, Reason.XMEM, None),
    (8, 8, {"heads": 40, "head_dim": 840}, Reason.XMEM, KWORDS.format(4200)),
    (8, 8, {"ffn": 32736, "mlp_bias": True}, Reason.XMEM, None),
    (8, 8, {"ffn": 32737, "mlp_bias": True}, Reason.XMEM, KWORDS.format(4097)),
])
def test_words_that_no_field_of_an_instruction_holds(vlen, context, config, reason, message):
    _agree(Design(1, 1, classes=(TileClass("t", vlen=vlen),)), config, context, reason, message)


TWO = Design(2, 1, streams=2, classes=(TileClass("t", vlen=256),))
ONE = Design(1, 1, classes=(TileClass("t", vlen=8),))
CODES = {"hidden": 16384, "heads": 2, "kv_heads": 2, "layers": 8, "ffn": 96}
ROWS = {"hidden": 2048, "head_dim": 128, "ffn": 96}


@pytest.mark.parametrize(("design", "config", "context", "reason", "message"), [
    (TWO, CODES, 47232, Reason.VMEM, None),
    (TWO, CODES, 47233, Reason.VMEM,
     "vmem of tile 1,0 must be at most 1048576 words, not 1048624, .* or fewer than 2 streams$"),
    (ONE, ROWS | {"vocab": 64359}, 3000, Reason.ROM, None),
    (ONE, ROWS | {"vocab": 64360}, 3000, Reason.ROM,
     "rom of tile 0,0 must be at most 16777216 words, not 16777472, .* more tiles or a shorter context$"),
])
def test_rows_of_tables_count(design, config, context, reason, message):
    _agree(design, config, context, reason, message)


@pytest.mark.parametrize(("vocab", "message"), [
    ((1 << 20) - 1, None), (1 << 20, "vocabulary must be at most 1048575 tokens, not 1048576")])
def test_tokens_that_no_instruction_names(vocab, message):
    _agree(Design(8, 4), {"vocab": vocab}, 8, Reason.VMEM, message)


def test_a_tile_class_is_refused_for_what_its_own_tiles_do():
    """Only tiles with heads have a cache, only those with rows of a matrix multiply by its input."""
    wide, narrow = TileClass("a", vlen=32), TileClass("b", vlen=8, shares=(0.0, 1.0, 1.0))
    for alone in (wide, narrow):
        design = Design(2, 1, classes=(wide, alone), node_class=(0, 1))
        _agree(design, {}, 40000, Reason.KV, None)
        _agree(design, {"ffn": 40000}, 8, Reason.XMEM, "kwords .* of tile 1,0" if alone is narrow else None)
