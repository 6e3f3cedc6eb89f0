"""Placement, words, dependencies, proofs and capacities."""

from dataclasses import replace
from itertools import combinations, pairwise
from operator import ge

import numpy as np
import pytest

from hwgen.arithmetic import mxfp4
from hwgen.arithmetic.mx import quantize_float
from hwgen.compiler import compile as compiler
from hwgen.compiler.compile import compile_chip, few_depths
from hwgen.compiler.dependencies import Step, connect
from hwgen.compiler.memory import Region
from hwgen.compiler.place import Placement, place, split
from hwgen.compiler.prove import prove_order, prove_routes
from hwgen.compiler.tile_builder import ATTENTION, H
from hwgen.compiler.words import pack_codes, pack_rows, pack_table, rom_word_bytes, vector_words, word_bytes
from hwgen.design import Design, TileClass
from hwgen.errors import HwgenError
from hwgen.integer_graph import shape_only
from hwgen.isa import Instruction, Unit, When, decode, encode
from hwgen.model_config import ModelConfig

CONFIG = ModelConfig(vocab=100, hidden=40, layers=2, heads=6, kv_heads=2, head_dim=24, ffn=172, norm_eps=1e-5,
                     max_context=64, tied=False)


def test_split_is_complete_and_proportional():
    spans = split(172, [32, 32, 64, 0])
    assert spans == ((0, 43), (43, 86), (86, 172), (172, 172))


@pytest.mark.parametrize("tiles", [1, 2, 5, 12])
def test_every_query_head_has_one_unit_in_every_layer(tiles):
    placement = place(CONFIG, Design(tiles, 1))
    for units in placement.units:
        heads = sorted(h for u in units for h in range(u.first, u.first + u.count))
        assert heads == list(range(CONFIG.heads))
        assert all(u.kv == h // 3 for u in units for h in range(u.first, u.first + u.count))
        assert len({(u.tile, u.slot) for u in units}) == len(units)


def test_caches_move_from_tile_to_tile_where_tiles_abound():
    units = place(CONFIG, Design(4, 4)).units
    assert {u.tile for u in units[0]} != {u.tile for u in units[1]}


@pytest.mark.parametrize("vlen", [8, 16, 32, 64, 256])
@pytest.mark.parametrize("length", [8, 24, 40, 64, 172])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_rows_hold_every_element_and_scale(vlen, length, bias):
    rng = np.random.default_rng(vlen + length)
    blocks = -(-length // 32)
    values = rng.normal(size=(3, (blocks + bias) * 32))
    values[:, length : blocks * 32] = 0
    values[:, blocks * 32 + 2 :] = 0
    matrix = quantize_float(values)
    words = pack_rows(matrix, length, vlen, bias)
    per_row = vector_words(length, vlen, bias)
    assert words.shape == (3 * per_row, word_bytes(vlen))
    elements = words[:, :vlen].view(np.int8).reshape(3, -1)
    np.testing.assert_array_equal(elements[:, :length], matrix.elements.reshape(3, -1)[:, :length])
    if bias:
        np.testing.assert_array_equal(elements[:, -vlen:][:, :2], matrix.elements[:, blocks, :2])
        np.testing.assert_array_equal(words.reshape(3, per_row, -1)[:, -1, vlen], matrix.scales[:, blocks])
    np.testing.assert_array_equal(words.reshape(3, per_row, -1)[:, 0, vlen], matrix.scales[:, 0])


@pytest.mark.parametrize("vlen", [8, 32, 128])
def test_packed_codes_hold_two_words_each(vlen):
    matrix = mxfp4.quantize_mxfp4(np.random.default_rng(vlen).normal(size=(3, 72)))
    words = pack_rows(matrix, 72, vlen)
    packed = pack_codes(words, vlen)
    assert packed.shape == (-(-len(words) // 2), rom_word_bytes(vlen, "mxfp4"))
    codes = np.stack([packed[:, :vlen] & 15, packed[:, :vlen] >> 4], -1).reshape(-1, vlen)[: len(words)]
    np.testing.assert_array_equal(mxfp4.decode(codes), words[:, :vlen].view(np.int8))
    scales = packed[:, vlen:].reshape(-1, max(1, vlen // 32))[: len(words)]
    np.testing.assert_array_equal(scales, words[:, vlen:])


def test_tables_are_two_limbs():
    values = np.array([[16384, -16384, 255, -129, 1, 0, 32639, -32768]])
    words = pack_table(values, 8)
    high, low = words[0, :8].view(np.int8).astype(int), words[1, :8].view(np.int8).astype(int)
    np.testing.assert_array_equal(256 * high + low, values[0])
    with pytest.raises(HwgenError, match="Numbers of a table must be at most 32639, not 32640"):
        pack_table(values + 1, 8)


def test_instructions_survive_encoding():
    fields = {"a": (1 << 20) - 1, "n": 3, "shift": -64, "frac": 63, "dst": 1 << 19}
    i = Instruction(Unit.VECTOR, "SCALE", fields, When.OUTPUT, 1, 5, 2)
    d = decode(encode(i))
    assert encode(d) == encode(i) and d.fields["shift"] == -64 and (d.when, d.fence, d.pop, d.push) == (1, 1, 5, 2)
    with pytest.raises(ValueError, match="SCALE n must be 0 to 65535, not 65536"):
        encode(Instruction(Unit.VECTOR, "SCALE", {"n": 65536}))


def _step(unit, reads=(), writes=(), when=When.ALWAYS):
    op = {Unit.MATRIX: "MATMUL", Unit.VECTOR: "ADD", Unit.SEND: "SEND"}[unit]
    return Step(Instruction(unit, op, when=when), tuple(r.span() for r in reads), tuple(w.span() for w in writes))


def test_dependencies_become_tokens_once():
    a, b = Region("a", "vmem", 0, 16), Region("b", "vmem", 16, 16)
    steps = [_step(Unit.MATRIX, writes=[a]), _step(Unit.VECTOR, [a], [b]), _step(Unit.VECTOR, [b, a], [b]),
             _step(Unit.SEND, [b]), _step(Unit.MATRIX, writes=[a])]
    connect(steps)
    i = [s.instruction for s in steps]
    assert [x.pop for x in i] == [0, 1 << Unit.MATRIX, 0, 1 << Unit.VECTOR, 1 << Unit.VECTOR]
    assert [x.push for x in i] == [1 << Unit.VECTOR, 0, 1 << Unit.SEND | 1 << Unit.MATRIX, 0, 0]
    assert [x.fence for x in i] == [0, 0, 1, 0, 0]


def test_an_instruction_may_not_depend_on_one_that_may_be_dropped():
    a = Region("a", "vmem", 0, 16)
    with pytest.raises(ValueError, match=r"ADD \(ALWAYS\) depends on MATMUL \(OUTPUT\), which can give it no token"):
        connect([_step(Unit.MATRIX, writes=[a], when=When.OUTPUT), _step(Unit.VECTOR, [a])])


def test_routes_of_a_design_are_proven():
    prove_routes(Design(4, 3))
    prove_routes(Design(4, 3, routing="odd-even", virtual_channels=2))
    with pytest.raises(HwgenError, match="odd-even with multicast must have at least 2 virtual channels, not 1"):
        prove_routes(Design(4, 3, routing="odd-even"))


def test_every_layer_is_whole_within_its_stage():
    placement = place(replace(CONFIG, layers=7), Design(3, 5, pipeline_stages=3))
    assert [stage.tiles for stage in placement.stages] == [(0, 6), (6, 9), (9, 15)]
    assert [stage.layers for stage in placement.stages] == [(0, 3), (3, 4), (4, 7)]
    for layer in range(7):
        members = placement.members(layer)
        for spans, rows in ((placement.hidden, CONFIG.hidden), (placement.ffn, CONFIG.ffn)):
            own = [spans[t] for t in members]
            assert own[0][0] == 0 and own[-1][1] == rows
            assert all(a[1] == b[0] for a, b in pairwise(own))
        assert {unit.tile for unit in placement.units[layer]} <= set(members)


@pytest.mark.parametrize(("change", "words"), [
    ({"pipeline_stages": 3}, "pipeline_stages must be at most the 2 rows of the mesh, not 3"),
    ({"height": 9, "pipeline_stages": 9, "node_class": ()},
     "pipeline_stages must be at most the 8 layers of the model, not 9"),
    ({"pipeline_stages": 2, "node_class": (1, 1, 0, 0)},
     "Shares of ffn must be above 0 on a tile of every pipeline stage, not 0 on all of mesh rows 0 to 0"),
])
def test_stages_that_cannot_be_are_refused(change, words):
    classes = (TileClass("a"), TileClass("b", shares=(1.0, 0.0, 1.0)))
    with pytest.raises(HwgenError, match=words):
        place(replace(CONFIG, layers=8), replace(Design(2, 2, classes=classes), **change))


def test_order_proof_finds_a_writer_that_did_not_wait(monkeypatch):
    design = Design(2, 1)
    prove_order(design, place(CONFIG, design))
    both, first, second = frozenset({0, 1}), frozenset({0}), frozenset({1})
    monkeypatch.setattr("hwgen.compiler.prove.phases", lambda _: [
        ("x", first, both), ("h", second, second), ("x", first, both)])
    with pytest.raises(HwgenError, match=r"tile 0,0 must wait for tile 1,0 before it overwrites x there"):
        prove_order(design, None)


IDLE = Design(2, 1, classes=(TileClass("a"), TileClass("b", shares=(0.0, 0.0, 1.0))), node_class=(0, 1))
"""A tile of no rows in four of five gathers of a layer."""


def test_a_tile_without_rows_tells_that_it_has_what_came_before():
    chip = compile_chip(shape_only(CONFIG, 64), IDLE)
    own = [i for i in chip.tiles[1].program if i.op == "SEND" and i.fields.get("n") == 1 and not i.fields.get("host")]
    assert [i.fields["ctr"] for i in own] == [ATTENTION, H] * CONFIG.layers
    assert {(i.fields["dst"], i.fields["x0"], i.fields["x1"]) for i in own} == {(0, 0, 1)}


def test_order_proof_finds_a_tile_that_tells_nothing(monkeypatch):
    monkeypatch.setattr(Placement, "bystanders", lambda self, layer: frozenset())
    with pytest.raises(HwgenError, match="tile 0,0 must wait for tile 1,0 before it overwrites x there"):
        compile_chip(shape_only(CONFIG, 64), IDLE)


@pytest.mark.parametrize(("knob", "message"), [
    ("wmem_kib", r"wmem_kib of tile class t must be at least .* not 1: .* KiB too small"),
    ("dmem_kib", r"dmem_kib of tile class t must be at least .* hold the KV cache of context 64, not 1"),
    ("imem_kib", r"imem_kib of tile class t must be at least .* not 1"),
])
def test_too_small_a_memory_is_refused_with_the_number(knob, message):
    with pytest.raises(HwgenError, match=message):
        compile_chip(shape_only(CONFIG, 64), Design(1, 1, classes=(TileClass("t", **{knob: 1}),)))


def test_fixed_memories_are_used_whole():
    chip = compile_chip(shape_only(CONFIG, 64), Design(1, 1, classes=(TileClass("t", wmem_kib=256, dmem_kib=128),)))
    depths, auto = chip.depths[0], compile_chip(shape_only(CONFIG, 64), Design(1, 1)).depths[0]
    assert depths.rom == 256 * 1024 // 33 and depths.kvmem > auto.kvmem and depths.vmem == auto.vmem


LAYERS = frozenset({"qkv", "o", "gate", "up", "down"})


def test_codes_take_half_of_the_rom():
    plain, layers, whole = (compile_chip(shape_only(CONFIG, 64, named), Design(1, 1))
                            for named in (frozenset(), LAYERS, LAYERS | {"embed", "head"}))
    tables = sum(s.region.size for s in plain.tiles[0].slices if s.source in ("rope", "gain", "constant"))
    ends = sum(s.region.size for s in plain.tiles[0].slices if s.source in ("embed", "head"))
    used = [chip.tiles[0].memory.rom.used for chip in (plain, layers, whole)]
    assert abs(2 * used[2] - used[0] - tables) <= 12 and abs(2 * used[1] - used[0] - tables - ends) <= 12
    assert [i.op for i in plain.tiles[0].program] == [i.op for i in whole.tiles[0].program]
    assert layers.rom_words(0).shape == (used[1], rom_word_bytes(32, "mxfp4"))


def test_a_rom_of_codes_has_half_as_many_addresses(monkeypatch):
    monkeypatch.setitem(compiler.ADDRESS_LIMITS, "rom", 4000)
    compile_chip(shape_only(CONFIG, 64), Design(1, 1))
    with pytest.raises(HwgenError, match="rom of tile 0,0 must be at most 2000 words, not"):
        compile_chip(shape_only(CONFIG, 64, frozenset({"qkv"})), Design(1, 1))


def test_vector_memory_beyond_its_address_is_refused():
    config = ModelConfig(vocab=100, hidden=32, layers=18, heads=1, kv_heads=1, head_dim=32, ffn=32, norm_eps=1e-5,
                         max_context=60000, tied=True)
    with pytest.raises(HwgenError, match="vmem of tile 0,0 must be at most 1048576 words"):
        compile_chip(shape_only(config, 60000), Design(1, 1))


@pytest.mark.parametrize(("config", "context", "message"), [
    ({"vocab": 70000}, 8, "logits in vmem .* 65535 words, not 70000, at context 8: use more tiles"),
    ({}, 70000, "scores0 in vmem .* 65535 words, not 70000, at context 70000: use a shorter context"),
    ({"hidden": 65504}, 8, "x in vmem of tile 0,0 must be at most 65535 words, not 65536, at context 8"),
    ({"heads": 2047}, 8, "attention in vmem of tile 0,0 must be at most 65535 words, not 65536, at context 8"),
    ({"ffn": 65504}, 8, "h in vmem of tile 0,0 must be at most 65535 words, not 65536, at context 8"),
])
def test_what_an_instruction_cannot_count_is_refused_with_advice_that_helps(config, context, message):
    config = ModelConfig(**{"vocab": 100, "hidden": 32, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 32,
                            "ffn": 32, "norm_eps": 1e-5, "tied": True, "max_context": context} | config)
    with pytest.raises(HwgenError, match=f"{message}$"):
        compile_chip(shape_only(config, context), Design(1, 1))


def test_more_heads_on_a_tile_than_a_token_counter_holds_are_refused():
    config = replace(CONFIG, heads=64, kv_heads=64)
    compile_chip(shape_only(config, 64), Design(2, 1))
    with pytest.raises(HwgenError, match="tokens of a tile's matrix unit that its vector unit has yet to take must be "
                                         "at most 54, not 66: its heads are too many"):
        compile_chip(shape_only(config, 64), Design(1, 1))


def test_exponents_that_no_field_holds_are_refused():
    graph = shape_only(CONFIG, 64)
    graph = replace(graph, layers=(graph.layers[0], replace(graph.layers[1], silu_frac=-36)))
    with pytest.raises(HwgenError, match=r"SILU shift must be -64 to 63, not 64, in the program of tile 0,0 with vlen"):
        compile_chip(graph, Design(2, 1))


def _rom_words(config, design):
    """(needed, in the chip) words of every tile's weight ROM."""
    chip = compile_chip(shape_only(config, 64), design)
    return [tile.memory.rom.used for tile in chip.tiles], chip.rom_depths


@pytest.mark.parametrize("mesh", [(4, 4), (6, 6)])
def test_weight_roms_of_up_to_8_depths_hold_what_is_placed_and_no_more(mesh):
    needed, depths = _rom_words(CONFIG, Design(*mesh))
    assert depths == tuple(needed) and 1 < len(set(depths)) <= 8


def test_weight_roms_of_many_needs_have_8_depths_and_little_padding():
    classes = (TileClass("a"), TileClass("b", vlen=64), TileClass("c", wmem_kib=64))
    design = Design(5, 8, pipeline_stages=7, classes=classes[:2], node_class=(0, 0, 0, 1, 1) * 8)
    needed, depths = _rom_words(replace(CONFIG, layers=9), design)
    assert len(set(needed)) > 8 == len(set(depths)) and all(map(ge, depths, needed))
    assert sum(depths) < 1.01 * sum(needed)
    fixed = replace(design, classes=classes, node_class=(0, 0, 0, 1, 2) * 8)
    needed, depths = _rom_words(replace(CONFIG, layers=9), fixed)
    assert len(set(depths)) == 8 and all(map(ge, depths, needed)) and set(depths[4::5]) == {64 * 1024 // 33}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_depths_waste_least(count):
    rng = np.random.default_rng(count)
    needs = dict(zip(rng.permutation(200)[:8].tolist(), rng.integers(1, 50, 8).tolist(), strict=True))

    def size(depths):
        return sum(width * min(d for d in depths if d >= level) for level, width in needs.items())

    chosen = few_depths(needs, count)
    assert len(chosen) == count and chosen == sorted(chosen)
    assert size(chosen) == min(size((*some, max(needs))) for some in combinations(needs, count - 1))
