"""A run of training: designs are evaluated, archived and stored; networks learn from what is stored.

Most batches are children of archived designs, which show the networks where good ones lie. The others are drawn at
random or asked of the policy, so that critics and surrogate know those too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from explore.agent import Agent, HyperParameters, read_saved, write_saved
from explore.archive import Archive
from explore.goal import INFEASIBLE, VIOLATION, Goals, draw_goals, score
from explore.networks import ActionShape
from explore.plan import first_of_each
from explore.practice import Practice
from explore.replay import Replay
from explore.state import state_rows
from hwgen.errors import HwgenError
from hwgen.formats import TRAINING

_PARTS = ("actor", "critics", "target", "surrogate")


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
        first, size = self.fields[0], self.shape.size
        states = torch.cat([p.states(p.archive.goals) for p in self.fields])
        self.agent = Agent(states.shape[1], self.shape, self.hp, first.hints)
        sound = [p.recent[p.recent[:, 1 + size + VIOLATION] <= 0] for p in self.fields]
        features = torch.cat([p.features.expand(len(rows), -1) for p, rows in zip(self.fields, sound, strict=True)])
        seen = torch.cat(sound)
        self.agent.fit_scales(states, features, seen[:, 1: 1 + size], seen[:, 1 + size:])
        self.evaluations = 0

    def run(self, *, until: int | None = None, on_step: Callable[["Training"], None] | None = None) -> Agent:
        """Trains up to step `until` (default: the last)."""
        end = self.hp.steps if until is None else until
        while self.step < end:
            self._rate()
            self._collect()
            self.step += 1
            if self.step > self.hp.warm_up:
                if self.step % self.hp.per_update == 0:
                    self._learn()
                self._learn_model()
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
        """One batch of designs of one scenario: children of archived ones, random ones, or the policy's."""
        index = self.step % len(self.fields)
        practice, count = self.fields[index], self.hp.batch_designs
        chance = float(torch.rand((), generator=self.random))
        goals = draw_goals(count, self.random, practice.archive.draw(count, self.random))
        states, before = practice.draw_states(goals, self.hp.again, self.random)
        asked = self.step >= self.hp.warm_up and chance >= self.hp.random + self.hp.search
        if self.step < self.hp.warm_up or chance < self.hp.random:
            actions = practice.random_actions(count, self.random)
        elif asked:
            actions = practice.canonical(self.agent.act(states, self.random))
        else:
            actions = practice.breed(count, self.random)
        outcomes = practice.evaluate(actions)
        self.evaluations += count
        own = score(outcomes, goals)
        best = practice.archive.best(goals)[0]
        practice.learn(actions, outcomes)
        kept = torch.randperm(count, generator=self.random)[: self.hp.kept]
        self.replay.add(field=torch.full((len(kept),), index), weights=goals.weights[kept],
                        budgets=goals.budgets[kept], before=before[kept], action=actions[kept], outcome=outcomes[kept])
        self.log.append({"step": self.step, "field": practice.name, "evaluations": self.evaluations})
        if asked:
            self.log[-1]["policy_feasible"] = float((own > INFEASIBLE).float().mean())
            if len(gap := (own - best)[(own > INFEASIBLE) & (best > INFEASIBLE)]):
                self.log[-1]["policy_regret"] = float(1 - gap.median().exp())

    def _learn(self):
        done = self.step / max(1, self.hp.steps)
        beta = self.hp.priority_beta + (1 - self.hp.priority_beta) * done
        place, weight, rows = self.replay.draw(self.hp.batch, beta)
        rows |= self._relabel(rows)
        error, figures = self.agent.update(rows, weight, self.random)
        self.replay.reprioritise(place, error, self.hp.priority)
        self.log[-1] |= figures

    def _learn_model(self):
        rows = self.replay.any(self.hp.model_batch)
        error = self.agent.learn_model(self._features(rows), rows["action"], rows["outcome"])
        self.log[-1]["surrogate_error"] = error

    def _features(self, rows):
        return torch.stack([p.features for p in self.fields])[rows["field"]]

    def _relabel(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """State, goal, reward and best known action of drawn rows, a share of them under other goals."""
        goals = Goals(rows["weights"], rows["budgets"])
        other = draw_goals(len(goals), self.random, rows["outcome"])
        swap = torch.rand(len(goals), 1, generator=self.random) < self.hp.relabel
        goals = Goals(torch.where(swap, other.weights, goals.weights),
                      torch.where(swap, other.budgets, goals.budgets))
        archives = [p.archive for p in self.fields]
        best_score, best_action = best_known(archives, rows["field"], goals)
        features = self._features(rows)
        own = score(rows["outcome"], goals)
        out = {"state": state_rows(features, goals, rows["before"]), "best_action": best_action,
               "known": (best_score > INFEASIBLE).float(), "reward": reward(own, best_score),
               "weights": goals.weights, "budgets": goals.budgets}
        if self.hp.discount:
            seen = torch.cat([rows["action"], rows["outcome"]], 1)
            out["next_state"] = state_rows(features, goals, torch.cat([torch.ones(len(seen), 1), seen], 1))
        return out

    def cases(self, count: int) -> Tensor:
        """Archived designs [N, A], at most `count` of each scenario."""
        kept = [p.archive.actions[p.archive.values > INFEASIBLE][:count] for p in self.fields]
        return torch.cat(kept)[first_of_each(torch.cat(kept))]

    def save(self, path: Path) -> None:
        """A checkpoint: everything that the rest of the run depends on."""
        agent = self.agent
        write_saved({"format": TRAINING.mark, "hp": asdict(self.hp), "step": self.step, "log": self.log,
                "evaluations": self.evaluations, "random": self.random.get_state(),
                "agent": {name: getattr(agent, name).state_dict() for name in _PARTS},
                "scales": (agent.mean, agent.std), "log_alpha": agent.log_alpha.detach(),
                "optimisers": {name: o.state_dict() for name, o in agent.optimisers.items()},
                "replay": self.replay.state_dict(), "fields": [p.state_dict() for p in self.fields]}, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint of the same hyper-parameters and fields. Raises HwgenError for any other file."""
        saved = read_saved(path, TRAINING, "Checkpoint")
        try:
            self._restore(path, saved)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise HwgenError(f"Checkpoint {str(path)!r} must be whole, not damaged") from None

    def _restore(self, path, saved):
        agent = self.agent
        if saved["hp"] != asdict(self.hp) or len(saved["fields"]) != len(self.fields):
            changed = [f.name for f in fields(self.hp) if saved["hp"].get(f.name) != getattr(self.hp, f.name)]
            raise HwgenError(f"Checkpoint {str(path)!r} must be of the same training run, not of one with another "
                             f"{', '.join(changed) or 'set of scenarios'}")
        for name, state in saved["agent"].items():
            getattr(agent, name).load_state_dict(state)
        agent.mean, agent.std = saved["scales"]
        with torch.no_grad():
            agent.log_alpha.copy_(saved["log_alpha"])
        for name, state in saved["optimisers"].items():
            agent.optimisers[name].load_state_dict(state)
        self.replay.load_state_dict(saved["replay"])
        for practice, state in zip(self.fields, saved["fields"], strict=True):
            practice.load_state_dict(state)
        self.random.set_state(saved["random"])
        self.step, self.evaluations, self.log = int(saved["step"]), int(saved["evaluations"]), saved["log"]


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
