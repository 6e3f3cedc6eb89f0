"""The agent: soft actor-critic with a gated mixture of experts, one policy for every scenario.

Where it departs from the paper, and why:

- **Actions are whole designs, not changes of one.** A change is worth its sum only, so a first proposal would take
  dozens of evaluations; a whole design can be right with none. The design before and its outcome stay in the state.
- **Discount 0 by default.** What a design is worth does not depend on the one before it, so later rewards are noise to
  the value of an action. Any other discount works and is compared in `bench.explore_suite`.
- **No epsilon, no world model.** The temperature keeps the exploration; the evaluator is its own model, exact and fast,
  so planning (`explore/refine.py`) asks it, within the evaluations it is given.
- **Reward is regret.** The score of a design less that of the best known for the same scenario and goal, which the
  archive gives: scores of two scenarios differ by far more than those of a good and a bad design.
- **Goals are relabelled.** An outcome holds for every goal, so a stored step is drawn with other weights and budgets,
  and the archive names the best known action for them; the actor is pulled towards it (`imitation`).
- **Integers are integers.** The critic sees ordinals rounded, categories one-hot; gradients pass straight through.
- **A surrogate stands beside the critics.** An ensemble predicts the outcome itself (speed, power, area, latency,
  whether it can be built), which holds for every goal; it ranks a pool of the actor's samples where no evaluation may
  be spent, careful by its own spread where a budget is near.
- **Critics and surrogate see derived figures** of an action (tiles, MACs a cycle, the slowest class of each operator),
  which a product of knobs would else have to be learned for.
- **Target entropy** is -0.5 for each ordinal and 10 % of the most for a category, instead of -30 for all.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from math import log
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from explore.archive import Archive
from explore.goal import INFEASIBLE, LATENCY, NO_CHIP, OUTCOMES, POWER, VIOLATION, Goals, draw_goals, score
from explore.networks import ActionShape, Actor, Ensemble
from explore.practice import Practice
from explore.state import state_rows
from hwgen.errors import HwgenError

FORMAT = "hwgen-agent-1"
CARE = 1.5
"""Standard deviation that a surrogate's mean error is taken for; the distribution of errors has long tails."""
NETWORKS = ("actor", "critics", "surrogate")
SCALES = ("mean", "std", "outcome_mean", "outcome_std", "spread", "hint_mean", "hint_std")


@dataclass(frozen=True)
class HyperParameters:
    """Everything that a training run depends on, besides its fields."""

    seed: int = 1
    """seeds networks, exploration and replay"""
    steps: int = 1600
    """batches of designs evaluated; each is `batch_designs` evaluations"""
    batch_designs: int = 384
    """designs of one scenario evaluated at once, each for a goal of its own"""
    updates: int = 1
    """gradient steps after each batch: low, since evaluations are cheap (the paper: 1 a design)"""
    batch: int = 320
    """stored steps in a gradient step (the paper: 256)"""
    replay: int = 100_000
    """stored steps"""
    warm_up: int = 8
    """batches of uniformly random designs before the policy is asked"""
    lr: float = 8e-4
    """learning rate of actor, critics and temperature at the start (the paper: 3e-4); falls to a tenth by a cosine"""
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
    critic_hidden: int = 160
    """width of the hidden layers of critics and surrogate (the paper: 256)"""
    surrogates: int = 2
    """members of the surrogate ensemble; 0 leaves the ranking to the critics"""
    experts: int = 4
    """experts behind the gate; 1 is the ablation without a mixture"""
    balance: float = 0.01
    """weight of the load-balance loss"""
    imitation: float = 0.4
    """weight of the pull to the best known action for the relabelled goal; 0 is plain soft actor-critic"""
    relabel: float = 0.5
    """share of stored steps drawn with another goal"""
    again: float = 0.3
    """share of states that hold an earlier design and its outcome"""
    search: float = 0.5
    """share of batches spent on mutating archived designs instead of asking the policy"""
    entropy: float = 0.5
    """target entropy: minus this for each ordinal, and a tenth of the most for each category"""


class Replay:
    """Prioritised ring of steps; columns are tensors of equal length."""

    def __init__(self, capacity: int, generator: torch.Generator):
        self.capacity, self.generator = capacity, generator
        self.columns: dict[str, Tensor] = {}
        self.weight, self.size, self.next, self.peak = torch.zeros(capacity), 0, 0, 1.0

    def add(self, **rows: Tensor) -> None:
        if not self.columns:
            self.columns = {k: v.new_zeros(self.capacity, *v.shape[1:]) for k, v in rows.items()}
        count = len(next(iter(rows.values())))
        place = (self.next + torch.arange(count)) % self.capacity
        for key, value in rows.items():
            self.columns[key][place] = value
        self.weight[place] = self.peak
        self.next, self.size = (self.next + count) % self.capacity, min(self.size + count, self.capacity)

    def draw(self, count: int, beta: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(places, importance weights up to 1, rows)."""
        edges = self.weight[: self.size].double().cumsum(0)
        at = torch.rand(count, generator=self.generator, dtype=torch.float64) * edges[-1]
        place = torch.searchsorted(edges, at).clamp(max=self.size - 1)
        weight = (self.weight[place] / edges[-1] * self.size).float().clamp(min=1e-8) ** -beta
        return place, weight / weight.max(), {k: v[place] for k, v in self.columns.items()}

    def reprioritise(self, place: Tensor, error: Tensor, exponent: float) -> None:
        self.weight[place] = (error.abs() + 1e-3) ** exponent
        self.peak = max(self.peak, float(self.weight[place].max()))

    def state_dict(self) -> dict:
        return {"columns": self.columns, "weight": self.weight, "at": (self.size, self.next, self.peak)}

    def load_state_dict(self, state: dict) -> None:
        self.columns, self.weight = state["columns"], state["weight"]
        self.size, self.next, self.peak = state["at"]


class Agent:
    """Actor, twin critics, temperature and surrogate. States are rows of `explore.state`, normalised here.

    `features`: numbers of a state that tell of the scenario alone, which come first. `hints`: actions [B, A] and
    features [B, F] -> derived figures [B, H], through which gradients pass; the first three are rough ln tok/s, ln W
    and ln mm2, of which the surrogate learns the error.
    """

    def __init__(self, state_size: int, shape: ActionShape, hp: HyperParameters, features: int, hints=None):
        torch.manual_seed(hp.seed)
        self.hp, self.shape, self.state_size, self.features = hp, shape, state_size, features
        self.hints = hints or (lambda actions, features: actions.new_zeros(len(actions), 3))
        self.mean, self.std = torch.zeros(state_size), torch.ones(state_size)
        width = shape.size + self.hints(torch.zeros(1, shape.size), torch.zeros(1, features)).shape[1]
        self.actor = Actor(state_size, shape, hp.hidden, hp.experts)
        self.critics = Ensemble(2, state_size + width, hp.critic_hidden, 1)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.surrogate = Ensemble(max(1, hp.surrogates), features + width, hp.critic_hidden, OUTCOMES)
        self.outcome_mean, self.outcome_std = torch.zeros(OUTCOMES), torch.ones(OUTCOMES)
        self.spread = torch.ones(OUTCOMES)
        self.hint_mean, self.hint_std = torch.zeros(width - shape.size), torch.ones(width - shape.size)
        self.log_alpha = torch.tensor(-3.0, requires_grad=True)
        self.target_entropy = -hp.entropy * len(shape.steps) + sum(0.1 * log(c) for c in shape.choices)
        self.optimisers = {name: torch.optim.Adam(p, lr=hp.lr * scale) for name, p, scale in (
            ("actor", self.actor.parameters(), 1), ("critics", self.critics.parameters(), 1),
            ("surrogate", self.surrogate.parameters(), 3), ("alpha", [self.log_alpha], 1))}

    def normalise(self, states: Tensor) -> Tensor:
        return ((states - self.mean) / self.std).clamp(-6, 6)

    def fit_normaliser(self, states: Tensor, actions: Tensor, outcomes: Tensor) -> None:
        """Fixes the scales of states [N, S], hints, and the surrogate's errors of outcomes [N, 5] of actions [N, A]."""
        def scales(x):
            std = x.std(0)
            return x.mean(0), torch.where(std > 1e-3, std, torch.ones_like(std))

        self.mean, self.std = scales(states)
        hints = self.hints(actions, states[:, : self.features])
        self.hint_mean, self.hint_std = scales(hints)
        rough = torch.cat([hints[:, :3], -hints[:, :1], torch.zeros_like(hints[:, :1])], 1)
        sound = outcomes[:, VIOLATION] <= 0
        self.outcome_mean, self.outcome_std = scales((outcomes - rough)[sound])
        self.outcome_mean[VIOLATION], self.outcome_std[VIOLATION] = 0, 1

    @torch.no_grad()
    def act(self, states: Tensor, generator: torch.Generator) -> Tensor:
        return self.actor.sample(self.normalise(states), generator)[0]

    @torch.no_grad()
    def propose(self, state: Tensor, goal: Goals, count: int, generator: torch.Generator, pool: int = 256) -> Tensor:
        """`count` actions for one state [1, S], the most promising first, of the mode and `pool` samples.

        No evaluation is spent: critics and surrogate have only seen those of training.
        """
        rows = self.normalise(state)
        actions = torch.cat([self.actor.mode(rows), self.actor.sample(rows.expand(pool, -1), generator)[0]])
        return actions[self.worth(state, goal, actions).argsort(descending=True)[:count]]

    @torch.no_grad()
    def worth(self, state: Tensor, goal: Goals, actions: Tensor) -> Tensor:
        """Expected score [B] of actions in one state: by the surrogate, or by the critics where there is none."""
        if not self.hp.surrogates:
            return self.value(self.critics, state.expand(len(actions), -1), actions).min(0).values
        logs, sound = self.predict(state, actions)
        error = CARE * (self.spread + logs.std(0).nan_to_num(0))[..., :LATENCY + 1]
        mean = logs.mean(0)
        j = (goal.weights * mean[:, :3] * mean.new_tensor([1.0, -1.0, -1.0])).sum(1)
        room = (goal.budgets.log() - mean[:, POWER:LATENCY + 1]) / error[:, POWER:LATENCY + 1]
        kept = torch.special.ndtr(room).prod(1) * sound.mean(0)
        return j - 4 * (1 - kept)

    def predict(self, state: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(outcomes [members, B, 5] in logs, chance of being feasible [members, B]) by the surrogate."""
        state = state.expand(len(actions), -1)
        out, rough = self._surrogate(state, actions)
        return out * self.outcome_std + rough, torch.sigmoid(-out[..., VIOLATION])

    def _surrogate(self, states, actions):
        """(scaled errors of the rough outcomes [members, B, 5], rough outcomes [B, 5])."""
        hints = self.hints(actions, states[:, : self.features])
        zero = torch.zeros_like(hints[:, :1])
        rough = torch.cat([hints[:, :3], -hints[:, :1], zero], 1) + self.outcome_mean
        inputs = self.normalise(states)[:, : self.features], actions, self._scaled(hints)
        return self.surrogate(*inputs), rough

    def _scaled(self, hints):
        return ((hints - self.hint_mean) / self.hint_std).clamp(-6, 6)

    def value(self, critics: Ensemble, states: Tensor, actions: Tensor) -> Tensor:
        """[2, B] for states as they are."""
        hints = self._scaled(self.hints(actions, states[:, : self.features]))
        return critics(self.normalise(states), actions, hints).squeeze(2)

    def update(self, rows: dict[str, Tensor], weight: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        """One gradient step on relabelled rows; returns temporal-difference errors [B] and figures."""
        state, alpha = rows["state"], float(self.log_alpha.detach().exp())
        hp, wanted = self.hp, rows["reward"]
        if hp.discount:
            with torch.no_grad():
                then = rows["next_state"]
                action, log_prob, _, _ = self.actor.sample(self.normalise(then), generator)
                wanted = wanted + hp.discount * (self.value(self.target, then, action).min(0).values - alpha * log_prob)
        error = self.value(self.critics, state, rows["action"]) - wanted
        critic_loss = (weight * F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")).mean()
        self._step("critics", critic_loss, self.critics)
        action, log_prob, balance, density = self.actor.sample(self.normalise(state), generator,
                                                               rows["best_action"])
        self.critics.requires_grad_(False)
        loss = (alpha * log_prob - self.value(self.critics, state, action).min(0).values).mean() + hp.balance * balance
        self.critics.requires_grad_(True)
        if hp.imitation:
            loss = loss - hp.imitation * (density * rows["known"]).sum() / rows["known"].sum().clamp(min=1)
        self._step("actor", loss, self.actor)
        self._step("alpha", -self.log_alpha.exp() * (log_prob.detach() + self.target_entropy).mean())
        with torch.no_grad():
            self.log_alpha.clamp_(-9, 1)
            for slow, fast in zip(self.target.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, hp.tau)
        figures = {"critic_loss": float(critic_loss.detach()), "alpha": alpha, "balance": float(balance.detach()),
                   "entropy": -float(log_prob.detach().mean())}
        if hp.surrogates:
            figures["surrogate_error"] = self._learn_outcomes(state, rows)
        return error.detach().abs().mean(0), figures

    def _learn_outcomes(self, state, rows):
        """A gradient step of the surrogate; returns the mean error of the logarithms."""
        outcome = rows["outcome"][:, :OUTCOMES]
        out, rough = self._surrogate(state, rows["action"])
        wanted = (outcome - rough) / self.outcome_std
        error = (out - wanted)[..., :VIOLATION]
        broken = (outcome[:, VIOLATION] > 0).float().expand(out.shape[:2])
        # Figures of what is no chip at all (an operator without a tile) mean nothing.
        error = error * (outcome[:, VIOLATION] < NO_CHIP).float()[:, None]
        loss = 10 * F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.05)
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(out[..., VIOLATION], broken)
        self._step("surrogate", loss, self.surrogate)
        with torch.no_grad():
            sound = (1 - broken)[..., None]
            typical = (error.abs() * sound).sum((0, 1)) / sound.sum().clamp(min=1) * self.outcome_std[:VIOLATION]
            self.spread[:VIOLATION].lerp_(typical, 0.02)
        return float(typical.mean())

    def _step(self, name: str, loss: Tensor, module=None) -> None:
        self.optimisers[name].zero_grad(set_to_none=True)
        loss.backward()
        if module is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        self.optimisers[name].step()

    def save_policy(self, path: Path, layout: tuple = ()) -> None:
        """Writes what proposals need, in half precision; `layout` tells what the numbers of an action are."""
        half = {name: {k: v.half() for k, v in getattr(self, name).state_dict().items()} for name in NETWORKS}
        _write({"format": FORMAT, "hp": asdict(self.hp), "layout": [(p.label, p.kind, p.values) for p in layout],
                "steps": self.shape.steps, "choices": self.shape.choices,
                "scales": [getattr(self, name) for name in SCALES], **half}, path)

    @classmethod
    def load_policy(cls, path: Path, state_size: int, shape: ActionShape, features: int, hints=None) -> "Agent":
        """Raises HwgenError unless `path` is a policy for states and actions of this layout."""
        saved = read_saved(path, FORMAT)
        try:
            if (tuple(saved["steps"]), tuple(saved["choices"])) != (shape.steps, shape.choices) \
                    or len(saved["scales"][0]) != state_size:
                raise HwgenError(f"Agent {str(path)!r} must be trained for this space of designs, not for another")
            agent = cls(state_size, shape, HyperParameters(**saved["hp"]), features, hints)
            for name in NETWORKS:
                getattr(agent, name).load_state_dict({k: v.float() for k, v in saved[name].items()})
            for name, value in zip(SCALES, saved["scales"], strict=True):
                setattr(agent, name, value)
        except (KeyError, TypeError, RuntimeError) as error:
            raise HwgenError(f"Agent {str(path)!r} must be whole, not damaged ({error})") from None
        return agent


def _write(state: dict, path: Path) -> None:
    """Replaces a file at once, so that a kill leaves the old or the new."""
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def read_saved(path: Path, wanted: str) -> dict:
    """The tensors in a file that carries the format mark `wanted`. Raises HwgenError for any other file."""
    try:
        saved = torch.load(path, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise HwgenError(f"{str(path)!r} must be a file that hwgen saved, not damaged or foreign "
                         f"({type(error).__name__})") from None
    if not isinstance(saved, dict) or saved.get("format") != wanted:
        raise HwgenError(f"{str(path)!r} must be a {wanted} file, not another")
    return saved


@dataclass
class Training:
    """A run of training on `fields`, which can be saved after any step and go on as if it had not stopped."""

    fields: list[Practice]
    hp: HyperParameters
    shape: ActionShape
    step: int = 0
    log: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.random = torch.Generator().manual_seed(self.hp.seed)
        self.replay = Replay(self.hp.replay, self.random)
        probe = torch.cat([p.states(p.archive.goals) for p in self.fields])
        first = self.fields[0]
        self.agent = Agent(probe.shape[1], self.shape, self.hp, len(first.features), first.hints)
        self.agent.fit_normaliser(probe, torch.cat([p.archive.actions for p in self.fields]),
                                  torch.cat([p.archive.outcomes for p in self.fields]))
        self.evaluations = 0

    def run(self, *, until: int | None = None, on_step: Callable[["Training"], None] | None = None) -> Agent:
        """Trains up to step `until` (default: the last)."""
        end = self.hp.steps if until is None else until
        while self.step < end:
            self._rate()
            self._collect()
            self.step += 1
            if self.step > self.hp.warm_up:
                for _ in range(self.hp.updates):
                    self._learn()
            if on_step:
                on_step(self)
        return self.agent

    def _rate(self):
        done = torch.tensor(self.step / max(1, self.hp.steps) * torch.pi)
        rate = self.hp.lr * float(0.55 + 0.45 * done.cos())
        for name, optimiser in self.agent.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = 3 * rate if name == "surrogate" else rate

    def _collect(self):
        """One batch of designs of one scenario, asked of the policy or made from archived ones."""
        index = int(torch.randint(len(self.fields), (), generator=self.random))
        practice, count = self.fields[index], self.hp.batch_designs
        chance = float(torch.rand((), generator=self.random))
        goals = draw_goals(count, self.random, practice.archive.draw(count, self.random))
        states, before = practice.draw_states(goals, self.hp.again, self.random)
        if self.step < self.hp.warm_up or not practice.archive.feasible and chance < 0.3:
            actions = practice.random_actions(count, self.random)
        elif chance < self.hp.search:
            actions = practice.mutate(goals, self.random)
        else:
            actions = practice.canonical(self.agent.act(states, self.random))
        outcomes = practice.evaluate(actions)
        self.evaluations += count
        own = score(outcomes, goals)
        best = practice.archive.best(goals)[0]
        practice.learn(actions, outcomes)
        self.replay.add(field=torch.full((count,), index), weights=goals.weights, budgets=goals.budgets,
                        before=before, action=actions, outcome=outcomes)
        regret = (best - own)[(own > INFEASIBLE) & (best > INFEASIBLE)]
        self.log.append({"step": self.step, "field": practice.name, "evaluations": self.evaluations,
                         "feasible": float((own > INFEASIBLE).float().mean()),
                         "median_regret": float(1 - (-regret).exp().median()) if len(regret) else None})

    def _learn(self):
        done = self.step / max(1, self.hp.steps)
        beta = self.hp.priority_beta + (1 - self.hp.priority_beta) * done
        place, weight, rows = self.replay.draw(self.hp.batch, beta)
        rows |= self._relabel(rows)
        error, figures = self.agent.update(rows, weight, self.random)
        self.replay.reprioritise(place, error, self.hp.priority)
        self.log[-1] |= figures

    def _relabel(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """State, reward and best known action of drawn rows, a share of them under other goals."""
        goals = Goals(rows["weights"], rows["budgets"])
        other = draw_goals(len(goals), self.random, rows["outcome"])
        swap = torch.rand(len(goals), 1, generator=self.random) < self.hp.relabel
        goals = Goals(torch.where(swap, other.weights, goals.weights),
                      torch.where(swap, other.budgets, goals.budgets))
        archives = [p.archive for p in self.fields]
        best_score, best_action = best_known(archives, rows["field"], goals)
        features = torch.stack([p.features for p in self.fields])[rows["field"]]
        own = score(rows["outcome"], goals)
        out = {"state": state_rows(features, goals, rows["before"]), "best_action": best_action,
               "known": (best_score > INFEASIBLE).float(), "reward": reward(own, best_score)}
        if self.hp.discount:
            seen = torch.cat([rows["action"], rows["outcome"]], 1)
            out["next_state"] = state_rows(features, goals, torch.cat([torch.ones(len(seen), 1), seen], 1))
        return out

    def save(self, path: Path) -> None:
        """A checkpoint: everything that the rest of the run depends on."""
        agent = self.agent
        _write({"format": FORMAT + "-training", "hp": asdict(self.hp), "step": self.step, "log": self.log,
                "evaluations": self.evaluations, "random": self.random.get_state(),
                "agent": {name: getattr(agent, name).state_dict() for name in (*NETWORKS, "target")},
                "scales": [getattr(agent, name) for name in SCALES], "log_alpha": agent.log_alpha.detach(),
                "optimisers": {name: o.state_dict() for name, o in agent.optimisers.items()},
                "replay": self.replay.state_dict(), "fields": [p.state_dict() for p in self.fields]}, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same hyper-parameters and fields."""
        saved, agent = read_saved(path, FORMAT + "-training"), self.agent
        if saved["hp"] != asdict(self.hp) or len(saved["fields"]) != len(self.fields):
            changed = [f.name for f in fields(self.hp) if saved["hp"].get(f.name) != getattr(self.hp, f.name)]
            raise HwgenError(f"Checkpoint {str(path)!r} must be of the same training run, not of one with another "
                             f"{', '.join(changed) or 'set of scenarios'}")
        for name, state in saved["agent"].items():
            getattr(agent, name).load_state_dict(state)
        for name, value in zip(SCALES, saved["scales"], strict=True):
            setattr(agent, name, value)
        with torch.no_grad():
            agent.log_alpha.copy_(saved["log_alpha"])
        for name, state in saved["optimisers"].items():
            agent.optimisers[name].load_state_dict(state)
        self.replay.load_state_dict(saved["replay"])
        for practice, state in zip(self.fields, saved["fields"], strict=True):
            practice.load_state_dict(state)
        self.random.set_state(saved["random"])
        self.step, self.evaluations, self.log = saved["step"], saved["evaluations"], saved["log"]


def best_known(archives: list[Archive], which: Tensor, goals: Goals) -> tuple[Tensor, Tensor]:
    """(score [B], action [B, A]) of the best archived design for each goal, in archive `which` [B]."""
    outcomes = torch.stack([a.outcomes[:, :5] for a in archives])[which]
    values = score(outcomes, Goals(goals.weights[:, None], goals.budgets[:, None]))
    best, index = values.max(1)
    return best, torch.stack([a.actions for a in archives])[which, index]


def reward(own: Tensor, best: Tensor) -> Tensor:
    """Regret in nats, at least -4 and at most 0.5; -5 and less for the infeasible, by violation."""
    short = (INFEASIBLE - own).clamp(min=0).log1p()
    at_best = (INFEASIBLE - best).clamp(min=0).log1p()
    against = torch.where(best > INFEASIBLE, -5 - short, (at_best - short).clamp(-4, 0.5))
    return torch.where(own > INFEASIBLE, torch.where(best > INFEASIBLE, (own - best).clamp(-4, 0.5), 0.5), against)
