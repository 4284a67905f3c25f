"""FNAS: MNAS's policy, spared three kinds of training: known rewards, weights from scratch, samples used once.

Liu, Zhang, Sun, Liu, Song, Liu, Li. "FNAS: Uncertainty-Aware Fast Neural Architecture Search". 2021.
https://arxiv.org/abs/2105.11694

UAC, the uncertainty-aware critic: a sample whose reward V is sure to know (U below a threshold) is not trained, its
reward is V's. AKP, the architecture knowledge pool: networks start from blocks that others have trained, and are
trained half as long. AEB, the experience buffer: half of every batch of PPO is earlier samples, their loss weighted by
rho, how much likelier the policy draws them now than it did. With all three off this is `mnas`, draw by draw.

Trained and predicted rewards are kept apart: V learns from trained ones only, the buffer holds trained ones only, and
the winner is a trained one, which the goal picks. `predictions` has the others.

Departures: abstract and figures were at hand, the formulas of the three modules were not; docs/methods/fnas.md says
what is ours. The advantage of a sample is its reward less the batch's mean, not less its own V, which would leave
predicted samples, and all that V knows, without any (`uac.advantage = "critic"` does that).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, Protocol, TypeAlias

import numpy as np

from searchers.mnas import Resources, Tradeoff
from searchers.parts.critic import Critic
from searchers.parts.options import AtLeast, Count, Nonnegative, Positive, Share, Value, checked
from searchers.parts.policies import LSTM, Array
from searchers.parts.ppo import PPO, Agent, Due, normalised
from searchers.parts.rewards import GoalReward
from suite.spaces import SearchSpace
from suite.types import ERROR_ALONE, POOL, Architecture, BadInput, Evaluation, Goal, Proxy, Trial

RECENT = 200
"""Trained samples whose spread of rewards is the threshold's measure, and whose errors U learns."""
EARLIER = 1000
"""So many of the latest samples of earlier searches are learnt."""
WITHOUT_TRAINING = 100
"""Batches in a row of which nothing was trained: then the search is over."""
RHO_BINS = (0.5, 1.0)

Earlier: TypeAlias = tuple[Architecture, Mapping[str, float], float]
"""Architecture, metrics, and the log probability with which it was drawn."""


@dataclass(frozen=True)
class UAC(Value):
    """The uncertainty-aware critic: V predicts rewards, U the error of V; `uac` of a spec."""

    threshold: Nonnegative = 0.25
    """tau, as a share of the standard deviation of the last 200 trained rewards."""
    audit: Share = 0.1
    """Probability of training a sample that V is sure of."""
    warm_up: Count = 64
    """Samples, earlier searches' included, that are trained before V is asked."""
    hidden: Count = 128
    """Units of each of two layers, in V and in U."""
    lr: Positive = 1e-3
    """Learning rate of Adam, for V and U."""
    steps: Count = 50
    """Steps of Adam on each batch."""
    advantage: Literal["batch", "critic"] = "batch"
    """"batch": the reward less the batch's mean; "critic": less V of the sample itself."""


@dataclass(frozen=True)
class AEB(Value):
    """The architecture experience buffer: trained samples that are replayed; `aeb` of a spec."""

    capacity: Count = 512
    """Samples that the buffer holds."""
    share: Share = 0.5
    """Share of a batch that comes from the buffer, once it holds so many."""
    priority: Nonnegative = 0.6
    """alpha: a sample of rank k is drawn in proportion to k^-alpha; 0 replays all alike."""
    rho_cap: Positive = 1.5
    """Largest weight of a replayed sample."""


class Pool(Protocol):
    """Weights of trained blocks, from which trials of origin "pool" start."""

    @property
    def note(self) -> str:
        """Contents of the pool at the beginning, in words."""

    def commit(self) -> None:
        """Publish the weights trained since the last commit."""


class Stores(Protocol):
    """Trained samples of earlier searches."""

    def earlier(self, trial: Trial) -> Sequence[Earlier]:
        """Trained like `trial` before this search began, the oldest first."""

    def keep(self, answers: Sequence[Evaluation], rewards: Sequence[float], log_probabilities: Sequence[float]) -> None:
        """Write down trained samples; on disk on return."""


@dataclass
class Prediction:
    """Prediction of a sample's reward by V, with its uncertainty."""

    arch: Architecture
    reward: float
    """Reward that V predicts."""
    uncertainty: float
    """Error of V that U expects."""
    threshold: float
    """tau: V is trusted up to this U."""
    used: bool
    """Whether V stood in for a training."""
    trained: float = math.nan
    """The true reward, where it was trained all the same and has been told; else nan."""


@dataclass(frozen=True)
class Calibration:
    """Reliability of V and U, over samples that were predicted and trained all the same."""

    checked: int
    correlation: float
    """Correlation of U and |V - R|; nan below 3 samples."""
    coverage: float
    """Share with |V - R| <= U."""
    bias: float
    """Mean of V - R where U was below the threshold: the audits."""


def calibration(predictions: Sequence[Prediction]) -> Calibration:
    """Compare predictions with the trainings that checked them.

    >>> calibration([Prediction((0,), 0.9, 0.1, 0.2, False, 0.85), Prediction((1,), 0.8, 0.1, 0.2, True)]).checked
    1
    """
    checked = [p for p in predictions if not math.isnan(p.trained)]
    errors = np.array([abs(p.reward - p.trained) for p in checked])
    uncertainties = np.array([p.uncertainty for p in checked])
    vary = len(checked) > 2 and errors.std() > 0 and uncertainties.std() > 0
    correlation = float(np.corrcoef(uncertainties, errors)[0, 1]) if vary else math.nan
    coverage = float((errors <= uncertainties).mean()) if checked else math.nan
    audits = [p.reward - p.trained for p in checked if p.uncertainty <= p.threshold]
    return Calibration(len(checked), correlation, coverage, float(np.mean(audits)) if audits else math.nan)


class Buffer:
    """AEB: trained samples with the log probability of the policy that drew them, the oldest out first."""

    def __init__(self, capacity: int, alpha: float) -> None:
        self.entries: deque[tuple[Architecture, float, float]] = deque(maxlen=capacity)
        """(architecture, log probability when drawn, trained reward)."""
        self.alpha = alpha

    def draw(self, count: int, rng: np.random.Generator) -> list[tuple[Architecture, float, float]]:
        """Different entries, that of rank k by reward with a priority of k^-alpha; of equals the latest ranks first."""
        entries = list(self.entries)[::-1]
        rewards = np.array([reward for _, _, reward in entries])
        ranks = np.empty(len(entries))
        ranks[np.argsort(-rewards, kind="stable")] = np.arange(1, len(entries) + 1)
        priorities = ranks**-self.alpha
        chosen = rng.choice(len(entries), count, replace=False, p=priorities / priorities.sum())
        return [entries[int(place)] for place in chosen]


class FNAS:
    """PPO on batches of which some is trained, some predicted, and some replayed."""

    family = "reinforcement learning"
    objectives = ("val_error",)
    needs = ("resources", "pool", "stores")
    paper = "Liu et al., 2021, arXiv:2105.11694"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, uac: UAC | None = UAC(), akp: bool = True, aeb: AEB | None = AEB(),
        reward: Literal["own", "goal"] = "own", tradeoff: Tradeoff = Tradeoff(),
        batch: Annotated[int, AtLeast(2)] = 16, ppo: PPO = PPO(),
        lstm: LSTM = LSTM(hidden=100, tanh=0.0, temperature=1.0), resources: Resources | None = None,
        goal: Goal = ERROR_ALONE, pool: Pool | None = None, stores: Stores | None = None,
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform, and with what the stores remember.

        Args:
            space: What to search.
            proxy: What every network is trained under; with the pool for half the epochs.
            rng: All chance comes from here.
            uac: The critic; None (false in a spec): every sample is trained.
            akp: Whether networks start from the pool, if there is one.
            aeb: The buffer; None (false in a spec): nothing is replayed.
            reward: As in `mnas`: "own", by `tradeoff`, or "goal".
            tradeoff: As in `mnas`.
            batch: As in `mnas`.
            ppo: As in `mnas`.
            lstm: As in `mnas`.
            resources: Knows metrics without training.
            goal: What the run is about.
            pool: Weights of blocks; None: there are none, as on a table, and `akp` does nothing.
            stores: Samples of earlier searches; None: there are none, and nothing is kept for later ones.
        """
        if aeb is not None and aeb.capacity < batch:
            raise BadInput(f"fnas: aeb.capacity must be at least the batch of {batch}, not {aeb.capacity}")
        self.space, self.rng, self.batch, self.uac, self.aeb = space, rng, batch, uac, aeb
        self.pool = pool if akp else None
        self.stores = stores if uac or aeb else None
        self.from_buffer = math.floor(batch * aeb.share) if aeb else 0
        self.buffer = Buffer(aeb.capacity, aeb.priority) if aeb else None
        self.reward = GoalReward(goal) if reward == "goal" else tradeoff.reward("fnas", space, proxy, resources)
        self.agent = Agent(space, rng, ppo, lstm)
        self.proxy = replace(proxy, epochs=math.ceil(proxy.epochs / 2)) if self.pool is not None else proxy
        self.critic: Critic | None = None
        if uac:
            self.critic = Critic(space.decisions, rng, hidden=uac.hidden, lr=uac.lr, steps=uac.steps, window=RECENT)
        self.archs: list[Architecture] = []
        self.log_p = np.zeros(0)
        self.rewards = np.zeros(0)
        """Rewards of the new samples of the batch under way; nan: not told yet."""
        self.answers: dict[int, Evaluation] = {}
        """Answers of the batch under way, by place."""
        self.checks: dict[int, Prediction] = {}
        """Predictions of the batch whose truth is on its way, by place."""
        self.due = Due()
        self.predictions: list[Prediction] = []
        """Predictions of all new samples after the warm-up, made before anything was trained."""
        self.trained = 0
        self.rhos: list[float] = []
        """Weights rho of all replayed samples."""
        self.remembered = self.remember()
        self.over = False

    # A batch

    def ask(self) -> list[Trial]:
        """The new samples of a batch that V is not sure of; nothing while one of the last is due."""
        for _ in range(WITHOUT_TRAINING):
            if self.due or self.over:
                return []
            count = self.batch - self.from_buffer if self.replays else self.batch
            self.archs, self.log_p = self.agent.draw(count, self.rng)
            self.rewards = self.predicted()
            asked = [
                self.due.add(self.trial(arch), place)
                for place, arch in enumerate(self.archs)
                if math.isnan(self.rewards[place])
            ]
            if asked:
                return asked
            self.learn()  # V was sure of all
        self.over = True
        return []

    @property
    def replays(self) -> bool:
        """Whether the buffer holds enough for its share of a batch."""
        return self.buffer is not None and len(self.buffer.entries) >= max(1, self.from_buffer)

    def trial(self, arch: Architecture) -> Trial:
        """The training of `arch`, from the pool's blocks where there is a pool."""
        return Trial(self.space.settled(arch), self.proxy, origin=POOL if self.pool is not None else "")

    def predicted(self) -> Array:
        """UAC: V of the samples that it is sure of, nan for those to train."""
        rewards = np.full(len(self.archs), math.nan)
        self.checks = {}
        if self.uac is None or self.critic is None or len(self.critic.rewards) < self.uac.warm_up:
            return rewards
        tau = self.uac.threshold * float(self.critic.rewards[-RECENT:].std())
        values, doubts = self.critic.values(self.archs), self.critic.uncertainties(self.archs)
        audited = self.rng.random(len(self.archs)) < self.uac.audit
        for place, arch in enumerate(self.archs):
            sure = bool(doubts[place] <= tau and not audited[place])
            said = Prediction(self.space.settled(arch), float(values[place]), float(doubts[place]), tau, sure)
            self.predictions.append(said)
            if sure:
                rewards[place] = said.reward
            else:
                self.checks[place] = said
        return rewards

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples, in whatever order they come; with the last of a batch everything learns."""
        for evaluation in evaluations:
            place = self.due.take(evaluation.trial)
            self.rewards[place] = self.reward(evaluation.metrics)
            self.answers[place] = evaluation
            self.trained += 1
            if place in self.checks:
                self.checks[place].trained = float(self.rewards[place])
        if not self.due:
            self.learn()

    def learn(self) -> None:
        """PPO on the new samples and those replayed; then critic, buffer, stores and pool take in what was trained."""
        old = self.buffer.draw(self.from_buffer, self.rng) if self.buffer and self.replays else []
        archs = [*self.archs, *(arch for arch, _, _ in old)]
        used = np.concatenate([self.rewards, [reward for _, _, reward in old]])
        baseline = self.critic.values(archs) if self.critic and self.uac and self.uac.advantage == "critic" else 0.0
        self.agent.learn(archs, normalised(used - baseline), self.weights(old))

        trained = sorted(self.answers)
        if not trained:
            return
        some, rewards = [self.archs[place] for place in trained], self.rewards[trained]
        if self.critic is not None:
            self.critic.learn(some, rewards)
        if self.buffer:
            self.buffer.entries.extend(zip(some, self.log_p[trained].tolist(), rewards.tolist(), strict=True))
        if self.stores is not None:
            answers = [self.answers[place] for place in trained]
            self.stores.keep(answers, rewards.tolist(), self.log_p[trained].tolist())
        if self.pool is not None:
            self.pool.commit()
        self.answers = {}

    def weights(self, old: Sequence[tuple[Architecture, float, float]]) -> Array | None:
        """1 for new samples, rho for replayed ones."""
        if not old or not self.aeb:
            return None
        now = self.agent.log_probabilities([arch for arch, _, _ in old])
        then = np.array([log_p for _, log_p, _ in old])
        rho = np.exp(np.minimum(now - then, math.log(self.aeb.rho_cap)))
        self.rhos += rho.tolist()
        return np.concatenate([np.ones(len(self.archs)), rho])

    def remember(self) -> int:
        """Begin with what earlier searches trained in the same way; how many samples that is."""
        if self.stores is None:
            return 0
        example = self.trial(self.space.sample(np.random.default_rng(0)))
        found = [sample for sample in self.stores.earlier(example) if self.reward.known(sample[1])][-EARLIER:]
        rewards = [self.reward(metrics) for _, metrics, _ in found]
        if self.buffer:
            self.buffer.entries.extend((arch, log_p, r) for (arch, _, log_p), r in zip(found, rewards, strict=True))
        if self.critic is not None:
            for start in range(0, len(found), self.batch):
                some = slice(start, start + self.batch)
                self.critic.learn([arch for arch, _, _ in found[some]], np.array(rewards[some]))
        return len(found)

    # What is said of it

    @property
    def note(self) -> str:
        """Counts of trained, predicted and replayed samples, and how reliable the predictions were."""
        entropy = self.agent.policy.entropy()
        predicted = sum(said.used for said in self.predictions)
        said = [
            str(self.reward),
            f"final entropy {entropy:.1f} nats per decision",
            f"of {self.trained + predicted} new samples {self.trained} trained, {predicted} predicted",
        ]
        if self.uac or self.aeb:
            said.append(f"began with {self.remembered} earlier samples")
        if self.uac:
            audit = calibration(self.predictions)
            if audit.checked:
                covered = f"|V - R| within U for {audit.coverage:.0%} of {audit.checked} checked"
                said.append(covered + ("" if math.isnan(audit.correlation) else f", r = {audit.correlation:.1f}"))
        if self.rhos:
            low, middle, high, capped = self.rho_shares()
            said.append(
                f"{len(self.rhos)} replayed, rho below 0.5 {low:.0%}, to 1 {middle:.0%}, above {high:.0%}, "
                f"at its cap {capped:.0%}"
            )
        said.append(self.pool.note if self.pool is not None else "no weight pool")
        if self.over:
            said.append("ended: V was sure of everything")
        return ", ".join(said)

    def rho_shares(self) -> tuple[float, float, float, float]:
        """Histogram of rho over all replayed: below 0.5, up to 1, up to the cap, at the cap."""
        rho, cap = np.array(self.rhos), self.aeb.rho_cap if self.aeb else math.inf
        edges = (0.0, *RHO_BINS, cap * (1 - 1e-9), math.inf)
        shares = [float(((rho >= low) & (rho < high)).mean()) for low, high in pairwise(edges)]
        return shares[0], shares[1], shares[2], shares[3]
