"""The agent: soft actor-critic with a gated mixture of experts, one policy for every scenario.

Where it departs from the paper, and why:

- **Actions are whole designs, not changes of one.** A change is worth its sum only, so a first proposal would take
  dozens of evaluations; a whole design can be right with none. The design before and its outcome stay in the state.
- **Discount 0 by default.** What a design is worth does not depend on the one before it, so later rewards are noise to
  the value of an action.
- **No epsilon.** The temperature keeps the exploration.
- **Reward is regret.** The score of a design less that of the best known for the same scenario and goal, which the
  archive gives: scores of two scenarios differ by far more than those of a good and a bad design.
- **Goals are relabelled.** An outcome holds for every goal, so a stored step is drawn with other weights and budgets,
  and the archive names the best known action for them; the actor is pulled towards it (`imitation`).
- **Integers are integers.** The critic sees ordinals rounded, categories one-hot; gradients pass straight through.
- **The world model predicts parts, not rewards** (`explore/surrogate.py`): cycles, gates, bits and energies, which hold
  for every goal and node. The actor's samples are where planning in it begins (`explore/plan.py`).
- **Critics and world model see derived figures** of an action (`explore/napkin.py`), products of knobs that a network
  would else have to learn.
- **Critics and world model judge canonical actions.** What stands for the same chip is one action to them, in the
  actor's step, too; else the actor climbs where they have seen nothing. Gradients pass straight through.
- **The actor climbs the world model's expected score besides its critics' value** (`model`): sums of predicted parts
  have better slopes than a reward.
- **Target entropy** is -1.2 for each ordinal and 10 % of the most for a category, instead of -30 for all.
- **Most batches are bred, not asked for**: three of five are children of archived designs, a twelfth is random, the
  rest is the policy's. It learns from all; `policy_regret` in the log is of its own.
"""

import copy
import io
import zipfile
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.goal import Goals
from explore.napkin import HINTS, Napkin
from explore.networks import ActionShape, Actor, Ensemble
from explore.surrogate import Surrogate
from hwgen.errors import HwgenError
from hwgen.formats import AGENT, Format
from hwgen.whole_files import whole_file


@dataclass(frozen=True)
class HyperParameters:
    """Everything that a training run depends on, besides its fields."""

    seed: int = 1
    """seeds networks, exploration and replay"""
    steps: int = 2400
    """batches of designs evaluated, of the scenarios in turn"""
    batch_designs: int = 768
    """designs of one scenario evaluated at once, each for a goal of its own"""
    kept: int = 160
    """of these, drawn at random, that are stored; the archive sees all"""
    per_update: int = 2
    """batches for each gradient step of actor and critics: many, since evaluations are cheap (the paper: 1 design)"""
    batch: int = 192
    """stored steps in a gradient step of actor and critics (the paper: 256)"""
    model_batch: int = 384
    """stored steps in one of the world model"""
    replay: int = 200_000
    """stored steps"""
    warm_up: int = 8
    """batches of uniformly random designs before the policy is asked"""
    lr: float = 8e-4
    """learning rate of actor, critics and temperature at the start (the paper: 3e-4); falls to a tenth by a cosine;
    the world model's is three times that"""
    discount: float = 0.0
    """weight of the next design's reward"""
    tau: float = 0.005
    """step of the target critics towards the critics"""
    priority: float = 0.6
    """exponent of the temporal-difference error in the draw"""
    priority_beta: float = 0.4
    """exponent of the correction for that, rising to 1"""
    hidden: int = 128
    """width of each expert's hidden layers (the paper: 256, without a mixture that is computed densely)"""
    critic_hidden: int = 128
    """width of the critics' hidden layers (the paper: 256)"""
    model_hidden: int = 192
    """width of the world model's hidden layers"""
    surrogates: int = 2
    """members of the world model's ensemble"""
    experts: int = 4
    """experts behind the gate; 1 is the ablation without a mixture"""
    balance: float = 0.01
    """weight of the load-balance loss"""
    imitation: float = 0.15
    """weight of the pull to the best known action for the relabelled goal; with `model`, too, 0 it is plain SAC"""
    model: float = 0.8
    """weight of the world model's expected score in what the actor climbs; the rest is the critics'"""
    relabel: float = 0.5
    """share of stored steps drawn with another goal"""
    again: float = 0.3
    """share of states that hold an earlier design and its outcome"""
    search: float = 0.6
    """share of batches that are children of archived designs"""
    random: float = 0.08
    """share of batches drawn uniformly; the policy is asked for the rest"""
    entropy: float = 1.2
    """target entropy: minus this for each ordinal, and a tenth of the most for each category"""


class Agent:
    """Actor, twin critics, temperature and world model. States are rows of `explore.state`, normalised here.

    `napkin`: derived figures of actions; the names of its features are those that a state begins with.
    """

    def __init__(self, state_size: int, shape: ActionShape, hp: HyperParameters, napkin: Napkin):
        torch.manual_seed(hp.seed)
        self.hp, self.shape, self.features = hp, shape, len(napkin.names)
        self.mean, self.std = torch.zeros(state_size), torch.ones(state_size)
        self.actor = Actor(state_size, shape, hp.hidden, hp.experts)
        self.critics = Ensemble(2, state_size + shape.size + HINTS, hp.critic_hidden, 1)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.surrogate = Surrogate(napkin, shape.size, members=hp.surrogates, hidden=hp.model_hidden)
        self.log_alpha = torch.tensor(-3.0, requires_grad=True)
        self.target_entropy = -hp.entropy * len(shape.steps) + sum(0.1 * log(c) for c in shape.choices)
        self.optimisers = {name: torch.optim.Adam(p, lr=hp.lr * scale) for name, p, scale in (
            ("actor", self.actor.parameters(), 1), ("critics", self.critics.parameters(), 1),
            ("surrogate", self.surrogate.net.parameters(), 3), ("alpha", [self.log_alpha], 1))}

    def normalise(self, states: Tensor) -> Tensor:
        return ((states - self.mean) / self.std).clamp(-6, 6)

    def fit_scales(self, states: Tensor, features: Tensor, actions: Tensor, observed: Tensor) -> None:
        """Fixes the scales of states [M, S], and of the world model by what was observed of N feasible designs."""
        std = states.std(0)
        self.mean, self.std = states.mean(0), torch.where(std > 1e-3, std, torch.ones_like(std))
        self.surrogate.fit_scales(features, actions, observed)

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor.sample(self.normalise(states), generator)[0]

    @torch.no_grad()
    def candidates(self, state: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """The mode and `count` samples of the policy in one state [1, S]."""
        rows = self.normalise(state)
        return torch.cat([self.actor.mode(rows), self.actor.sample(rows.expand(count, -1), generator)[0]])

    def value(self, critics: Ensemble, states: Tensor, actions: Tensor) -> Tensor:
        """[2, B] for states as they are."""
        hints = self.surrogate.scaled(self.surrogate.napkin(actions, states[:, : self.features]))
        return critics(self.normalise(states), actions, hints).squeeze(2)

    def update(self, rows: dict[str, Tensor], weight: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        """One gradient step on relabelled rows; returns temporal-difference errors [B] and figures."""
        state, alpha = rows["state"], float(self.log_alpha.detach().exp())
        hp, wanted = self.hp, rows["reward"]
        if hp.discount:
            with torch.no_grad():
                then = rows["next_state"]
                action, log_prob, _, _ = self.actor.sample(self.normalise(then), generator)
                action = self.surrogate.napkin.codec.canonical(action)
                wanted = wanted + hp.discount * (self.value(self.target, then, action).min(0).values - alpha * log_prob)
        error = self.value(self.critics, state, rows["action"]) - wanted
        critic_loss = (weight * F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")).mean()
        self._step("critics", critic_loss)
        action, log_prob, balance, density = self.actor.sample(self.normalise(state), generator,
                                                               rows["best_action"])
        action = self.surrogate.napkin.codec.canonical(action)
        value = (1 - hp.model) * self.value(self.critics, state, action).min(0).values
        if hp.model:
            goals = Goals(rows["weights"], rows["budgets"])
            value = value + hp.model * self.surrogate.worth(action, state[:, : self.features], goals)
        loss = (alpha * log_prob - value).mean() + hp.balance * balance
        if hp.imitation:
            loss = loss - hp.imitation * (density * rows["known"]).sum() / rows["known"].sum().clamp(min=1)
        self._step("actor", loss)
        self._step("alpha", -self.log_alpha.exp() * (log_prob.detach() + self.target_entropy).mean(), clip=False)
        with torch.no_grad():
            self.log_alpha.clamp_(-9, 1)
            for slow, fast in zip(self.target.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, hp.tau)
        figures = {"critic_loss": float(critic_loss.detach()), "alpha": alpha, "balance": float(balance.detach()),
                   "entropy": -float(log_prob.detach().mean())}
        return error.detach().abs().mean(0), figures

    def learn_model(self, features: Tensor, actions: Tensor, observed: Tensor) -> float:
        """A gradient step of the world model on observations [B, 5 + ...]; returns its mean error in nats."""
        loss, error = self.surrogate.loss(actions, features, observed)
        self._step("surrogate", loss)
        return error

    def _step(self, name: str, loss: Tensor, clip: bool = True) -> None:
        """A step of one optimiser's own parameters, whatever else the loss depends on."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        loss.backward(inputs=parameters)
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()

    def save_policy(self, path: Path, layout: tuple, cases: Tensor) -> None:
        """Writes what proposals need, in half precision; `layout` tells what the numbers of an action are.

        `cases` [N, A]: good designs of the training scenarios, from which planning begins besides the actor's samples.
        """
        half = {name: {k: v.half() for k, v in net.state_dict().items()} for name, net in self._shipped()}
        scales = [self.mean, self.std, *self.surrogate.state_dict()["scales"]]
        write_saved({"format": AGENT.mark, "hp": asdict(self.hp), "steps": self.shape.steps,
                     "choices": self.shape.choices, "layout": [(p.label, p.kind, p.values) for p in layout],
                     "scales": scales, "cases": cases.half(), **half}, path)

    def _shipped(self):
        return ("actor", self.actor), ("surrogate", self.surrogate.net)

    @classmethod
    def load_policy(cls, path: Path, state_size: int, shape: ActionShape, napkin: Napkin) -> tuple["Agent", Tensor]:
        """(agent, cases). Raises HwgenError unless `path` is a policy for states and actions of this layout."""
        saved = read_saved(path, AGENT, "Agent")
        try:
            if (tuple(saved["steps"]), tuple(saved["choices"])) != (shape.steps, shape.choices) \
                    or len(saved["scales"][0]) != state_size:
                raise HwgenError(f"Agent {str(path)!r} must be trained for this space of designs, not for another")
            agent = cls(state_size, shape, HyperParameters(**saved["hp"]), napkin)
            for name, net in agent._shipped():
                net.load_state_dict({k: v.float() for k, v in saved[name].items()})
            agent.mean, agent.std, *rest = saved["scales"]
            agent.surrogate.load_state_dict({"net": agent.surrogate.net.state_dict(), "scales": rest})
            cases = shape.snap(saved["cases"].float())
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise HwgenError(f"Agent {str(path)!r} must be whole, not damaged") from None
        return agent, cases


def write_saved(state: dict, path: Path) -> None:
    """Replaces a file at once, so that a kill leaves the old or the new. Raises HwgenError where it cannot be."""
    contents = io.BytesIO()  # given a file, torch has its own words for a full disk
    torch.save(state, contents)
    try:
        with whole_file(path) as partial:
            partial.write_bytes(contents.getbuffer())
    except OSError as error:
        raise HwgenError(f"{str(path)!r} must be writable, but: {error.strerror}") from None


def read_saved(path: Path, wanted: Format, what: str = "File") -> dict:
    """The tensors in a file of the format `wanted`. Raises HwgenError for any other file.

    `what`: the part that the file plays, for the sentence.
    """
    name = f"{what} {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as parts:  # torch does not check the sums of the parts
            if parts.testzip():
                raise zipfile.BadZipFile
        saved = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        unread = isinstance(error, OSError) and error.filename is not None
        why = f"but: {error.strerror}" if unread else "not damaged or foreign"
        raise HwgenError(f"{name} must be a file that hwgen saved, {why}") from None
    if not isinstance(saved, dict):
        raise HwgenError(f"{name} must be a file that hwgen saved, not damaged or foreign")
    wanted.check(saved.get("format"), f"{name} must be a file that hwgen saved, not one")
    return saved
