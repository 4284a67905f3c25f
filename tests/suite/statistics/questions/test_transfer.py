import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from suite.statistics.measures import kendall_tau
from suite.statistics.questions.grid import Grid
from suite.statistics.questions.transfer import matrix, pairs, transfer
from suite.types import BadInput


def rng(seed=0):
    return np.random.default_rng(seed)


def rows(taus_by_place, half_width=0.1):
    held = [(place, f"p{i}", tau) for place, taus in taus_by_place.items() for i, tau in enumerate(taus)]
    frame = pd.DataFrame(held, columns=["dataset", "proxy", "tau"])
    return frame.assign(tau_low=frame.tau - half_width, tau_high=frame.tau + half_width)


A, B = [0.2, 0.35, 0.5, 0.55, 0.7, 0.8], [0.1, 0.3, 0.35, 0.5, 0.45, 0.75]


def test_agreement_is_that_of_the_matching_taus():
    found = transfer(rows({"a": A, "b": B})[::-1], "a", "b", rng=rng())
    assert found.rank.value == pytest.approx(stats.kendalltau(A, B).statistic)
    assert found.linear.value == pytest.approx(stats.pearsonr(np.arctanh(A), np.arctanh(B)).statistic)
    line = stats.linregress(np.arctanh(A), np.arctanh(B))
    assert (found.slope, found.intercept) == pytest.approx((line.slope, line.intercept))
    assert found.off_by == pytest.approx(np.mean(np.abs(np.subtract(A, B))))
    assert found.linear.low < found.linear.value < found.linear.high


def test_proxies_of_one_place_only_take_no_part():
    found = transfer(rows({"a": [*A, 0.9], "b": B}), "a", "b", rng=rng())
    assert found.proxies == tuple(f"p{i}" for i in range(6))


def test_noise_lowers_what_is_reachable():
    exact, rough = (transfer(rows({"a": A, "b": B}, w), "a", "b", rng=rng()).reachable for w in (0.01, 0.15))
    assert rough < exact
    assert exact == pytest.approx(1, abs=0.01)
    assert math.isnan(transfer(rows({"a": A, "b": B}).drop(columns="tau_low"), "a", "b", rng=rng()).reachable)


def test_spaces_are_matched_by_factors_one_adds():
    frame = rows({"a": A, "b": B}).rename(columns={"dataset": "space"})
    frame["width"] = [1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1]
    found = transfer(frame, "a", "b", place="space", match=("width",), rng=rng())
    assert found.rank.value == pytest.approx(stats.kendalltau(A, B[::-1]).statistic)


def test_every_two_places_are_paired():
    assert [(t.here, t.there) for t in pairs(rows({"a": A, "b": B, "c": A}), rng=rng(), draws=50)] == [
        ("a", "b"), ("a", "c"), ("b", "c"),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="one dataset only"):
        pairs(rows({"a": A}), rng=rng())


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (rows({"a": A, "c": B}), "no dataset 'b'; there are a, c"),
        (rows({"a": A, "b": B[:2]}), "2 proxies of a match one of b; at least 3"),
        (rows({"a": A, "b": [0.5] * 6}), "taus of b must"),
        (rows({"a": A, "b": [1.0, *B[1:]]}), "taus of b must"),
        (pd.concat([rows({"a": A, "b": B})] * 2), "two rows of a"),
        (rows({"a": A, "b": B}, 0.3), "ends of an interval"),
        (rows({"a": A, "b": B}).drop(columns="tau"), "no column tau"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(frame, line):
    with pytest.raises(BadInput, match=line):
        transfer(frame, "a", "b", rng=rng())


def grid(dataset, order, seed):
    r = rng(seed)
    truth = np.linspace(0, 3, 30) + 0.3 * r.normal(size=30)
    errors = {"e1": (truth + r.normal(size=30))[order]}
    archs = tuple(np.array([f"n{i:02d}" for i in range(30)])[order].tolist())
    return Grid("s", dataset, archs, errors, truth[order], truth[order, None], {})


def test_the_matrix_lines_networks_up_and_leaves_out_the_truth_with_itself():
    one, two = grid("a", np.arange(30), 0), grid("b", np.arange(30)[::-1], 1)
    found = matrix([one, two]).set_index(["judged", "source", "proxy"])
    assert len(found) == 6
    assert found.tau["a", "b", "full"] == pytest.approx(kendall_tau(two.truth[::-1], one.truth))
    assert found.tau["b", "a", "full"] == found.tau["a", "b", "full"]
    assert found.tau["b", "a", "e1"] == pytest.approx(kendall_tau(one.errors["e1"], two.truth[::-1]))
    assert (found.low < found.tau).all()
    assert (found.tau < found.high).all()


def test_the_matrix_needs_the_same_networks():
    one, two = grid("a", np.arange(30), 0), grid("b", np.arange(29), 1)
    with pytest.raises(BadInput, match="b has 29, a 30"):
        matrix([one, two])
    with pytest.raises(BadInput, match="at least 2 different data sets"):
        matrix([one, one])


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 12, 30])
def test_intervals_over_proxies_cover(count):
    r, true = rng(0), {"linear": 0.8, "rank": 2 / math.pi * math.asin(0.8)}
    covered = dict.fromkeys(true, 0)
    for _ in range(400):
        a, b = 0.3 * r.standard_normal((2, count))
        z = 0.6 + np.stack([a, 0.8 * a + 0.6 * b])
        held = rows({"a": np.tanh(z[0]), "b": np.tanh(z[1])}).drop(columns="tau_low")
        found = transfer(held, "a", "b", draws=300, rng=r)
        for name, value in true.items():
            interval = getattr(found, name)
            covered[name] += interval.low <= value <= interval.high
    rates = {name: hits / 400 for name, hits in covered.items()}
    print(f"\ncoverage over {count} proxies: {rates}")
    assert min(rates.values()) >= (0.8 if count < 12 else 0.88)
