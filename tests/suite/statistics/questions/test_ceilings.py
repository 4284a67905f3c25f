import math

import numpy as np
import pytest

from suite.statistics.bootstrap import bootstrap
from suite.statistics.measures import kendall_tau
from suite.statistics.questions.ceilings import agreement, check, extrapolate
from suite.types import BadInput


def runs(n, count, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    return quality, quality[:, None] + noise * rng.normal(size=(n, count))


def ends(interval):
    return interval.value, interval.low, interval.high


def test_two_runs_agree_as_the_bootstrap_says():
    _, full = runs(80, 2)
    expected = bootstrap(full[:, 0], full[:, 1], draws=3000, rng=np.random.default_rng(0))["tau"]
    found = agreement(full)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.015)


def test_more_runs_narrow_the_interval():
    widths = [agreement(runs(60, count)[1]) for count in (2, 5)]
    assert widths[1].high - widths[1].low < widths[0].high - widths[0].low


@pytest.mark.parametrize("noise", [0.2, 0.6, 1.5])
@pytest.mark.parametrize("judges", [1, 2, 4])
def test_a_perfect_proxy_reaches_the_ceiling_foretold_from_one_pair(noise, judges):
    quality, full = runs(6000, 6, noise)
    reached = kendall_tau(quality, full[:, :judges].mean(1))
    tolerance = 0.04 if noise > 1 else 0.015  # four standard errors of what one pair of runs says
    assert extrapolate(full[:, 4:], judge_runs=judges).value == pytest.approx(reached, abs=tolerance)


def test_means_of_runs_agree_as_foretold_from_one_pair():
    _, full = runs(6000, 6)
    for a, b in ((1, 2), (2, 3), (1, 3)):
        measured = kendall_tau(full[:, :a].mean(1), full[:, 3 : 3 + b].mean(1))
        assert extrapolate(full[:, 4:], proxy_runs=a, judge_runs=b).value == pytest.approx(measured, abs=0.015)


def test_one_run_against_one_is_the_agreement_itself_and_the_truth_against_itself_is_1():
    _, full = runs(50, 2)
    assert ends(extrapolate(full, proxy_runs=1, judge_runs=1)) == pytest.approx(ends(agreement(full)))
    assert extrapolate(full, judge_runs=math.inf).value == 1


def test_a_rescaling_of_the_errors_changes_nothing():
    _, full = runs(50, 3)
    assert ends(extrapolate(np.exp(full))) == ends(extrapolate(full))


def test_missing_runs_leave_the_other_networks_in_place():
    _, full = runs(120, 3)
    ragged = full.copy()
    ragged[:40, 2] = math.nan
    whole, partial = agreement(full), agreement(ragged)
    assert partial.value == pytest.approx(whole.value, abs=0.05)
    assert partial.n == 120
    assert partial.high - partial.low >= 0.95 * (whole.high - whole.low)


def test_missing_runs_of_many_networks_have_an_interval_that_is_not_too_narrow(monkeypatch):
    _, full = runs(120, 3)
    full[:40, 2] = math.nan
    exact = agreement(full)
    monkeypatch.setattr("suite.statistics.questions.ceilings.WHOLE_UP_TO", 100)
    assert agreement(full).low <= exact.low + 1e-3


def test_runs_that_do_not_agree_leave_nothing_to_reach():
    assert extrapolate([[1, 3], [2, 2], [3, 1]]).value == 0


def test_failed_trainings_count_as_worst():
    _, full = runs(30, 2)
    full[np.argmax(full[:, 0])] = math.inf
    assert 0 < agreement(full).value < 1


@pytest.mark.parametrize(
    ("full", "line"),
    [
        ([1, 2, 3], "at least 2 runs"),
        ([[1], [2], [3]], "at least 2 runs"),
        ([[1, 2], [2, 1]], "at least 3 networks"),
        ([[1, 2], [1, 3], [1, 4]], "run 0 of full training: all 3"),
        ([[1, 2], [2, math.nan], [3, 1]], "at least 3 networks, not 2"),
    ],
)
def test_what_has_no_ceiling_is_refused(full, line):
    with pytest.raises(BadInput, match=line):
        extrapolate(full)


def test_a_check_needs_three_whole_runs():
    with pytest.raises(BadInput, match="at least 3 runs"):
        check([[1, 2], [2, 1], [3, 3]])
    with pytest.raises(BadInput, match="at least 1 run, not 0"):
        extrapolate([[1, 2], [2, 1], [3, 3]], judge_runs=0)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60, 200])
def test_the_ceilings_interval_covers_what_a_perfect_proxy_reaches(n):
    found = {}
    for noise in (0.3, 1.0):
        quality, full = runs(20_000, 2, noise, seed=99)
        reached = kendall_tau(quality, full.mean(1))
        held = [extrapolate(runs(n, 2, noise, seed)[1]) for seed in range(1000)]
        found[noise] = float(np.mean([ceiling.low <= reached <= ceiling.high for ceiling in held]))
    print(f"\ncoverage of the ceiling's interval, n = {n}: {found}")
    assert all(0.925 <= rate <= 0.985 for rate in found.values()), found
