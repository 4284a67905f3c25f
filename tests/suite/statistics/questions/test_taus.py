import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.statistics.bootstrap import bootstrap
from suite.statistics.measures import kendall_tau
from suite.statistics.paired import compare
from suite.statistics.questions.differences import p_value
from suite.statistics.questions.taus import _row_sums, checked, covariances, kernel, taus
from suite.types import BadInput


def rng(seed=0):
    return np.random.default_rng(seed)


def noisy(n, noises, seed=0, decimals=9):
    """Errors of proxies that differ in noise, and the truth; few decimals make ties."""
    r = rng(seed)
    truth = r.normal(size=n)
    errors = {f"p{i}": np.round(truth + noise * r.normal(size=n), decimals) for i, noise in enumerate(noises)}
    return errors, np.round(truth, decimals)


def test_values_are_the_suites_tau_b_with_failures_counted():
    errors, truth = noisy(40, (0.5, 1.0), decimals=1)
    errors["p0"][[3, 9]] = math.inf
    found = taus(errors, truth)
    assert found.values.tolist() == [kendall_tau(x, truth) for x in errors.values()]
    assert found.failed == (2, 0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=30))
def test_row_sums_by_merging_are_those_of_the_whole_kernel(values):
    x, y = np.array(values, float).T
    if len(set(x)) > 1 and len(set(y)) > 1:
        x[x == 4] = math.inf
        assert _row_sums(x, y) == pytest.approx(kernel(x, y).sum(1), abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 9])
@pytest.mark.parametrize("n", [50, 200])
def test_intervals_of_differences_are_those_of_the_bootstrap(n, decimals):
    ratios = []
    for seed in range(6):
        errors, truth = noisy(n, (1.0, 1.5), seed, decimals)
        drawn = compare(*errors.values(), truth, draws=1500, rng=rng(seed))
        closed = taus(errors, truth).interval([1, -1])
        assert closed.value == pytest.approx(drawn.value)
        ratios.append((closed.high - closed.low) / (drawn.high - drawn.low))
    assert np.mean(ratios) == pytest.approx(0.98, abs=0.03)


def test_the_variance_of_one_tau_is_that_of_its_bootstrap_interval():
    errors, truth = noisy(100, (1.0,), decimals=1)
    found = taus(errors, truth)
    drawn = bootstrap(errors["p0"], truth, draws=3000, rng=rng())["tau"]
    (z,), (worth,) = found.fisher()
    reach = 1.984 * worth * found.covariance([1])[0, 0] ** 0.5
    assert (math.tanh(z - reach), math.tanh(z + reach)) == pytest.approx((drawn.low, drawn.high), abs=0.01)


def test_unbiased_variances_average_to_what_repeated_studies_show():
    values, said = [], []
    for seed in range(300):
        errors, truth = noisy(15, (1.0, 1.0), seed)
        found = taus(errors, truth)
        values.append(found.values[0] - found.values[1])
        said.append(found.unbiased[0, 0] + found.unbiased[1, 1] - 2 * found.unbiased[0, 1])
    assert np.mean(said) == pytest.approx(np.var(values), rel=0.2)


def test_many_networks_take_the_row_sums_only(monkeypatch):
    errors, truth = noisy(300, (1.0, 0.5), decimals=1)
    pairs = [(x, truth) for x in errors.values()]
    whole, exact = covariances(pairs)
    monkeypatch.setattr("suite.statistics.questions.taus.WHOLE_UP_TO", 200)
    rows, again = covariances(pairs)
    assert rows == pytest.approx(whole)
    assert again == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize(
    ("errors", "truth", "line"),
    [
        ({}, [1, 2, 3], "no proxy"),
        ({"p": [1, 2]}, [1, 2], "at least 3 networks, not 2"),
        ({"p": [1, 2, math.nan]}, [1, 2, 3], "proxy 'p': NaN at network 2"),
        ({"p": [1, 2, 3]}, [1, 2, math.nan], "truth: NaN"),
        ({"p": [math.inf] * 3}, [1, 2, 3], "all 3 errors are inf"),
        ({"p": [1, 2, 3]}, [5, 5, 5], "truth: all 3 errors are 5"),
        ({"p": [1, 2, 3, 4]}, [1, 2, 3], "the same networks"),
        ({"p": [[1, 2, 3]]}, [1, 2, 3], "shape"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(errors, truth, line):
    with pytest.raises(BadInput, match=line):
        checked(errors, truth)


def test_three_networks_are_enough_for_a_wide_interval():
    found = taus({"p": [1, 2, 3], "q": [2, 1, 3]}, [1, 3, 2]).interval([1, -1])
    assert found.high - found.low > 1


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_variance_of_0_on_few_networks_is_no_proof(n):
    truth = np.arange(float(n))
    found = taus({"right": truth, "wrong": -truth}, truth)
    assert p_value(found.interval([1, -1])) == pytest.approx(2 / math.factorial(n))
    assert p_value(taus({"a": truth, "b": truth}, truth).interval([1, -1])) == 1


def test_a_perfect_tau_has_no_fisher_z():
    with pytest.raises(BadInput, match="tau is 1 on 4 networks"):
        taus({"p": [1, 2, 3, 4]}, [1, 2, 3, 4]).fisher()


def test_the_level_is_about_right_even_in_a_short_run():
    wrong = 0
    for seed in range(300):
        gain = taus(*noisy(30, (1, 1), seed, 0)).interval([1, -1])
        wrong += not gain.low <= 0 <= gain.high
    assert wrong / 300 <= 0.093  # 5 % and 3.4 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_the_closed_form_holds_its_level(n, decimals):
    found = {}
    for noise in (0.5, 2.0):
        repeats, wrong = 2000 if n < 200 else 1000, 0
        for seed in range(repeats):
            errors, truth = noisy(n, (2 * noise, 2 * noise), seed, 9)
            errors = {name: np.round(2 * x, decimals) for name, x in errors.items()}
            gain = taus(errors, np.round(2 * truth, decimals)).interval([1, -1])
            wrong += not gain.low <= 0 <= gain.high
        found[noise] = wrong / repeats
    print(f"\nlevel of the closed form, n = {n}, decimals {decimals}: {found}")
    assert all(0.03 <= rate <= 0.07 for rate in found.values()), found
