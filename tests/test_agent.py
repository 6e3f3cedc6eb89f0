"""The agent learns, its checkpoints lose nothing, and its parts keep their contracts."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from explore.action import Codec
from explore.agent import HyperParameters
from explore.designer import Designer
from explore.goal import INFEASIBLE, Goals, draw_goals, score
from explore.networks import ActionShape, Actor, Experts
from explore.practice import mutate, random_actions
from explore.problem import Problem
from explore.replay import Replay
from explore.scenario import Scenario
from explore.space import Space
from explore.train import finish, make_training
from explore.training import Training, reward
from explore.workload import read_workload
from hwgen.errors import HwgenError

torch.set_num_threads(1)  # tensors here are small, and a second thread only spins

HP = HyperParameters(steps=40, batch_designs=96, kept=96, per_update=1, batch=96, model_batch=96, replay=4000,
                     warm_up=4, hidden=32, critic_hidden=32, model_hidden=32, experts=2, lr=3e-3, search=0.5)
SHAPE = ActionShape((5, 0, -64), (3, 2))


@pytest.fixture(scope="module")
def codec():
    return Codec(Space(2, side=8))


def make(codec, hp=HP):
    problems = [Problem(Scenario(read_workload("stories260k"), nm, context=128), codec) for nm in (28, 7)]
    return Training([p.practice(str(i), seed=i) for i, p in enumerate(problems)], hp, codec.shape)


def regret_of_the_mode(training):
    """Mean regret in nats, at most 4, of the policy's modes against the archive, over goals without budgets."""
    goals, total = draw_goals(64, torch.Generator().manual_seed(9)), 0.0
    for practice in training.fields:
        agent = training.agent
        actions = practice.canonical(agent.actor.mode(agent.normalise(practice.states(goals))).detach())
        short = practice.archive.best(goals)[0] - score(practice.evaluate(actions), goals)
        total += float(short.clamp(max=4).mean())
    return total / len(training.fields)


@pytest.mark.parametrize("seed", range(5))
def test_training_moves_the_weights_and_improves_the_designs(codec, seed):
    training = make(codec, replace(HP, seed=seed))
    agent = training.agent
    networks = {"actor": agent.actor, "critics": agent.critics, "target": agent.target, "model": agent.surrogate.net}
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in networks.items()}
    training.run(until=1)
    first = regret_of_the_mode(training)
    training.run()
    for name, old in before.items():
        assert all(not torch.equal(a, b) for a, b in zip(old, networks[name].parameters(), strict=True)), name
    assert regret_of_the_mode(training) < first - 0.1
    losses = [r["surrogate_error"] for r in training.log if "surrogate_error" in r]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_run_from_a_checkpoint_is_the_uninterrupted_run(codec, tmp_path):
    whole = make(codec, replace(HP, steps=14, discount=0.5))
    whole.run()
    half = make(codec, replace(HP, steps=14, discount=0.5))
    half.run(until=9)
    half.save(tmp_path / "c.pt")
    rest = make(codec, replace(HP, steps=14, discount=0.5))
    rest.load(tmp_path / "c.pt")
    rest.run()
    assert rest.log == whole.log
    whole.save(tmp_path / "whole.pt")
    rest.save(tmp_path / "rest.pt")
    assert same(*(torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "rest")))


TRAIN = ("--scenarios", "4", "--save-seconds", "0", *(f"--set={name}={value}" for name, value in (
    ("steps", 24), ("batch_designs", 64), ("kept", 64), ("batch", 32), ("model_batch", 32), ("replay", 1000),
    ("warm_up", 2), ("hidden", 16), ("critic_hidden", 16), ("model_hidden", 16), ("discount", 0.5))))


def start_training(folder):
    return subprocess.Popen([sys.executable, "-m", "explore.train", "-o", folder, *TRAIN], stdout=subprocess.DEVNULL)


def test_a_run_that_is_killed_goes_on_to_the_result_of_the_uninterrupted_run(tmp_path):
    killed, checkpoint = start_training(tmp_path / "a"), tmp_path / "a/checkpoint.pt"
    saves, stamp = 0, None
    while saves < 6 and killed.poll() is None:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != stamp:
            saves, stamp = saves + 1, checkpoint.stat().st_mtime_ns
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "a/agent.pt").exists()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < 24
    for folder in ("a", "b"):
        assert start_training(tmp_path / folder).wait() == 0
    a, b = (torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True) for folder in "ab")
    assert a["step"] == 24 and same(a, b)
    assert (tmp_path / "a/training.jsonl").read_text() == (tmp_path / "b/training.jsonl").read_text()


TOO_LARGE = Scenario(read_workload("llama-3.1-8b"), 28)


@pytest.mark.parametrize(("scenarios", "named"), [([], "none"), ([TOO_LARGE], "llama")])
def test_training_without_a_feasible_scenario_is_refused(codec, scenarios, named):
    with pytest.raises(HwgenError, match=f"Scenarios must include one with a feasible design, not {named}"):
        make_training(HP, scenarios, codec)


def same(a, b):
    """Whether two nested states are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(codec, tmp_path):
    training = make(codec)
    training.save(tmp_path / "c.pt")
    with pytest.raises(HwgenError, match="another lr"):
        make(codec, replace(HP, lr=1e-3)).load(tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HwgenError, match="damaged"):
        training.load(tmp_path / "c.pt")


def test_a_saved_policy_proposes_the_same(tmp_path):
    codec = Codec(Space())
    training = make(codec, replace(HP, steps=2))
    training.run()
    finish(training, codec, tmp_path, {})
    designer = Designer.load(tmp_path / "agent.pt")
    problem = designer.problem(Scenario(read_workload("stories260k"), 28, context=128))
    proposals = [designer.propose(problem, Goals.of((0.4, 0.4, 0.2)), 5, torch.Generator().manual_seed(1))
                 for _ in range(2)]
    assert torch.equal(*proposals) and proposals[0].shape == (5, codec.shape.size)
    assert torch.equal(problem.canonical(proposals[0]), proposals[0])
    (tmp_path / "agent.pt").write_bytes(b"no")
    with pytest.raises(HwgenError, match="damaged or foreign"):
        Designer.load(tmp_path / "agent.pt")


def test_actions_snap_to_their_settings():
    x = SHAPE.snap(torch.tensor([[0.3, 0.33, -0.99, 0.2, 0.9, 0.1, 3.0, 1.0], [-2.0, 0.5, 1.0, 0, 0, 1, 0, 1]]))
    assert x[0].tolist() == pytest.approx([0.5, 0.33, -1, 0, 1, 0, 1, 0])
    assert x[1].tolist() == pytest.approx([-1, 0.5, 1, 0, 0, 1, 0, 1])
    assert torch.equal(SHAPE.snap(x), x)


def test_random_actions_and_children_are_legal_and_cover_the_ends():
    generator = torch.Generator().manual_seed(0)
    x = random_actions(SHAPE, 2000, generator)
    counts = [int((x[:, 0] - v).abs().lt(1e-4).sum()) for v in (-1, -0.5, 0, 0.5, 1)]
    assert min(counts) > 300 and torch.equal(SHAPE.snap(x), x)
    children = mutate(SHAPE, x, generator, x.flip(0))
    assert torch.equal(SHAPE.snap(children), children)
    assert 0.2 < (children != x).any(1).float().mean() < 1


def test_the_actors_gradient_passes_through_rounding_and_categories():
    torch.manual_seed(0)
    actor = Actor(4, SHAPE, 16, 2)
    action, log_prob, _, density = actor.sample(torch.randn(8, 4), given=SHAPE.snap(torch.randn(8, SHAPE.size)))
    assert torch.equal(SHAPE.snap(action.detach()), action.detach()) or torch.allclose(
        SHAPE.snap(action.detach()), action.detach(), atol=1e-6)
    (action.square().sum() + log_prob.sum() + density.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in actor.parameters())


def test_canonical_actions_pass_gradients_straight_through(codec):
    actions = random_actions(codec.shape, 64, torch.Generator().manual_seed(0)).requires_grad_()
    same = codec.canonical(actions)
    assert torch.allclose(same.detach(), codec.canonical(actions.detach()), atol=1e-6)
    assert not torch.equal(same.detach(), actions.detach())
    same.square().sum().backward()
    assert torch.allclose(actions.grad, 2 * same.detach())


@pytest.mark.parametrize("limit", range(3))
def test_the_worth_of_designs_falls_with_budgets_and_slopes_towards_them(limit):
    designer = Designer.load()
    problem, surrogate = designer.problem(Scenario(read_workload("smollm2-135m"), 7)), designer.agent.surrogate
    actions = problem.random_actions(256, torch.Generator().manual_seed(0)).requires_grad_()
    speed, power, area = surrogate.predict(actions.detach(), problem.features[None])[0].mean(0).unbind(1)
    spent = (power, area, problem.codec.streams(actions.detach()).log() - speed)[limit]
    goals = Goals.of((0.4, 0.4, 0.2), count=256)
    budgets = goals.budgets.clone()
    budgets[:, limit] = (spent - 0.1).exp()  # all are a tenth over
    free, tight = (surrogate.worth(actions, problem.features[None], g) for g in (goals, Goals(goals.weights, budgets)))
    over = spent.exp() < (830 if limit == 1 else float("inf"))  # beyond the reticle both are
    assert (free - tight)[over].min() > 0.3 and (free - tight)[over].max() < 0.4
    (tight - free).sum().backward()
    assert (actions.grad[over].abs().sum(1) > 0).all()


def test_the_load_balance_loss_is_least_when_experts_are_used_alike():
    experts = Experts(3, 8, 4)
    with torch.no_grad():
        experts.gate.weight.zero_()
        experts.gate.bias.zero_()
        alike = experts(torch.randn(5, 3))[1]
        experts.gate.bias[0] = 9
        assert experts(torch.randn(5, 3))[1] > alike and float(alike) == pytest.approx(1)


def test_replay_draws_large_errors_more_often_and_overwrites_the_oldest():
    replay = Replay(10, torch.Generator().manual_seed(0))
    replay.add(x=torch.arange(12.0))
    assert sorted(replay.columns["x"].tolist()) == list(range(2, 12))
    replay.reprioritise(torch.arange(10), torch.tensor([10.0] + [0.1] * 9), 1.0)
    place, weight, rows = replay.draw(400, 0.5)
    often = place == 0
    assert often.float().mean() > 0.8 and (weight[often] < weight[~often].min()).all() and len(rows["x"]) == 400


def test_reward_orders_as_scores_do():
    own = torch.tensor([INFEASIBLE - 50, INFEASIBLE - 1, -9.0, 1.0, 2.0, 2.1])
    values = reward(own, torch.full((6,), 2.0))
    assert values.tolist() == sorted(values.tolist()) and values[4] == 0
    hopeless = reward(own[:2], torch.full((2,), INFEASIBLE - 1))
    assert hopeless[0] < hopeless[1] == 0


def test_goals_with_budgets_are_met_by_their_witness():
    witness = torch.tensor([[3.0, 0.5, 4.0, -3.0, 0.0], [3.0, 0.5, 4.0, -3.0, 0.7]]).repeat(200, 1)
    goals = draw_goals(400, torch.Generator().manual_seed(0), witness)
    values = score(witness, goals)
    assert (values[::2] > INFEASIBLE).all() and (values[1::2] < INFEASIBLE).all()
    assert torch.allclose(goals.weights.sum(1), torch.ones(400)) and goals.budgets[::2].isfinite().any()
    assert not goals.budgets[1::2].isfinite().any()
