import pytest
from small_chip import CONFIG, chip_manifest

from hwgen.bound import MatrixBound

UNIFORM = "{width: 2, height: 2, tiles: [{name: tile, vlen: 32}]}"


def by_hand(config, position, vlen, tiles, output=True):
    def words(n):
        return -(-n // vlen)

    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = (queries + 2 * keys + 2 * config.ffn) * words(config.hidden)
    layer += config.hidden * (words(queries) + words(config.ffn))
    layer += config.heads * ((position + 1) * words(config.head_dim) + config.head_dim * words(position + 1))
    return (config.layers * layer + (config.vocab * words(config.hidden) if output else 0)) / tiles


@pytest.mark.parametrize("position", [0, 31, 32, 63])
@pytest.mark.parametrize("output", [True, False])
def test_equal_tiles(position, output):
    bound = MatrixBound(chip_manifest(UNIFORM))
    assert bound.token(position, output=output) == pytest.approx(by_hand(CONFIG, position, 32, 4, output))


def test_narrow_tiles_take_longer():
    assert MatrixBound(chip_manifest()).token(20) > MatrixBound(chip_manifest(UNIFORM)).token(20)


def test_run_counts_the_prompt_once_without_its_heads():
    bound = MatrixBound(chip_manifest(UNIFORM))
    first, second = bound.run([3], [2])
    assert first == pytest.approx(bound.token(0, output=False) + bound.token(1, output=False) + bound.token(2))
    assert second == bound.token(3)
