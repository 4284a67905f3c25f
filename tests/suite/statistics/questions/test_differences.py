import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from suite.statistics.bootstrap import Interval
from suite.statistics.paired import compare
from suite.statistics.questions.differences import differences, holm, p_value
from suite.statistics.sweeps import resample
from suite.types import BadInput


def rng(seed=0):
    return np.random.default_rng(seed)


def study(n, noises, seed=0, decimals=9):
    r = rng(seed)
    truth = r.normal(size=n)
    errors = {f"p{i}": np.round(2 * (truth + noise * r.normal(size=n)), decimals) for i, noise in enumerate(noises)}
    return errors, np.round(2 * truth, decimals)


def test_pairs_are_those_of_compare_and_all_see_the_same_draws():
    errors, truth = study(40, (1, 1, 0.3))
    found = differences(errors, truth, draws=200, rng=rng(1))
    assert [(d.a, d.b) for d in found] == [("p0", "p1"), ("p0", "p2"), ("p1", "p2")]
    seed = int(rng(1).integers(2**63))
    assert found[2].gain == compare(errors["p1"], errors["p2"], truth, draws=200, rng=rng(seed))
    assert found[0].gain.value == pytest.approx(found[0].tau_a - found[0].tau_b)


def test_p_is_below_5_percent_exactly_where_the_interval_leaves_out_0():
    for seed in range(6):
        (found,) = differences(*study(30, (1, 0.5), seed), draws=100, rng=rng(seed))
        assert (found.p < 0.05) == (not found.gain.low <= 0 <= found.gain.high)


def test_p_is_students():
    assert p_value(Interval(0.1, -0.1, 0.3, 0.95, 0, 25)) == pytest.approx(
        2 * stats.t.sf(0.1 / (0.2 / stats.t.ppf(0.975, 24)), 24)
    )
    assert p_value(Interval(0.1, -2.0, 0.3, 0.95, 0, 25)) < 1  # clipped on one side
    assert p_value(Interval(0.0, 0.0, 0.0, 0.95, 0, 25)) == 1
    assert p_value(Interval(0.1, math.nan, math.nan, 0.95, 0, 2)) == 1


def test_holm_by_hand():
    p = [0.04, 0.001, 0.02, 0.5]
    ordered = sorted(range(4), key=p.__getitem__)
    expected, worst = [0.0] * 4, 0.0
    for rank, i in enumerate(ordered):
        worst = max(worst, min(p[i] * (4 - rank), 1))
        expected[i] = worst
    assert holm(p) == pytest.approx(expected)
    assert holm([]) == []


def test_holm_is_that_of_statsmodels():
    p = rng().random(50) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_a_reference_makes_the_family_small():
    errors, truth = study(40, (1, 1, 0.3, 0.3))
    against = differences(errors, truth, reference="p0", draws=200, rng=rng())
    every = differences(errors, truth, draws=200, rng=rng())
    assert [d.b for d in against] == ["p0"] * 3
    same = next(d for d in every if (d.a, d.b) == ("p0", "p2"))
    assert against[1].gain.value == pytest.approx(-same.gain.value)
    assert against[1].p_holm <= same.p_holm


def test_equal_proxies_are_not_told_apart():
    errors, truth = study(20, (1,))
    (found,) = differences({**errors, "again": errors["p0"]}, truth, draws=50, rng=rng())
    assert (found.gain.value, found.p, found.better) == (0, 1, "")


@pytest.mark.parametrize(
    ("errors", "reference", "line"),
    [
        ({"a": [1, 2, 3]}, None, "at least 2 proxies"),
        ({"a": [1, 2, 3], "b": [1, 3, 2]}, "c", "no proxy 'c'"),
        ({"a": [1, 2, 3], "b": [1, 1, 1]}, None, "proxy 'b': all 3 errors are 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(errors, reference, line):
    with pytest.raises(BadInput, match=line):
        differences(errors, [1, 2, 3], reference=reference, rng=rng())


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_the_difference_test_holds_its_level(n, decimals):
    found = {}
    for noise in (0.5, 2.0):
        p = [differences(*study(n, (noise, noise), seed, decimals), draws=300, rng=rng(seed))[0].p
             for seed in range(400)]  # fmt: skip
        found[noise] = float(np.mean(np.array(p) < 0.05))
    print(f"\nlevel of compare, n = {n}, decimals {decimals}: {found}")
    assert all(0.01 <= rate <= 0.083 for rate in found.values()), found  # 5 % and 3 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60])
def test_holm_keeps_the_whole_family_below_5_percent(n):
    any_found = [
        any(d.better for d in differences(*study(n, (1,) * 5, seed), draws=200, rng=rng(seed))) for seed in range(300)
    ]
    print(f"\nfamily-wise error of 10 pairs, n = {n}: {np.mean(any_found)}")
    assert np.mean(any_found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


WORLDS = ("moderate", "heavy noise", "unrelated", "ties", "shared noise", "same seed", "unlike", "failures")
"""All proxies equally good, in different ways."""


def family(world, n, count, seed, better=1.0):
    """Proxies of one true tau; the first has `better` times the noise."""
    r = rng([seed, n])
    truth, own = r.normal(size=n), r.normal(size=(count, n))
    own[0] *= better
    seeds = r.normal(size=n)  # what a training seed does to each network, the same under all proxies
    tilt = np.where(np.arange(count) % 2, 1, -1)[:, None]
    errors = {
        "moderate": truth + 0.6 * own, "heavy noise": truth + 4 * own, "unrelated": own,
        "ties": np.round(2 * (truth + 0.6 * own)) / 2, "shared noise": truth + 0.8 * seeds + 0.3 * own,
        "same seed": truth + 0.8 * seeds + 0.05 * own, "unlike": truth + 0.6 * np.exp(tilt * truth) * own,
        "failures": np.where(r.random((count, n)) < 0.1, np.inf, truth + 0.6 * own),
    }[world]  # fmt: skip
    return errors, np.round(2 * truth) / 2 if world == "ties" else truth


def finds(world, n, seed, *, count=10, better=1.0):
    """The lowest Holm-adjusted p-value of all pairs, and of those with the first proxy whether any is found."""
    errors, truth = family(world, n, count, seed, better)
    pairs = list(itertools.combinations(range(count), 2))
    drawn = resample(list(errors), truth, draws=256, rng=rng(seed), threads=1)
    adjusted = holm([p_value(drawn.difference(a, b)) for a, b in pairs])
    return min(adjusted) < 0.05, sum(p < 0.05 for (a, _), p in zip(pairs, adjusted, strict=True) if a == 0)


def test_three_and_four_networks_find_nothing_among_equal_proxies():
    """One proxy right throughout, one wrong throughout: no draw differs, and that is no proof."""
    assert not any(finds("unrelated", n, seed, count=6)[0] for n in (3, 4) for seed in range(40))


def test_a_ranking_and_its_reverse_are_told_apart_on_enough_networks():
    truth = np.arange(12.0)
    few = resample([truth[:3], -truth[:3]], truth[:3], draws=64, rng=rng()).difference(0, 1)
    many = resample([truth, -truth], truth, draws=64, rng=rng()).difference(0, 1)
    assert (few.value, many.value) == (2, 2)
    assert p_value(few) > 0.05
    assert p_value(many) == pytest.approx(2 / math.factorial(12), rel=0.01)


def test_a_family_of_equal_proxies_is_rarely_told_apart():
    found = [finds("unrelated", 12, seed, count=6)[0] for seed in range(120)]
    assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 120)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 20, 50, 200])
@pytest.mark.parametrize("world", WORLDS)
def test_holm_holds_its_level_over_a_grid_of_equal_proxies(world, n):
    repeats = 400
    rate = float(np.mean([finds(world, n, seed)[0] for seed in range(repeats)]))
    print(f"\nfamily-wise error of 45 pairs, {world}, n = {n}: {100 * rate:.1f} %")
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(50, 0.3), (200, 0.95)])
def test_a_proxy_that_is_better_is_found_in_the_grid(n, least):
    """tau 0.86 beside nine of 0.66, all 45 pairs looked at."""
    share = float(np.mean([finds("moderate", n, seed, better=0.4)[1] / 9 for seed in range(100)]))
    print(f"\npower in 45 pairs, n = {n}: {100 * share:.1f} %")
    assert share >= least
