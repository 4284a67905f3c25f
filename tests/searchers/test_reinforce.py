"""REINFORCE: what its card says must hold, in the card's order, its variants and its departures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse, quality

from searchers.parts.adam import Adam
from searchers.parts.policies import LSTM, Baseline, Policy, RNNPolicy, TabularPolicy, drawn, logarithm
from searchers.random_search import RandomSearch
from searchers.reinforce import Reinforce
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.types import Architecture, BadInput, Cost, Evaluation, Proxy, Searcher, Trial

SPACE = SPACES["nas_bench_201"]
SHARED = Path(__file__).resolve().parents[3].parent / "shared"
POLICIES = ["tabular", "rnn"]


def learner(seed: int = 0, space: SearchSpace = SPACE, **options: object) -> Reinforce:
    return Reinforce(space, PROXY, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def policy(kind: str, decisions: Sequence[int], seed: int = 0, spread: float | None = None) -> Policy:
    rng = np.random.default_rng(seed)
    if kind == "tabular":
        return TabularPolicy(decisions, rng, 1e-3 if spread is None else spread)
    return RNNPolicy(decisions, rng, LSTM(hidden=8, embedding=4, spread=0.1 if spread is None else spread))


def answer(trial: Trial, accuracy: float) -> Evaluation:
    return Evaluation(trial, {"val_error": 100.0 - accuracy}, Cost(1.0, "table:formula"))


TOY = TabularPolicy((2,), np.random.default_rng(0), 0.0)
TOY.theta = np.array([0.4, -0.4])
TOY_REWARDS = np.array([90.0, 94.0])
TOY_GRADIENT = np.array([-0.8556, 0.8556])


def toy_draws(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (number, 2) and rewards (number,) of draws from the toy's policy."""
    rng = np.random.default_rng(0)
    of_option = {sample.arch[0]: sample.score for sample in (TOY.sample(rng) for _ in range(50))}
    options = drawn(np.repeat(TOY.probabilities, number, axis=0), rng.random((number, 1)))
    return np.array([of_option[0], of_option[1]])[options], TOY_REWARDS[options]


@pytest.mark.parametrize(
    ("baseline", "standard_error", "digit"), [("mean", 0.0022, 1e-4), (0.0, 0.136, 1e-3), (93.0, 0.0004, 1e-4)]
)
def test_1_the_gradient_is_unbiased_whatever_the_constant_baseline(baseline, standard_error, digit):
    mean = float(TOY.probabilities[0] @ TOY_REWARDS)
    scores, rewards = toy_draws(100_000)
    estimates = scores * (rewards - (mean if baseline == "mean" else baseline))[:, None]
    error = estimates.std(axis=0) / math.sqrt(len(estimates))
    assert error == pytest.approx(standard_error, abs=digit / 2)
    assert (np.abs(estimates.mean(axis=0) - TOY_GRADIENT) < 3 * error + 5e-5).all()  # the card has four digits


def test_1_taking_the_reward_in_first_shortens_the_gradient_to_the_momentum():
    def ratio(first: bool) -> float:
        scores, rewards = toy_draws(100_000)
        average = Baseline(0.9, first)
        advantages = np.array([average.advantage(reward) for reward in rewards.tolist()])
        return float((advantages * scores[:, 1]).mean() / TOY_GRADIENT[1])

    assert ratio(True) == pytest.approx(0.9, abs=0.01)
    assert ratio(False) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("decisions", [(3, 3, 3), (2, 4, 3)])
def test_2_the_probabilities_of_all_sequences_sum_to_one(kind, decisions):
    wide = policy(kind, decisions, spread=1.0)
    sequences = list(itertools.product(*map(range, decisions)))
    logs = [wide.log_probability(arch) for arch in sequences]
    assert sum(map(math.exp, logs)) == pytest.approx(1.0, abs=1e-6)
    assert max(logs) - min(logs) > 0.5
    rng = np.random.default_rng(1)
    for sample in (wide.sample(rng) for _ in range(20)):
        assert sample.log_probability == pytest.approx(wide.log_probability(sample.arch), abs=1e-9)


@pytest.mark.parametrize("kind", POLICIES)
def test_2_sequences_are_drawn_as_often_as_they_are_probable(kind):
    wide, rng, draws = policy(kind, (2, 3), spread=1.0), np.random.default_rng(1), 400
    counts = dict.fromkeys(itertools.product(range(2), range(3)), 0)
    for _ in range(draws):
        counts[wide.sample(rng).arch] += 1
    expected = {arch: draws * math.exp(wide.log_probability(arch)) for arch in counts}
    chi_square = sum((counts[arch] - expected[arch]) ** 2 / expected[arch] for arch in counts)
    assert chi_square < 20.5  # 99.9 % of chi-square with 5 degrees of freedom


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_3_the_first_policy_has_the_entropy_of_the_uniform_one(space):
    uniform = np.log(space.decisions)
    p = learner(space=space).policy
    assert isinstance(p, TabularPolicy)
    entropies = -(p.probabilities * logarithm(p.probabilities)).sum(axis=1)
    assert np.abs(entropies - uniform).max() < 1e-3
    assert p.entropy() == pytest.approx(uniform.mean(), abs=1e-3)


@pytest.mark.parametrize("baseline_first", [True, False])
def test_3_a_constant_reward_leaves_the_expected_logits_unchanged(baseline_first):
    drifts = []
    for seed in range(50):
        searcher = learner(seed, baseline_first=baseline_first)
        before = searcher.policy.theta
        for _ in range(30):
            (trial,) = searcher.ask()
            searcher.tell([answer(trial, 90.0)])
        drifts.append(searcher.policy.theta - before)
    error = np.std(drifts, axis=0, ddof=1) / math.sqrt(50)
    assert (np.abs(np.mean(drifts, axis=0)) <= 3 * error).all()


@pytest.mark.parametrize("workers", [1, 4])
def test_4_the_budget_is_never_exceeded_and_what_would_cross_it_never_wins(workers):
    for seed in range(20):
        searcher, evaluator = learner(seed), Analytic(SPACE)
        *_, last = run(searcher, evaluator, budget=Budget(device_s=1500), workers=workers)
        assert last.device_s <= 1500 < last.device_s + last.over_budget_s
        assert last.best is not None
        told = {arch for arch, *_ in searcher.trace}
        assert last.evaluations == len(searcher.trace)
        assert last.best.trial.arch in told


def test_4_a_perfect_answer_beyond_the_budget_is_not_recommended():
    evaluator = Analytic(SPACE)
    costs = [evaluator.evaluate(learner().ask())[0].cost.device_s]

    class LastIsPerfect(Analytic):
        def answer(self, trial):
            given = super().answer(trial)
            if len(self.answers) < 1:
                return given
            return Evaluation(trial, {"val_error": 0.0}, Cost(1e6, given.cost.device))

    *_, last = run(learner(), LastIsPerfect(SPACE), budget=Budget(device_s=costs[0] + 1))
    assert last.best is not None
    assert last.best.metrics["val_error"] > 0
    assert last.over_budget_s == 1e6


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [1, 4])
def test_5_the_winner_has_the_largest_reward_of_the_trace_the_earliest_of_equals(policy, workers):
    searcher, evaluator = learner(policy=policy), Analytic(SPACE, error=lambda arch: 5.0 * (quality(arch) // 5))
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=60), workers=workers)
    assert last.best is not None
    rewards = [reward for *_, reward in searcher.trace]
    assert searcher.trace[int(np.argmax(rewards))][0] == last.best.trial.arch
    assert max(rewards) == pytest.approx(1 - last.best.metrics["val_error"] / 100)
    assert rewards.count(max(rewards)) > 1


class NASBench201Table:
    """The simulation of the card: the reward is the mean test accuracy after 200 epochs."""

    name = "nb201.parquet"

    def __init__(self) -> None:
        import pandas as pd

        frame = pd.read_parquet(SHARED / "data" / "nb201.parquet", columns=["arch_str", "c10_test_200"])
        archs = [SPACE.parse(text) for text in frame["arch_str"]]
        self.accuracy = dict(zip(archs, frame["c10_test_200"].astype(float).tolist(), strict=True))

    def best(self, searcher: Searcher, samples: int) -> float:
        best = 0.0
        for _ in range(samples):
            (trial,) = searcher.ask()
            accuracy = self.accuracy[trial.arch]
            best = max(best, accuracy)
            searcher.tell([answer(trial, accuracy)])
        return best


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_6_on_nas_bench_201_it_reaches_the_cards_accuracy_and_beats_random_search():
    table, seeds = NASBench201Table(), range(200)
    ours = [table.best(learner(seed, lr=0.1), 100) for seed in seeds]
    random = [table.best(RandomSearch(SPACE, PROXY, np.random.default_rng((seed, 1))), 100) for seed in seeds]
    assert np.mean(ours) == pytest.approx(94.06, abs=0.05)
    assert np.mean(random) == pytest.approx(93.84, abs=0.05)
    error = math.sqrt((np.var(ours, ddof=1) + np.var(random, ddof=1)) / 200)
    assert np.mean(ours) - np.mean(random) > 3 * error


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("lr", "accuracy", "entropy"), [(0.001, 93.86, 1.61), (0.01, 93.91, 1.60), (0.1, 94.06, 1.13), (0.5, 93.63, 0.16)]
)
def test_6_every_learning_rate_of_the_cards_table(lr, accuracy, entropy):
    table, reached, entropies = NASBench201Table(), [], []
    for seed in range(200):
        searcher = learner(seed, lr=lr)
        reached.append(table.best(searcher, 100))
        entropies.append(searcher.policy.entropy())
    assert np.mean(reached) == pytest.approx(accuracy, abs=4 * np.std(reached) / math.sqrt(200))
    assert np.mean(entropies) == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [1, 4])
def test_7_same_seed_same_trace(policy, workers):
    def trace() -> list[tuple[Architecture, float, float, float]]:
        searcher = learner(policy=policy)
        list(run(searcher, Analytic(SPACE), budget=Budget(evaluations=40), workers=workers))
        return searcher.trace

    assert trace() == trace()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("k", [1, 13])
def test_7_resumed_at_step_k_it_draws_what_it_would_have_drawn(policy, k):
    through, evaluator = learner(policy=policy), Analytic(SPACE)
    converse(through, evaluator, 40)
    resumed = learner(policy=policy)
    for given in evaluator.answers[:k]:  # as the log has them
        assert resumed.ask() == [given.trial]
        resumed.tell([given])
    converse(resumed, Analytic(SPACE), 40 - k)
    assert resumed.trace == through.trace


# The pieces


@pytest.mark.parametrize(("betas", "epsilon"), [((0.9, 0.999), 1e-8), ((0.0, 0.999), 1e-3)])
def test_adam_steps_as_torchs_does(betas, epsilon):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(7)
    theirs = torch.tensor(theta, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.1, betas=betas, eps=epsilon)
    ours, adam = theta.copy(), Adam(0.1, betas, epsilon)
    for _ in range(50):
        gradient = rng.standard_normal(7) * 10 ** rng.uniform(-4, 2)
        ours = ours - adam.step(gradient)
        theirs.grad = torch.tensor(gradient)
        optimiser.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", POLICIES)
def test_scores_are_the_slopes_of_the_log_probability(kind):
    wide, h = policy(kind, (3, 2, 3), spread=0.7), 1e-6
    sample = wide.sample(np.random.default_rng(3))
    theta = wide.theta.copy()
    for place in np.random.default_rng(4).choice(len(theta), min(40, len(theta)), replace=False):
        ends = []
        for sign in (1, -1):
            wide.theta = theta + sign * h * (np.arange(len(theta)) == place)
            ends.append(wide.log_probability(sample.arch))
        slope = 0.0 if kind == "tabular" and place == 5 else (ends[0] - ends[1]) / (2 * h)  # 5: no such option
        assert sample.score[place] == pytest.approx(slope, abs=1e-6)


def test_the_entropys_slope_is_that_of_the_entropy():
    wide, h = policy("tabular", (3, 2), spread=0.7), 1e-6
    slopes, theta = wide.sample(np.random.default_rng(0)).entropy_slope, wide.theta.copy()
    for place in range(len(theta)):
        ends = []
        for sign in (1, -1):
            wide.theta = theta + sign * h * (np.arange(len(theta)) == place)
            ends.append(2 * wide.entropy())
        assert slopes[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-6)


def test_the_baseline_is_the_official_moving_average():
    before, after, numerator, denominator = Baseline(0.9, True), Baseline(0.9, False), 0.0, 0.0
    for reward in (90.0, 94.0, 10.0, 70.0):
        earlier = numerator / denominator if denominator else reward
        numerator, denominator = 0.9 * numerator + 0.1 * reward, 0.9 * denominator + 0.1
        assert before.advantage(reward) == pytest.approx(reward - numerator / denominator)
        assert after.advantage(reward) == pytest.approx(reward - earlier)


def test_the_tabular_baseline_steps_as_the_benchmarks_own_script():
    """Its loop in torch, fed with the same draws: `exps/NAS-Bench-201-algos/reinforce.py`."""
    torch = pytest.importorskip("torch")
    searcher = learner(lr=0.01, scale=100.0)
    theta = torch.tensor(searcher.policy.theta.reshape(6, 5), requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.01)
    numerator = denominator = 0.0
    for _ in range(60):
        (trial,) = searcher.ask()
        reward = 100.0 - quality(trial.arch)
        searcher.tell([answer(trial, reward)])
        numerator, denominator = 0.9 * numerator + 0.1 * reward, 0.9 * denominator + 0.1
        log_probability = torch.log_softmax(theta, -1)[range(6), list(trial.arch)]
        optimiser.zero_grad()
        (-log_probability * (reward - numerator / denominator)).sum().backward()
        optimiser.step()
        np.testing.assert_allclose(searcher.policy.theta, theta.detach().numpy().ravel(), atol=1e-7)


@pytest.mark.parametrize(("policy", "lr", "steps"), [("tabular", 0.1, 600), ("rnn", 0.03, 200)])
def test_the_policy_learns_which_option_is_good(policy, lr, steps):
    searcher = learner(policy=policy, samples=2, lr=lr, epsilon=1e-8, lstm={"hidden": 16})
    for _ in range(steps):
        (trial,) = searcher.ask()
        searcher.tell([answer(trial, 10.0 * trial.arch.count(3))])
    assert searcher.policy.likeliest() == (3,) * 6
    assert searcher.policy.entropy() < 0.8


def test_a_step_averages_n_answers_and_moves_nothing_before():
    searcher = learner(samples=3)
    first = searcher.policy.theta
    for k in range(3):
        assert (searcher.policy.theta == first).all()
        (trial,) = searcher.ask()
        searcher.tell([answer(trial, 50.0 + k)])
    assert (searcher.policy.theta != first).any()


def test_late_answers_are_credited_to_the_policy_that_drew_them():
    searcher = learner(lr=1.0)
    (early,) = searcher.ask()
    drawn_with = np.eye(5)[list(early.arch)].ravel() - searcher.policy.probabilities.ravel()  # type: ignore[attr-defined]
    for accuracy in (20.0, 90.0, 20.0, 90.0):
        (trial,) = searcher.ask()
        searcher.tell([answer(trial, accuracy)])
    searcher.adam.step = lambda gradient: gradient  # type: ignore[method-assign]
    before, average = searcher.policy.theta, searcher.baseline
    searcher.tell([answer(early, 70.0)])
    np.testing.assert_allclose(searcher.policy.theta - before, (0.7 - average.value) * drawn_with)


def test_a_failed_training_is_rewarded_with_0():
    searcher = learner()
    (trial,) = searcher.ask()
    searcher.tell([Evaluation(trial, {"val_error": math.inf}, Cost(1.0, "table:formula"), "diverged")])
    assert searcher.trace[-1][-1] == 0.0
    assert np.isfinite(searcher.policy.theta).all()


def test_an_entropy_bonus_keeps_the_policy_closer_to_uniform():
    def final(**options: object) -> float:
        searcher = learner(lr=0.3, **options)
        converse(searcher, Analytic(SPACE), 150)
        return searcher.policy.entropy()

    assert final(entropy_weight=0.1, entropy_bonus="loss") > final() + 0.1
    assert final(entropy_weight=0.0, entropy_bonus="loss") == final()
    assert final(entropy_weight=0.1, entropy_bonus="reward") != final()


def test_a_gradient_is_clipped_to_its_largest_norm():
    searcher = learner(samples=2, clip=0.001, baseline_first=False)
    asked = [searcher.ask()[0] for _ in range(2)]
    searcher.told = [(searcher.due[trial][0], 0.1 + 0.8 * k) for k, trial in enumerate(asked)]
    assert np.linalg.norm(searcher.ascent()) == pytest.approx(0.001)


def test_the_recurrent_policy_leaves_torchs_random_state_alone():
    torch = pytest.importorskip("torch")
    before = torch.random.get_rng_state()
    converse(learner(policy="rnn"), Analytic(SPACE), 10)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_recurrent_policy_of_the_card_has_64_units_and_steps_of_four():
    searcher = learner(policy="rnn")
    assert isinstance(searcher.policy, RNNPolicy)
    assert (searcher.policy.lstm.hidden_size, searcher.policy.lstm.num_layers) == (64, 1)
    assert (searcher.lr, searcher.samples, searcher.baseline.momentum, searcher.entropy_weight) == (1e-3, 4, 0.95, 1e-4)
    assert np.abs(searcher.policy.theta).max() <= 0.1


def test_the_note_states_learning_rate_and_final_entropy():
    assert learner().note == "lr 0.1, final entropy 1.6 nats per decision"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"policy": "gru"}, "policy must be one of tabular, rnn, not 'gru'"),
        ({"lr": 0}, "lr must be a number above 0, not 0"),
        ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
        ({"momentum": 1.5}, r"momentum must be a number in \[0, 1\], not 1.5"),
        ({"betas": [0.9]}, r"betas must be two numbers in \[0, 1\), not \[0.9\]"),
        ({"entropy_bonus": "both"}, "entropy_bonus must be one of reward, loss, not 'both'"),
        ({"entropy_weight": -1}, "entropy_weight must be a number of at least 0, not -1"),
        ({"clip": math.inf}, "clip must be a number of at least 0, not inf"),
        ({"lstm": {"hidden": 0}, "policy": "rnn"}, "lstm.hidden must be a whole number of at least 1, not 0"),
    ],
)
def test_a_wrong_option_is_refused(options, complaint):
    with pytest.raises(BadInput, match=complaint):
        learner(**options)


def test_a_decision_without_choice_is_no_obstacle():
    class One(type(SPACE)):  # type: ignore[misc]
        decisions = (1, 3)

    for kind in POLICIES:
        searcher = Reinforce(One(), Proxy(12, 16, 32), np.random.default_rng(0), policy=kind)
        for _ in range(20):
            (trial,) = searcher.ask()
            assert trial.arch[0] == 0
            searcher.tell([answer(trial, 50.0 + trial.arch[1])])


def main() -> None:
    """Print the table of the simulation in docs/methods/reinforce.md."""
    table = NASBench201Table()
    print("policy, learning rate, seeds: best seen, its standard deviation, final entropy, likeliest architecture")
    for kind, lr, seeds in [("tabular", lr, 200) for lr in (0.001, 0.01, 0.1, 0.5)] + [("rnn", 0.001, 20)]:
        searchers = [learner(seed, policy=kind, lr=lr) for seed in range(seeds)]
        best = [table.best(searcher, 100) for searcher in searchers]
        entropy = np.mean([searcher.policy.entropy() for searcher in searchers])
        likeliest = np.mean([table.accuracy[searcher.policy.likeliest()] for searcher in searchers])
        print(
            f"{kind}, {lr}, {seeds}: {np.mean(best):.2f}, {np.std(best):.2f}, {entropy:.2f}, {likeliest:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
