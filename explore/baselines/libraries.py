"""Optimisers of pymoo and optuna, as they come."""

import warnings

import numpy as np

from explore.ask_tell import AskTell, optuna_objective, pymoo_problem


def nsga2(ask: AskTell, seed: int) -> None:
    """NSGA-II of pymoo on the scalar score with its constraint, population 100 (at most a tenth of the budget)."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.optimize import minimize

    size = int(max(10, min(100, ask.left // 10)))
    generations = int(ask.left // size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minimize(pymoo_problem(ask), NSGA2(pop_size=size), ("n_gen", generations), seed=seed)


def tpe(ask: AskTell, seed: int) -> None:
    """The tree-structured Parzen estimator of optuna, multivariate."""
    _study(ask, lambda optuna: optuna.samplers.TPESampler(seed=seed, multivariate=True))


def cma_es(ask: AskTell, seed: int) -> None:
    """CMA-ES from the middle of the unit cube, restarted when settled (the package that optuna uses)."""
    from cmaes import CMA

    draw = np.random.default_rng(seed)
    while ask.left:
        size = 4 + int(3 * np.log(ask.size))
        search = CMA(mean=draw.random(ask.size) * 0.5 + 0.25, sigma=0.3, bounds=np.array([[0.0, 1.0]] * ask.size),
                     seed=int(draw.integers(2**31)), population_size=size)
        while ask.left and not search.should_stop():
            points = np.array([search.ask() for _ in range(size)])[: int(min(size, ask.left))]
            values = ask.evaluate(points)
            if len(points) == size:
                search.tell([(p, -float(v)) for p, v in zip(points, values, strict=True)])


def _study(ask, sampler):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize", sampler=sampler(optuna))
        study.optimize(optuna_objective(ask), n_trials=int(ask.left))
