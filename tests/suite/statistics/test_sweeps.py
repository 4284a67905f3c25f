"""All measures of all proxies on shared draws: held to `suite.statistics.measures`, draw by draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from suite.statistics import sweeps
from suite.statistics.bootstrap import bootstrap
from suite.statistics.measures import MEASURES, REPLICATES, where_defined
from suite.statistics.paired import compare
from suite.statistics.questions.differences import holm, p_value
from suite.statistics.ranking import Pair, WeightedPair
from suite.statistics.sweeps import LANES, balanced, measured, multiplicities, resample


def errors(n: int, steps: int, failing: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    proxy = truth + rng.normal(size=n)
    if steps:
        truth, proxy = np.round(truth * steps) / steps, np.round(proxy * steps) / steps
    proxy[rng.random(n) < failing] = np.inf
    truth[rng.random(n) < failing / 2] = np.inf
    return proxy, truth


@pytest.mark.parametrize("failing", [0.0, 0.2])
@pytest.mark.parametrize("steps", [0, 3, 20], ids=["no ties", "coarse ties", "ties"])
@pytest.mark.parametrize("n", [5, 20, 50, 300])
def test_every_measure_of_every_draw_is_that_of_consistency(n, steps, failing):
    proxy, truth = errors(n, steps, failing, seed=n + steps)
    w = multiplicities(n, LANES, np.random.default_rng(1))
    assert w.shape == (n, LANES)
    assert (w.sum(axis=0) == n).all()
    judge = sweeps._Truth.of(truth)
    found = measured(sweeps._Ranks.of(proxy, judge), sweeps._Weighted.of(w, judge))
    sample = WeightedPair(Pair(proxy, truth), w.astype(np.int32))
    for row, name in zip(found, MEASURES, strict=True):
        with np.errstate(invalid="ignore"):
            assert row == pytest.approx(where_defined(REPLICATES[name], sample), abs=2e-6, nan_ok=True), name


def test_values_are_those_of_the_sample():
    proxy, truth = errors(60, 3, 0.1, seed=0)
    found = resample([proxy], truth, draws=100, rng=np.random.default_rng(0))
    for name, value in zip(MEASURES, found.values[0], strict=True):
        assert value == pytest.approx(MEASURES[name](proxy, truth), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("n", [20, 200])
def test_intervals_are_as_wide_as_those_of_one_proxy_at_a_time(n):
    proxy, truth = errors(n, 0, 0.0, seed=3)
    both = [
        resample([proxy], truth, draws=4000, rng=np.random.default_rng(0)),
        bootstrap(proxy, truth, measures=("tau", "spearman", "weighted_tau"), draws=4000, rng=np.random.default_rng(1)),
    ]
    for name in ("tau", "spearman", "weighted_tau"):
        mine, theirs = both[0].interval(0, name), both[1][name]
        assert mine.value == pytest.approx(theirs.value, abs=1e-6)
        assert mine.high - mine.low == pytest.approx(theirs.high - theirs.low, rel=0.08)


def test_a_difference_is_that_of_compare():
    truth = np.random.default_rng(0).normal(size=80)
    a, b = (truth + noise * np.random.default_rng(seed).normal(size=80) for seed, noise in ((1, 0.5), (2, 1.0)))
    mine = resample([a, b], truth, draws=4000, rng=np.random.default_rng(0)).difference(0, 1)
    theirs = compare(a, b, truth, draws=4000, rng=np.random.default_rng(1))
    assert mine.value == pytest.approx(theirs.value)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_draws_do_not_depend_on_threads_or_on_the_other_proxies():
    proxy, truth = errors(40, 0, 0.0, seed=5)
    alone = resample([proxy], truth, draws=500, rng=np.random.default_rng(0), threads=1)
    beside = resample([proxy, -proxy], truth, draws=500, rng=np.random.default_rng(0), threads=3)
    assert np.array_equal(alone.replicates[0], beside.replicates[0], equal_nan=True)


def test_seeds_are_drawn_as_often_as_they_are_likely():
    drawn = balanced(400, 2, np.random.default_rng(0))
    assert [drawn.count(kind) for kind in ((0, 0), (0, 1), (1, 1))] == pytest.approx([100, 200, 100], abs=1)
    assert set(balanced(10, 1, np.random.default_rng(0))) == {(0,)}
    assert len(balanced(30, 9, np.random.default_rng(0))[0]) == 9


def test_a_proxy_with_seeds_is_the_mean_over_them():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 50)) * 0.2 + rng.normal(size=50)
    runs = truth.mean(axis=0) + rng.normal(size=(3, 50))
    found = resample([runs], truth, draws=300, rng=rng)
    taus = [MEASURES["tau"](run, truth.mean(axis=0)) for run in runs]
    assert found.values[0, sweeps.TAU] == pytest.approx(np.mean(taus))


def test_a_seed_that_moves_all_networks_widens_the_interval():
    """Seeds that differ in what they rank by: networks alone would not show it."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    good, bad = truth + 0.3 * rng.normal(size=200), truth + 3 * rng.normal(size=200)
    alike = truth + 1.2 * rng.normal(size=(2, 200))
    apart, steady = (resample([x], truth, draws=2000, rng=np.random.default_rng(0)).interval(0, "tau")
                     for x in (np.stack([good, bad]), alike))  # fmt: skip
    assert apart.high - apart.low > 2 * (steady.high - steady.low)


def of_three_seeds(n: int, common: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A proxy, and three trainings whose noise is each network's own, or follows one direction of the networks."""
    rng = np.random.default_rng(seed)
    quality, direction = rng.normal(size=(2, n))
    truth = quality + (direction * rng.normal(size=(3, 1)) * common if common else 0.5 * rng.normal(size=(3, n)))
    return quality + 0.7 * rng.normal(size=n), truth


def test_noise_of_single_networks_is_not_counted_again_by_drawing_seeds():
    ratios = []
    for seed in range(12):
        proxy, truth = of_three_seeds(60, 0.0, seed)
        drawn, fixed = (
            resample([proxy], runs, draws=640, rng=np.random.default_rng(seed)).variances[0, 0]
            for runs in (truth, truth.mean(axis=0))
        )
        ratios.append(drawn / fixed)
    assert np.mean(ratios) < 1.1  # 1.16 with all that drawing seeds adds
    assert min(ratios) >= 0.99


def test_what_a_seed_does_to_all_networks_alike_widens_the_interval():
    proxy, truth = of_three_seeds(400, 1.0, 4)
    drawn, fixed = (
        resample([proxy], runs, draws=640, rng=np.random.default_rng(0)).interval(0, "tau")
        for runs in (truth, truth.mean(axis=0))
    )
    assert drawn.high - drawn.low > 1.5 * (fixed.high - fixed.low)


@pytest.mark.parametrize(
    ("proxies", "truth", "said"),
    [
        ([[1.0, 2.0]], [1.0, 2.0, 3.0], r"proxy 0 must have shape \(seeds, 3\)"),
        ([[1.0, np.nan, 2.0]], [1.0, 2.0, 3.0], "proxy 0 has 1 NaN"),
        ([[1.0]], [1.0], "at least n = 2"),
    ],
)
def test_what_cannot_be_ranked_is_refused(proxies, truth, said):
    with pytest.raises(ValueError, match=said):
        resample(proxies, truth, draws=100, rng=np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("world", ["moderate", "ties", "heavy noise"])
def test_intervals_over_networks_and_seeds_cover(n, world):
    """Three trainings of truth and proxy, tau known from 40,000 networks: 95 % intervals cover 93 to 97 %."""
    noise = {"moderate": 0.6, "ties": 0.6, "heavy noise": 2.0}[world]

    def sample(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        quality = rng.normal(size=size)
        truth = quality + 0.3 * rng.normal(size=(3, size))
        proxy = quality + noise * rng.normal(size=(1, size))
        if world == "ties":
            truth, proxy = np.round(truth * 2) / 2, np.round(proxy * 2) / 2
        return proxy, truth

    rng = np.random.default_rng(99)
    expected = np.mean([MEASURES["tau"](p[0], t.mean(axis=0)) for p, t in (sample(4000, rng) for _ in range(10))])
    hits = []
    for seed in range(600):
        proxy, truth = sample(n, np.random.default_rng(seed))
        found = resample([proxy], truth, draws=512, rng=np.random.default_rng(seed), threads=1).interval(0, "tau")
        hits.append(found.low <= expected <= found.high)
    print(f"\n{world}, n = {n}: {100 * np.mean(hits):.1f} %")
    assert 0.93 - 0.018 <= np.mean(hits) <= 0.97 + 0.012  # 2 standard errors


def equal_proxies(n: int, noise: float, count: int, seed: int, decimals: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Proxies of one true tau."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    proxies = [np.round(truth + noise * rng.normal(size=n), decimals) for _ in range(count)]
    return proxies, np.round(truth, decimals)


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_the_difference_on_shared_draws_holds_its_level(n, decimals):
    found = {}
    for noise in (0.5, 2.0):
        p = []
        for seed in range(600):
            proxies, truth = equal_proxies(n, noise, 2, seed, decimals)
            drawn = resample(proxies, truth, draws=512, rng=np.random.default_rng(seed), threads=1)
            p.append(p_value(drawn.difference(0, 1)))
        found[noise] = 100 * float(np.mean(np.array(p) < 0.05))
    print(f"\nlevel, n = {n}, decimals {decimals}: {found}")
    assert all(1 <= rate <= 7.7 for rate in found.values()), found  # 5 % and 3 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60])
def test_holm_keeps_a_family_on_shared_draws_below_5_percent(n):
    any_found = []
    for seed in range(400):
        proxies, truth = equal_proxies(n, 1.0, 5, seed, 9)
        drawn = resample(proxies, truth, draws=512, rng=np.random.default_rng(seed), threads=1)
        p = holm([p_value(drawn.difference(a, b)) for a, b in itertools.combinations(range(5), 2)])
        any_found.append(min(p) < 0.05)
    print(f"\nfamily-wise error of 10 pairs, n = {n}: {100 * np.mean(any_found):.1f} %")
    assert np.mean(any_found) <= 0.05 + 3 * 0.011
