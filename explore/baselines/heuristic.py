"""The rule of thumb that the paper's optimum amounts to: the largest mesh that fits, at the highest clock."""

from explore.ask_tell import AskTell
from explore.goal import INFEASIBLE
from explore.limits import clock_limit_mhz
from hwgen.design import Design, TileClass


def largest_fastest(ask: AskTell, seed: int) -> None:
    """Square meshes of one class from the largest down, at the highest clock, until one is feasible; 96 tries at most.

    `seed` makes no difference.
    """
    space = ask.problem.space
    clock = clock_limit_mhz(ask.problem.scenario) * (1 - 1e-9)  # its logarithm may come back a bit above
    side = space.side
    for share in (1.0, 0.5, 0.25, 0.1, 0.03, 0.01):
        for edge in range(side, 0, -max(1, side // 16)):
            if not ask.left:
                return
            design = Design(edge, edge, flit_bits=256, buffer_flits=8, clock_mhz=max(1.0, min(5000.0, clock * share)),
                            classes=(TileClass("t", fetch=1, stations=2, vlen=256, lanes=16),))
            row = space.encode(design)
            if ask.evaluate(row[ask.columns].numpy())[0] > INFEASIBLE:
                return

