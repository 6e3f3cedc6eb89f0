"""Other ways to search the same space, each a function `method(ask, seed)` that spends what `ask` has left."""

from explore.baselines.gradient import gradient
from explore.baselines.heuristic import largest_fastest
from explore.baselines.libraries import cma_es, nsga2, tpe
from explore.baselines.local import annealing, greedy
from explore.baselines.sampling import random, sobol

METHODS = {
    "random": random, "sobol": sobol, "greedy": greedy, "annealing": annealing, "nsga2": nsga2, "cma_es": cma_es,
    "gradient": gradient, "tpe": tpe, "largest_fastest": largest_fastest,
}
"""Name -> method, in the order of the tables."""

__all__ = ["METHODS", *METHODS]
