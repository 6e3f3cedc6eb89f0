"""The gymnasium environment and the ask/tell facade, by the checks of those who define them."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from explore.action import Codec
from explore.ask_tell import AskTell, optuna_objective, pymoo_problem
from explore.environment import ID, ChipEnvironment
from explore.practice import random_actions
from explore.problem import Problem, scenario_features
from explore.scenario import Scenario
from explore.space import Space
from explore.state import GOAL_FEATURES
from explore.workload import read_workload

SCENARIO = Scenario(read_workload("stories260k"), 7, context=128)


def test_it_passes_gymnasiums_own_check():
    check_env(gymnasium.make(ID, scenarios=[SCENARIO]).unwrapped, skip_render_check=True)


def test_a_seed_repeats_an_episode():
    def episode(seed):
        env = gymnasium.make(ID)
        states = [env.reset(seed=seed)[0]]
        env.action_space.seed(seed)
        for _ in range(3):
            state, reward, *_ = env.step(env.action_space.sample())
            states += [state, [reward]]
        return np.concatenate(states)

    assert np.array_equal(episode(3), episode(3)) and not np.array_equal(episode(3), episode(4))


def test_the_observation_holds_scenario_goal_and_last_design():
    env = ChipEnvironment([SCENARIO], steps=2)
    state, _ = env.reset(seed=0)
    features = len(scenario_features(SCENARIO))
    assert np.allclose(state[:features], list(scenario_features(SCENARIO).values()), rtol=1e-5)
    assert not state[features + len(GOAL_FEATURES):].any()
    action = env.codec.shape.snap(torch.tensor(env.action_space.sample())[None])[0].numpy()
    state, _, terminated, truncated, info = env.step(action)
    after = state[features + len(GOAL_FEATURES):]
    assert after[0] == 1 and np.allclose(after[1: 1 + len(action)], action)
    assert after[1 + len(action)] == pytest.approx(info["ln_tok_s"], rel=1e-5) and not terminated and not truncated
    assert env.step(action)[3]


def test_reward_is_better_for_the_better_design():
    env = ChipEnvironment([SCENARIO])
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    steps = [env.step(a.numpy()) for a in random_actions(env.codec.shape, 40, generator)]
    order = sorted(steps, key=lambda s: s[4]["score"])
    rewards = [s[1] for s in order]
    assert rewards == sorted(rewards) and rewards[0] < -10 < rewards[-1]


def test_actions_and_designs_are_two_names_of_one_thing():
    codec = Codec(Space())
    actions = random_actions(codec.shape, 200, torch.Generator().manual_seed(1))
    designs = codec.designs(actions)
    assert torch.equal(codec.actions(designs), actions)
    assert torch.allclose(codec.space.snap(designs), designs, atol=1e-6)
    env = ChipEnvironment([SCENARIO])
    design = env.design(actions[0])
    assert design.width * design.height == len(design.node_class)


def test_an_unmodified_stable_baselines_agent_runs():
    sb3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make(ID, scenarios=[SCENARIO])
    agent = sb3.SAC("MlpPolicy", env, learning_starts=8, batch_size=8, buffer_size=100, seed=0)
    before = [p.detach().clone() for p in agent.actor.parameters()]
    agent.learn(16)
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))


def test_pymoo_and_optuna_optimise_through_ask_and_tell():
    optuna, pymoo = pytest.importorskip("optuna"), pytest.importorskip("pymoo.optimize")
    from pymoo.algorithms.moo.nsga2 import NSGA2

    ask = AskTell(Problem(SCENARIO, Codec(Space())), evaluations=120)
    pymoo.minimize(pymoo_problem(ask, objectives=True), NSGA2(pop_size=20), ("n_gen", 3), seed=1)
    assert ask.spent == 60 and ask.scores.shape == (60,) and ask.outcomes.shape == (60, 5)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
    study.optimize(optuna_objective(ask), n_trials=20)
    assert ask.spent == 80 and ask.best >= study.best_value == pytest.approx(ask.scores[60:].max())
    with pytest.raises(StopIteration, match="at most 120"):
        ask.evaluate(np.zeros((41, ask.size)))
