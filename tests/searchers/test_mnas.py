"""MNAS: what its card says of the reward and of PPO must hold (properties 2, 3, 5, 6; 1 and 4 are of its space)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse, quality
from hypothesis import given
from hypothesis import strategies as st

from searchers.mnas import MNAS, Reward
from searchers.parts.policies import LSTM, RNNPolicy
from searchers.parts.ppo import PPO, Agent, normalised
from searchers.parts.rewards import GoalReward
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.types import BadInput, Cost, Evaluation, Goal, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
SOFT = Reward("latency_ms", 75.0, -0.07, -0.07)
HARD = Reward("latency_ms", 75.0, 0.0, -1.0)

errors = st.floats(0.0, 99.0)
latencies = st.floats(0.1, 1e4)


def learner(seed: int = 0, space: SearchSpace = SPACE, **options: object) -> MNAS:
    return MNAS(space, PROXY, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def answer(trial: Trial, accuracy: float, macs: float = 1e7) -> Evaluation:
    return Evaluation(trial, {"val_error": 100.0 - accuracy, "macs": macs}, Cost(1.0, "table:formula"))


def said(error: float, latency: float) -> dict[str, float]:
    return {"val_error": error, "latency_ms": latency}


@given(errors, latencies, st.floats(1.001, 10.0))
def test_2_the_reward_falls_with_the_latency(error, latency, times):
    assert SOFT(said(error, times * latency)) < SOFT(said(error, latency))


@given(errors)
def test_2_at_the_target_the_reward_is_the_accuracy(error):
    for reward in (SOFT, HARD):
        assert reward(said(error, 75.0)) == 1 - error / 100


@given(st.floats(10.0, 90.0), latencies)
def test_3_twice_the_latency_is_worth_five_percent_of_the_accuracy(accuracy, latency):
    dearer = SOFT(said(100 - 1.05 * accuracy, 2 * latency))
    assert dearer == pytest.approx(SOFT(said(100 - accuracy, latency)), rel=0.005)


def theta_after(weight: float, reward: float) -> tuple[np.ndarray, np.ndarray]:
    searcher = learner(ppo={"entropy_weight": weight})
    before = searcher.agent.policy.theta
    for _ in range(3):
        searcher.tell([answer(trial, reward) for trial in searcher.ask()])
    return before, searcher.agent.policy.theta


@pytest.mark.parametrize("accuracy", [0.0, 91.3])
def test_5_a_constant_reward_leaves_the_policy_to_its_entropy_term(accuracy):
    before, after = theta_after(0.0, accuracy)
    assert (after == before).all()
    before, after = theta_after(0.01, accuracy)
    assert (after != before).any()
    assert (after == theta_after(0.01, 50.0)[1]).all()  # whatever the constant


@given(st.floats(1.0, 99.0), st.floats(0.1, 75.0), st.floats(75.001, 1e4))
def test_6_under_the_hard_constraint_a_feasible_one_of_equal_accuracy_is_never_below(error, feasible, infeasible):
    assert HARD(said(error, feasible)) > HARD(said(error, infeasible))


# The reward


def test_a_failed_training_has_no_reward():
    for reward in (SOFT, HARD):
        assert reward(said(math.inf, math.inf)) == 0
        assert reward(said(10.0, math.inf)) == 0  # the device cannot run it


def test_the_winner_is_the_goals_and_not_the_one_with_the_best_reward():
    searcher, evaluator = learner(tradeoff={"constraint": "hard", "metric": "params", "target": 1.0}), Analytic(SPACE)
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=60))
    assert last.best is not None
    assert last.best.metrics["val_error"] == min(given.metrics["val_error"] for given in evaluator.answers)
    rewards = [searcher.reward(given.metrics) for given in evaluator.answers]
    assert searcher.reward(last.best.metrics) < max(rewards)


def test_rewarded_for_the_goal_it_knows_accuracy_and_limits_alone():
    searcher = learner(reward="goal", goal=Goal(limits={"macs": 2e7}))
    assert searcher.reward({"val_error": 20.0, "macs": 2e7}) == 0.8
    assert searcher.reward({"val_error": 20.0, "macs": 3e7}) == 0.0
    assert searcher.note.startswith("rewarded for the goal: least val_error with macs <= 2e+07, final entropy")
    with pytest.raises(Unsupported, match='reward "goal" follows a goal that minimises val_error first, not macs'):
        learner(reward="goal", goal=Goal(("macs",)))
    with pytest.raises(Unsupported, match="the goal limits 'energy_mj'; the evaluator gives macs, val_error"):
        GoalReward(Goal(limits={"energy_mj": 1.0}))({"val_error": 1.0, "macs": 1.0})


def test_the_target_is_the_median_of_the_same_networks_for_every_seed():
    targets = {learner(seed).reward.target for seed in range(3)}
    assert len(targets) == 1
    target = targets.pop()
    share = np.mean([SPACE.macs(SPACE.at(i), PROXY) <= target for i in range(0, SPACE.size, 23)])
    assert 0.35 < share < 0.65


class Frozen:
    """Resources that know a latency."""

    names = ("energy_mj", "latency_ms")

    def calibrate(self, proxy: Proxy) -> Frozen:
        assert proxy == PROXY
        return self

    def percentile(self, metric: str, share: float) -> float:
        return {"latency_ms": 4.0, "energy_mj": 9.0}[metric] * share / 50


def test_with_resources_the_target_is_their_median_and_the_latency_comes_first():
    assert learner(resources=Frozen()).reward == Reward("latency_ms", 4.0, -0.07, -0.07)
    chosen = learner(resources=Frozen(), tradeoff={"metric": "energy_mj", "constraint": "hard"})
    assert chosen.reward == Reward("energy_mj", 9.0, 0.0, -1.0)
    assert learner(resources=Frozen(), tradeoff={"target": 7, "a": -0.1, "b": -0.2}).reward == Reward(
        "latency_ms", 7.0, -0.1, -0.2
    )


def test_where_no_metric_is_known_the_reward_is_the_accuracy():
    searcher = learner(space=SPACES["nas_bench_macro"])
    assert searcher.reward({"val_error": 20.0}) == 0.8
    assert searcher.note.startswith("reward is the accuracy")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tradeoff": {"constraint": "firm"}}, "tradeoff.constraint must be one of soft, hard, not 'firm'"),
        ({"tradeoff": {"a": 0.07}}, "tradeoff.a must be a number of at most 0, not 0.07"),
        ({"tradeoff": {"metric": "latency_ms"}}, "no metric 'latency_ms' without training: there are macs, params"),
        (
            {"tradeoff": {"metric": "latency"}, "resources": Frozen()},
            "no metric 'latency' without training: did you mean 'latency_ms",
        ),
        ({"tradeoff": {"target": 0}}, "tradeoff.target must be a number above 0, not 0"),
        ({"batch": 1}, "batch must be a whole number of at least 2, not 1"),
        ({"ppo": {"clip": 0}}, "ppo.clip must be a number above 0, not 0"),
        ({"ppo": {"passes": 0}}, "ppo.passes must be a whole number of at least 1"),
        ({"ppo": {"pass": 4}}, "ppo: no option 'pass': did you mean 'passes'"),
        ({"ppo": 4}, "ppo must be a table of lr, clip, passes, entropy_weight, not 4"),
        ({"reward": "both"}, "reward must be one of own, goal, not 'both'"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(BadInput, match=f"^mnas: {says}"):
        learner(**options)


def test_an_answer_without_the_metric_is_refused():
    searcher = learner(tradeoff={"metric": "latency_ms", "target": 3.0})  # the evaluator may know it
    trials = searcher.ask()
    with pytest.raises(Unsupported, match="the reward needs 'latency_ms'; the evaluator gives macs, val_error"):
        searcher.tell([answer(trials[0], 90.0)])


# The policy


def policy(decisions: tuple[int, ...]) -> RNNPolicy:
    rng = np.random.default_rng(0)
    return RNNPolicy(decisions, rng, LSTM(hidden=8, embedding=4, tanh=0.0, temperature=1.0, spread=1.0))


def test_batched_log_probabilities_and_entropies_are_those_of_one_at_a_time():
    wide = policy((2, 4, 3))
    archs = list(itertools.product(range(2), range(4), range(3)))
    log_p, entropy = wide.evaluate(archs)
    assert log_p.detach().exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    for arch, one, of_one in zip(archs, log_p.tolist(), entropy.tolist(), strict=True):
        _, alone, its_entropy = wide.unroll(lambda place, _, arch=arch: arch[place])
        assert one == pytest.approx(alone.item(), abs=1e-12)
        assert of_one == pytest.approx(its_entropy.item(), abs=1e-12)


def test_batches_are_drawn_as_they_are_probable():
    wide, draws = policy((2, 3)), 4000
    archs, log_p = wide.draw(draws, np.random.default_rng(1))
    expected = {arch: draws * math.exp(wide.log_probability(arch)) for arch in itertools.product(range(2), range(3))}
    chi_square = sum((archs.count(arch) - number) ** 2 / number for arch, number in expected.items())
    assert chi_square < 20.5  # 99.9 % of chi-square with 5 degrees of freedom
    assert log_p[0] == pytest.approx(wide.log_probability(archs[0]), abs=1e-12)


def agent(**options: float) -> Agent:
    chosen = {"passes": 1, "entropy_weight": 0.0, **options}
    space, rng = SPACES["nas_bench_macro"], np.random.default_rng(0)
    size = LSTM(hidden=8, embedding=4, tanh=0.0, temperature=1.0, spread=0.3)
    return Agent(space, rng, PPO(**chosen), size)  # type: ignore[arg-type]


def test_the_first_pass_is_the_plain_policy_gradient():
    learning = agent()
    archs, _ = learning.draw(6, np.random.default_rng(0))
    advantages = normalised(np.arange(6.0))
    log_p, _ = learning.policy.evaluate(archs)
    plain = sum(a * learning.policy.slope(one) for a, one in zip(advantages, log_p, strict=True)) / 6
    steps = []
    learning.adam.step = lambda gradient: steps.append(gradient) or 0.0 * gradient  # type: ignore[method-assign,func-returns-value]
    learning.learn(archs, advantages)
    np.testing.assert_allclose(-steps[0], plain, atol=1e-12)


def test_beyond_the_clip_a_sample_pulls_no_further():
    learning = agent(lr=0.05, passes=60, clip=0.1)
    archs, before = learning.draw(2, np.random.default_rng(0))
    learning.learn(archs, np.array([1.0, -1.0]))
    ratio = np.exp(learning.log_probabilities(archs) - before)
    assert ratio[0] > 1.1  # it went there and stopped: Adam's momentum carries it a little on
    assert ratio[1] < 0.9
    unclipped = agent(lr=0.05, passes=60, clip=1e9)
    unclipped.learn(archs, np.array([1.0, -1.0]))
    assert np.exp(unclipped.log_probabilities(archs) - before)[0] > 1.2 * ratio[0]


def test_equal_advantages_are_none_and_others_have_spread_one():
    assert (normalised(np.full(5, 0.91)) == 0).all()
    some = normalised(np.array([0.9, 0.91, 0.7]))
    assert some.mean() == pytest.approx(0)
    assert some.std() == pytest.approx(1)


def test_it_learns_which_option_is_good():
    searcher = learner(ppo={"lr": 0.01}, lstm={"hidden": 16})
    for _ in range(40):
        searcher.tell([answer(trial, 10.0 + 10.0 * trial.arch.count(3)) for trial in searcher.ask()])
    assert searcher.agent.policy.likeliest() == (3,) * 6
    assert searcher.agent.policy.entropy() < 0.8


# Questions and answers


def test_a_batch_is_asked_at_once_and_waits_for_all_its_answers():
    searcher = learner()
    before, trials = searcher.agent.policy.theta, searcher.ask()
    assert len(trials) == 16
    searcher.tell([answer(trial, 50.0 + k) for k, trial in enumerate(trials[:15])])
    assert searcher.ask() == []
    assert (searcher.agent.policy.theta == before).all()
    searcher.tell([answer(trials[15], 90.0)])
    assert (searcher.agent.policy.theta != before).any()
    assert len(searcher.ask()) == 16


def test_the_order_of_the_answers_of_a_batch_changes_nothing():
    def after(order: int) -> np.ndarray:
        searcher = learner()
        answers = [answer(trial, quality(trial.arch)) for trial in searcher.ask()]
        searcher.tell(answers[::order])
        return searcher.agent.policy.theta

    assert (after(1) == after(-1)).all()


def test_resumed_it_draws_what_it_would_have_drawn():
    through, evaluator = learner(), Analytic(SPACE)
    whole = converse(through, evaluator, 64)
    again = learner()
    for start in range(0, 32, 16):
        assert again.ask() == whole[start : start + 16]
        again.tell(evaluator.answers[start : start + 16])
    assert converse(again, Analytic(SPACE), 32) == whole[32:]
