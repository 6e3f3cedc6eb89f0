# amaranth: UnusedElaboratable=no
"""Vector unit against hwgen.arithmetic: every operation and destination, whole memories, all widths."""

import pytest
from vector_bench import ProgramMaker, simulate

from hwgen.rtl.vector_unit import VectorUnit


def test_refuses_other_lane_counts_and_vlens():
    with pytest.raises(ValueError, match="Lanes must be 1, 2, 4, 8 or 16, not 3"):
        VectorUnit(lanes=3, vlen=32)
    with pytest.raises(ValueError, match="VLEN must be 8, 16, 32, 64, 128 or 256, not 48"):
        VectorUnit(lanes=4, vlen=48)


@pytest.mark.parametrize("lanes, vlen", [(1, 8), (1, 64), (2, 32), (4, 8), (4, 256), (8, 32), (16, 8), (16, 64), (16, 256)])
def test_random_programs(lanes, vlen):
    maker = ProgramMaker(lanes, vlen, seed=lanes * 1000 + vlen)
    program = maker.program(60)
    simulate(VectorUnit(lanes=lanes, vlen=vlen), maker.start, program, maker.position, seed=1)
