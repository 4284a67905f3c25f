"""MONAS: the checkable properties of its card, by their numbers, then its options, outcomes and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality

from searchers.monas import MONAS
from searchers.parts.policies import TabularPolicy, drawn
from searchers.reinforce import Reinforce
from suite.resources.beside import WithResources
from suite.resources.sources import Formulas, Reading, Resources
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.types import (
    ERROR_ALONE,
    Architecture,
    BadInput,
    Cost,
    Evaluation,
    Evaluator,
    Goal,
    Proxy,
    Recommendation,
    Trial,
    Unsupported,
)

SPACE = SPACES["nas_bench_201"]
AS_PLAIN = {"lr": 3e-3, "samples": 1, "momentum": 0.9, "entropy_weight": 0.0, "betas": (0.9, 0.999), "epsilon": 1e-8,
            "clip": 0.0}  # fmt: skip
"""MONAS's numbers as options of plain REINFORCE."""
POLICIES = {"tabular": {"policy": "tabular", "lr": 0.1}, "rnn": {"policy": "rnn"}}


class Formula:
    """A resource that is a formula of the architecture."""

    names: tuple[str, ...] = ("energy_mj",)

    def __init__(self, energy: Callable[[Architecture], float], name: str = "energy_mj") -> None:
        self.energy, self.names = energy, (name,)
        self.asked = 0

    def of(self, arch: Architecture, proxy: Proxy) -> Reading:
        self.asked += 1
        return Reading({self.names[0]: self.energy(arch)})

    def about(self) -> list[dict[str, object]]:
        return [{"metric": self.names[0]}]


def energy(arch: Architecture) -> float:
    """Between 10 and 34 mJ, and no two alike in a hurry."""
    return 10.0 + sum(arch) + sum(option / 7.0 ** (i + 1) for i, option in enumerate(arch))


def resources(space: SearchSpace = SPACE, name: str = "energy_mj", of: Callable[..., float] = energy) -> Resources:
    return Resources(space, [Formula(of, name)])


def monas(seed: int = 0, held: Resources | None = None, space: SearchSpace = SPACE, **options: object) -> MONAS:
    given = {"resources": held or resources(space), **options}
    return MONAS(space, PROXY, np.random.default_rng(seed), **given)  # type: ignore[arg-type]


def search(
    searcher: MONAS | Reinforce, evaluator: Evaluator, evaluations: int = 60, workers: int = 1, goal: Goal = ERROR_ALONE
) -> list[Recommendation]:
    return list(run(searcher, evaluator, budget=Budget(evaluations=evaluations), goal=goal, workers=workers))


def answers(
    space: SearchSpace = SPACE, *, error: Callable[..., float] = quality, of: Callable[..., float] = energy,
    name: str = "energy_mj",
) -> WithResources:  # fmt: skip
    return WithResources(Analytic(space, error=error), resources(space, name, of))


def answer(trial: Trial, val_error: float, **metrics: float) -> Evaluation:
    return Evaluation(trial, {"val_error": val_error, **metrics}, Cost(1.0, "table:formula"))


# 1


def test_1_the_estimator_of_the_gradient_is_unbiased_without_a_baseline_too():
    toy = TabularPolicy((2,), np.random.default_rng(0), 0.0)
    toy.theta = np.array([0.4, -0.4])
    rewards, exact = np.array([90.0, 94.0]), np.array([-0.8556, 0.8556])
    rng = np.random.default_rng(0)
    samples = {sample.arch[0]: sample for sample in (toy.sample(rng) for _ in range(50))}
    options = drawn(np.repeat(toy.probabilities, 100_000, axis=0), rng.random((100_000, 1)))
    searcher = monas(baseline="none", policy="tabular")
    searcher.policy = toy
    gradients = []
    for option in (0, 1):  # the searcher's own estimate of each option, as many times as it was drawn
        searcher.told = [(samples[option], float(rewards[option]))]
        gradients.append(searcher.ascent())
    estimates = np.array(gradients)[options]
    error = estimates.std(axis=0) / math.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - exact) < 3 * error + 5e-5).all()


# 2


@pytest.mark.parametrize(
    ("options", "name", "goal"),
    [
        ({"reward": "constraint", "limit": 21.0}, "peak_power_w", Goal(limits={"peak_power_w": 21.0})),
        ({"reward": "constraint", "limit": 21.0, "precheck": True}, "macs", Goal(limits={"macs": 21.0})),
        ({"reward": "accuracy", "limit": 0.6}, "energy_mj", Goal(("energy_mj",), limits={"val_error": 40.0})),
    ],
)
@pytest.mark.parametrize("workers", [1, 4])
def test_2_no_winner_breaks_the_constraint_that_its_goal_has_too(options, name, goal, workers):
    ((metric, limit),) = goal.limits.items()
    won = 0
    for seed in range(8):
        searcher = monas(seed, resources(name=name), policy="tabular", lr=0.1, **options)
        for now in search(searcher, answers(name=name), workers=workers, goal=goal):
            if now.best is not None:
                assert now.best.metrics[metric] <= limit
                won += 1
    assert won > 100


@pytest.mark.parametrize(
    "options", [{"reward": "constraint", "limit": 9.0}, {"reward": "accuracy", "limit": 0.999}, {"precheck": True,
                "reward": "constraint", "limit": 9.0}]
)  # fmt: skip
def test_2_where_nothing_is_feasible_the_search_ends_after_64_samples_with_no_winner(options):
    searcher = monas(policy="tabular", **options)
    limit = {"val_error": 0.1} if options["reward"] == "accuracy" else {"energy_mj": 9.0}
    seen = search(searcher, answers(), 200, goal=Goal(limits=limit))
    assert all(now.best is None for now in seen)
    assert len(seen) == (0 if options.get("precheck") else 64)
    assert len(searcher.trace) == 64
    assert "no feasible sample of 64" in searcher.note


def test_2_the_reward_of_a_feasible_sample_is_what_it_saves_of_the_range():
    searcher = monas(reward="accuracy", limit=0.5, low=0.0, high=1.0)
    assert searcher.reward_of({"val_error": 10.0, "energy_mj": 2.0}) == 0.0  # E = 1
    assert searcher.reward_of({"val_error": 10.0, "energy_mj": 0.25}) == 0.75
    assert searcher.reward_of({"val_error": 60.0, "energy_mj": 0.25}) == 0.0


def test_rewarded_for_the_goal_it_knows_accuracy_and_limits_alone():
    searcher = monas(reward="goal", goal=Goal(limits={"macs": 5.0}), policy="tabular")
    assert searcher.reward_of({"val_error": 20.0, "macs": 5.0, "energy_mj": 30.0}) == 0.8
    assert searcher.reward_of({"val_error": 20.0, "macs": 6.0, "energy_mj": 10.0}) == 0.0
    assert not searcher.is_feasible({"val_error": 20.0, "macs": 6.0})
    assert searcher.note.startswith("rewarded for the goal: least val_error with macs <= 5")


# 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [1, 3])
def test_3_alpha_1_is_plain_reinforce(policy, workers):
    options = {**POLICIES[policy], "samples": 2}
    ours = monas(3, alpha=1.0, **options)
    base = Reinforce(SPACE, PROXY, np.random.default_rng(3), **{**AS_PLAIN, **options})  # type: ignore[arg-type]
    asked, plain = Analytic(SPACE), Analytic(SPACE)
    mine = search(ours, WithResources(asked, resources()), 24, workers)
    theirs = search(base, plain, 24, workers)
    assert [given.trial for given in asked.answers] == [given.trial for given in plain.answers]
    assert mine[-1].best is not None
    assert theirs[-1].best is not None
    assert mine[-1].best.trial == theirs[-1].best.trial
    assert [reward for _, reward in ours.trace] == [reward for *_, reward in base.trace]
    assert (ours.policy.theta == base.policy.theta).all()


def test_3_with_alpha_0_accuracies_make_no_difference():
    def archs(error: Callable[[Architecture], float]) -> list[Architecture]:
        searcher = monas(alpha=0.0, policy="tabular", lr=0.1)
        search(searcher, answers(error=error))
        return [arch for arch, _ in searcher.trace]

    permuted = np.random.default_rng(0).permutation(SPACE.size)
    assert archs(quality) == archs(lambda arch: quality(SPACE.at(int(permuted[SPACE.index(arch)]))))


# 4


def test_4_a_violators_reward_is_0_and_a_feasible_samples_its_accuracy_bit_for_bit():
    searcher = monas(reward="constraint", limit=20.0, policy="tabular")
    asked = Analytic(SPACE)
    search(searcher, WithResources(asked, resources()))
    assert {reward == 0.0 for _, reward in searcher.trace} == {True, False}
    for given, (arch, reward) in zip(asked.answers, searcher.trace, strict=True):
        accuracy = 1.0 - given.metrics["val_error"] / 100.0
        assert reward == (accuracy if energy(arch) < 20.0 else 0.0)


def test_4_a_limit_is_broken_by_equality():
    searcher = monas(reward="constraint", limit=20.0)
    assert searcher.reward_of({"val_error": 10.0, "energy_mj": 20.0}) == 0.0
    assert searcher.reward_of({"val_error": 10.0, "energy_mj": math.nextafter(20.0, 0)}) == 0.9


# 5


class Grid(SearchSpace):
    """The card's 3 x 3 table: two decisions of three options."""

    name = "grid"
    decisions = (3, 3)
    full = PROXY
    paper = "none"

    def text(self, arch: Architecture) -> str:
        return "".join(map(str, arch))

    def parse(self, text: str) -> Architecture:
        return tuple(map(int, text))


def test_5_a_smaller_alpha_never_makes_the_winners_costlier():
    """Accuracy and energy both grow with the option, accuracy with falling returns: each alpha has its own optimum."""
    grid = Grid()
    accuracy = ((0.0, 30.0, 40.0), (0.0, 27.0, 32.0))

    def error(arch: Architecture) -> float:
        return 85.0 - sum(gains[option] for gains, option in zip(accuracy, arch, strict=True))

    means = []
    for alpha in (1.0, 0.75, 0.5, 0.25):
        winners = []
        for seed in range(20):
            held = resources(grid, of=lambda arch: float(sum(arch)))
            searcher = monas(seed, held, grid, alpha=alpha, policy="tabular", lr=0.1)
            search(searcher, WithResources(Analytic(grid, error=error), held), 60)
            arch, _ = max(searcher.trace, key=lambda entry: entry[1])  # the paper's winner: the largest reward
            winners.append(float(sum(arch)))
        means.append(float(np.mean(winners)))
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 3


# 6


def test_6_the_normaliser_is_frozen_and_the_same_for_every_search_of_a_run():
    held = resources()
    searcher, probe = monas(0, held, alpha=0.5, policy="tabular"), {"val_error": 10.0, "energy_mj": 17.0}
    first = searcher.normalised(probe)
    search(searcher, answers(), 100)
    assert searcher.normalised(probe) == first
    assert monas(1, held.view(), alpha=0.5, policy="tabular").normalised(probe) == first
    assert 0 < first < 1
    for value, share in ((0.0, 0.0), (1e9, 1.0), (math.inf, 1.0)):
        assert searcher.normalised({"val_error": 10.0, "energy_mj": value}) == share


def test_6_the_calibration_draws_nothing_from_the_searchs_own_chance():
    with_range = monas(5, alpha=0.5, low=1.0, high=2.0, policy="tabular")
    assert monas(5, alpha=0.5, policy="tabular").ask() == with_range.ask()


# 7: tests/test_measure.py has it for a steady and an unsteady meter, and for a GPU


# 8


def test_8_tightening_the_limit_never_makes_more_samples_of_a_trace_feasible():
    trace = [SPACE.sample(np.random.default_rng(seed)) for seed in range(200)]
    counts = []
    for limit in np.linspace(40, 5, 36):
        searcher = monas(reward="constraint", limit=float(limit), policy="tabular")
        told = [{"val_error": quality(arch), "energy_mj": energy(arch)} for arch in trace]
        counts.append(sum(map(searcher.is_feasible, told)))
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (200, 0)


# Options


def test_a_percentile_is_that_of_the_64_random_architectures():
    held = resources()
    searcher = monas(0, held, reward="constraint", percentile=25)
    assert searcher.limit == held.calibrate(PROXY).percentile("energy_mj", 25)
    assert monas(0, held, reward="constraint", percentile=75).limit > searcher.limit


def test_the_metric_is_the_papers_else_multiply_adds_else_the_only_one():
    several = Resources(SPACE, [Formulas(SPACE), Formula(energy), Formula(energy, "peak_power_w")])
    assert monas(held=several).metric == "energy_mj"
    assert monas(held=several, reward="constraint", limit=1.0).metric == "peak_power_w"
    assert monas(held=Resources(SPACE, [Formulas(SPACE)])).metric == "macs"
    assert monas(held=Resources(SPACE, [Formula(energy, "latency_ms")])).metric == "latency_ms"
    assert monas(held=several, metric="params", reward="constraint", limit=1e8).metric == "params"


def test_a_precheck_rejects_before_training_and_pays_nothing_for_it():
    source = Formula(energy)
    held = Resources(SPACE, [source])
    searcher = monas(0, held, reward="constraint", limit=20.0, precheck=True, policy="tabular")
    asked = Analytic(SPACE)
    last = search(searcher, WithResources(asked, held))[-1]
    assert last.evaluations == len(asked.answers) == 60
    assert all(energy(given.trial.arch) < 20.0 for given in asked.answers)
    assert searcher.rejected == searcher.infeasible > 10
    assert len(searcher.trace) == 60 + searcher.rejected
    assert f"{searcher.rejected} rejected untrained" in searcher.note


def test_with_a_precheck_the_policy_learns_what_it_learns_without():
    """Same samples, same rewards: only what is trained differs."""
    traces = []
    for precheck in (False, True):
        searcher = monas(1, reward="constraint", limit=20.0, precheck=precheck, policy="tabular", lr=0.1)
        search(searcher, answers(), 60)
        traces.append(searcher.trace)
    length = min(map(len, traces))
    assert traces[0][:length] == traces[1][:length]


def test_a_precheck_that_rejects_everything_ends_the_search_whatever_its_patience():
    searcher = monas(reward="constraint", limit=9.0, precheck=True, patience=0, policy="tabular")
    assert searcher.ask() == []


def test_without_a_baseline_zero_rewards_teach_nothing():
    searcher = monas(reward="constraint", limit=9.0, baseline="none", policy="tabular")
    before = searcher.policy.theta
    search(searcher, answers(), 20)
    assert (searcher.policy.theta == before).all()


def test_it_learns_to_keep_a_limit_that_random_architectures_break():
    searcher = monas(reward="constraint", percentile=25, policy="tabular", lr=0.1)
    search(searcher, answers(), 300)
    rewards = np.array([reward for _, reward in searcher.trace])
    assert (rewards[-100:] > 0).mean() > (rewards[:100] > 0).mean() + 0.2


def test_the_recurrent_policy_of_the_card_is_the_default():
    searcher = monas()
    assert (searcher.policy.lstm.hidden_size, searcher.policy.lstm.num_layers) == (64, 1)  # type: ignore[attr-defined]
    assert (searcher.adam.lr, searcher.samples, searcher.patience, searcher.precheck) == (3e-3, 1, 64, False)


def test_without_resources_the_mixed_reward_is_the_accuracy():
    searcher = MONAS(SPACE, PROXY, np.random.default_rng(0), policy="tabular")
    search(searcher, Analytic(SPACE), 20)
    assert searcher.note.startswith("alpha 1, no resource, final entropy")


def test_a_metric_of_the_evaluators_own_needs_no_resources():
    searcher = MONAS(
        SPACE, PROXY, np.random.default_rng(0), policy="tabular", reward="constraint", metric="params", limit=10.0
    )
    last = search(searcher, Analytic(SPACE))[-1]
    assert last.best is not None
    assert last.best.metrics["params"] < 10


def test_a_failed_training_has_accuracy_0():
    for options in ({"alpha": 0.75}, {"reward": "constraint", "limit": 20.0}, {"reward": "accuracy", "limit": 0.5}):
        searcher = monas(policy="tabular", **options)
        failed = {"val_error": math.inf, "energy_mj": math.inf}
        assert searcher.reward_of(failed) == (-0.25 if "alpha" in options else 0.0)
        assert not searcher.is_feasible(failed)
        (trial,) = searcher.ask()
        searcher.tell([answer(trial, **failed)])
        assert np.isfinite(searcher.policy.theta).all()


def test_what_the_device_cannot_run_is_infeasible():
    for options in ({"alpha": 1.0}, {"reward": "constraint", "limit": 20.0}):
        assert not monas(**options).is_feasible({"val_error": 1.0, "energy_mj": math.inf})


def test_late_answers_are_credited_to_the_policy_that_drew_them():
    searcher = monas(policy="tabular", lr=1.0, alpha=1.0)
    early = searcher.ask()[0]
    score = searcher.due[early][0].score
    for _ in range(3):
        (trial,) = searcher.ask()
        searcher.tell([answer(trial, 50.0, energy_mj=20.0)])
    searcher.adam.step = lambda gradient: gradient  # type: ignore[method-assign]
    before, average = searcher.policy.theta, searcher.baseline
    searcher.tell([answer(early, 30.0, energy_mj=20.0)])
    assert average is not None
    np.testing.assert_allclose(searcher.policy.theta - before, (0.7 - average.value) * score)


# Refusals


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"reward": "product"}, "reward must be one of mixed, constraint, accuracy, goal, not 'product'"),
        ({"policy": "gru"}, "policy must be one of rnn, tabular, not 'gru'"),
        ({"baseline": "mean"}, "baseline must be one of average, none, not 'mean'"),
        ({"alpha": 1.5}, r"alpha must be a number in \[0, 1\], not 1.5"),
        ({"limit": 3.0}, "limit, percentile and precheck belong to a constraint"),
        ({"reward": "constraint"}, "needs limit or percentile, one of the two"),
        ({"reward": "constraint", "limit": 3.0, "percentile": 50}, "needs limit or percentile, one of the two"),
        ({"reward": "constraint", "percentile": 101}, r"percentile must be a number in \[0, 100\], not 101"),
        ({"reward": "constraint", "limit": 0}, "limit must be a number above 0, not 0"),
        ({"reward": "accuracy"}, "the reward 'accuracy' needs limit"),
        ({"reward": "accuracy", "limit": 60}, r"limit must be a number in \[0, 1\] under the reward 'accuracy', not"),
        ({"low": 1.0}, "give low and high, or neither"),
        ({"low": 3.0, "high": 2.0}, "high must be a number above low = 3, not 2"),
        ({"reward": "constraint", "metric": "watts", "percentile": 5}, "no source of watts to calibrate with"),
        ({"reward": "constraint", "metric": "watts", "limit": 5, "precheck": True}, "precheck needs watts without tr"),
        ({"metric": "watts"}, "no source of watts to calibrate with"),
        ({"spread": 0.1}, "spread is the tabular policy's; write lstm.spread for the recurrent one's"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(options, complaint):
    with pytest.raises(BadInput, match=f"monas: .*{complaint}"):
        monas(**options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"alpha": 0.5}, "monas: alpha 0.5 needs a metric"),
        ({"reward": "constraint", "limit": 5.0}, "monas: the reward 'constraint' needs a metric"),
    ],
)
def test_an_objective_without_a_resource_is_refused(options, complaint):
    with pytest.raises(BadInput, match=complaint):
        MONAS(SPACE, PROXY, np.random.default_rng(0), **options)


def test_a_choice_among_several_resources_is_left_to_the_user():
    held = Resources(SPACE, [Formula(energy, "latency_ms"), Formula(energy, "chip_latency_ms")])
    with pytest.raises(
        BadInput, match="name the metric of the reward 'constraint'; the resources are latency_ms, chip_"
    ):
        monas(held=held, reward="constraint", limit=5.0)


def test_a_metric_that_the_answers_do_not_hold_is_refused():
    searcher = monas(reward="constraint", metric="watts", limit=5.0, policy="tabular")
    with pytest.raises(Unsupported, match=r"hold no 'watts' but energy_mj, macs, params, val_error; add a source"):
        search(searcher, answers())
