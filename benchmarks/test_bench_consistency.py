"""Speed of the bootstrap of tau against the loop over scipy that it replaces, and (run as a script) what it covers.

pytest benchmarks/test_bench_consistency.py -s
python benchmarks/test_bench_consistency.py 2000 tau compare ceiling        # coverage, 2,000 samples a cell
python benchmarks/test_bench_consistency.py 500 weighted_tau spearman top10_overlap tau_top10 ...
"""

import sys
import time

import numpy as np
import pytest
from scipy import stats

from suite.statistics.bootstrap import bootstrap, ceiling
from suite.statistics.measures import MEASURES, kendall_tau
from suite.statistics.paired import compare

DRAWS = 10_000


def looped(proxy, truth, draws, rng):
    return [stats.kendalltau(proxy[i], truth[i]).statistic for i in rng.integers(0, len(proxy), (draws, len(proxy)))]


@pytest.mark.benchmark(timer=time.process_time)  # CPU time of all threads: other work on the machine counts less
@pytest.mark.parametrize(("n", "goal", "stretch"), [(50, 200, 900), (1_000, 50, 80), (15_625, 10, 20)])
def test_tau_bootstrap_against_the_loop_over_scipy(benchmark, n, goal, stretch):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(n)
    proxy = truth + rng.standard_normal(n)
    bootstrap(proxy, truth, draws=2, rng=rng)  # compiles
    sample, passes = max(20, 100_000 // n), []

    def scipy_first():
        start = time.process_time()
        looped(proxy, truth, sample, rng)
        passes.append((time.process_time() - start) / sample * DRAWS)
        return (proxy, truth), {"draws": DRAWS, "rng": rng}

    benchmark.pedantic(bootstrap, setup=scipy_first, rounds=5)
    ratio = min(passes) / benchmark.stats.stats.min
    benchmark.extra_info |= {"scipy_s": min(passes), "ratio": ratio}
    print(f"\nn={n}: {ratio:.0f} times scipy (goal {goal}, stretch {stretch}); {sample} of its draws, CPU time")


@pytest.mark.parametrize(("n", "draws"), [(200, DRAWS), (15_625, 1_000)])
def test_bootstrap_of_all_measures(benchmark, n, draws):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(n)
    proxy = truth + rng.standard_normal(n)
    bootstrap(proxy, truth, measures=MEASURES, draws=2, rng=rng)
    out = benchmark.pedantic(bootstrap, (proxy, truth), {"measures": MEASURES, "draws": draws, "rng": rng}, rounds=2)
    assert out["tau"].low < out["tau"].value < out["tau"].high


def with_failures(z, e, rng):
    return np.where(rng.random(len(z)) < 0.15, np.inf, z + 0.7 * e), np.where(rng.random(len(z)) < 0.08, np.inf, z)


WORLDS = {  # z: latent quality, e: noise of the proxy, both standard normal
    "unrelated": lambda z, e, rng: (e, z),
    "heavy noise": lambda z, e, rng: (z + 3 * e, z),
    "Cauchy noise": lambda z, e, rng: (z + 0.5 * rng.standard_cauchy(len(z)), z),
    "moderate": lambda z, e, rng: (z + 0.7 * e, z),
    "strong": lambda z, e, rng: (z + 0.15 * e, z),
    "very strong": lambda z, e, rng: (z + 0.05 * e, z),
    "reversed": lambda z, e, rng: (-z + 0.4 * e, z),
    "ties": lambda z, e, rng: (np.round((z + 0.7 * e) * 1.5), np.round(z * 2)),
    "coarse ties": lambda z, e, rng: (np.round(z + 0.8 * e), np.round(z)),
    "ties, heavy noise": lambda z, e, rng: (np.round(z + 3 * e), np.round(z * 2)),
    "ties, strong": lambda z, e, rng: (np.round((z + 0.2 * e) * 2), np.round(z * 2)),
    "failures": with_failures,
}


def sample_of(world, n, rng):
    return WORLDS[world](rng.standard_normal(n), rng.standard_normal(n), rng)


def interval_of(name, world, n, rng, draws=500):
    """The interval from one sample, for a measure, for `compare` (b: the proxy with its noise again), for `ceiling`."""
    if name in MEASURES:
        return bootstrap(*sample_of(world, n, rng), measures=[name], draws=draws, rng=rng)[name]
    proxy, truth = sample_of(world, n, rng)
    if name == "compare":
        return compare(proxy, proxy + rng.standard_normal(n), truth, draws=draws, rng=rng)
    seeds = truth[:, None] + 0.3 * rng.standard_normal((n, 3))
    return ceiling(seeds, seeds, draws=draws, rng=rng)


def expected_of(name, world, n, rng):
    """What the interval is to cover: the population's tau; for the others the mean over samples of the same size."""
    if name.startswith("tau") and name != "tau_top10":
        return kendall_tau(*sample_of(world, 2_000_000, rng), variant={"tau": "b"}.get(name, name[-1]))
    if name == "compare":
        proxy, truth = sample_of(world, 2_000_000, rng)
        return kendall_tau(proxy, truth) - kendall_tau(proxy + rng.standard_normal(len(proxy)), truth)
    if name == "ceiling":  # the world's truth, which is also the seeds' common part
        seeds = sample_of(world, 1_000_000, rng)[1][:, None] + 0.3 * rng.standard_normal((1_000_000, 3))
        return kendall_tau(seeds[:, 0], seeds[:, 1:].mean(1))
    return np.nanmean([MEASURES[name](*sample_of(world, n, rng)) for _ in range(4_000)])


def coverage(name, world, n, samples):
    """Share of samples whose 95 % interval covers, and the intervals' mean width."""
    expected = expected_of(name, world, n, np.random.default_rng(1))
    found = [interval_of(name, world, n, rng) for rng in np.random.default_rng(2).spawn(samples)]
    found = [i for i in found if not np.isnan(i.low)]
    return expected, np.mean([i.low <= expected <= i.high for i in found]), np.mean([i.high - i.low for i in found])


if __name__ == "__main__":
    for measure in sys.argv[2:]:
        print(f"\n{measure}: coverage [%] (width) of 95 % intervals, {sys.argv[1]} samples")
        print("| world | expected at 200 | n = 20 | n = 50 | n = 200 |\n| --- | --- | --- | --- | --- |")
        for world in WORLDS:
            cells = [coverage(measure, world, n, int(sys.argv[1])) for n in (20, 50, 200)]
            row = " | ".join(f"{100 * covering:.1f} ({width:.2f})" for _, covering, width in cells)
            print(f"| {world} | {cells[-1][0]:.2f} | {row} |", flush=True)
