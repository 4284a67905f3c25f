import itertools
import math

import numpy as np
import pytest

from suite.statistics.questions.claims import CLAIMS, CONTRADICTED, NOT_TESTABLE, SUPPORTED, UNDECIDED, adjusted, claims
from suite.types import BadInput, Proxy


def study(noise_of, proxies, n=120, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    settings = {str(p): p for p in proxies}
    errors = {name: truth + noise_of(p) * rng.normal(size=n) for name, p in settings.items()}
    return errors, truth, settings


def found(*args, **options):
    return {c.name: c for c in claims(*args, rng=np.random.default_rng(0), draws=200, **options)}


HALVES = [Proxy(e, c, r, s) for e, c, r, s in itertools.product((5, 10, 20), (8, 16), (16, 32), (0.5, 1.0))]


def test_pairs_cost_the_same_and_differ_in_the_two_factors_only():
    claim = found(*study(lambda p: 1, HALVES))["more_samples_fewer_epochs"]
    settings = {str(p): p for p in HALVES}
    assert len(claim.pairs) == 8  # (5 all, 10 half), (10 all, 20 half) in 4 settings of channels and resolution
    for a, b in claim.pairs:
        more, fewer = settings[a], settings[b]
        assert (more.channels, more.resolution) == (fewer.channels, fewer.resolution)
        assert more.samples * more.epochs == fewer.samples * fewer.epochs
        assert more.samples > fewer.samples
    claim = found(*study(lambda p: 1, HALVES))["channels_before_resolution"]
    for a, b in claim.pairs:
        assert settings[a].channels * settings[a].resolution == settings[b].channels * settings[b].resolution
        assert settings[a].channels < settings[b].channels
    assert len(claim.pairs) == 6


@pytest.mark.parametrize(
    ("name", "helps", "hurts"),
    [
        ("more_samples_fewer_epochs", lambda p: 1 / p.samples, lambda p: 20 / p.epochs / 3),
        ("channels_before_resolution", lambda p: 40 / p.resolution, lambda p: 20 / p.channels),
        ("tau_falls_with_epochs", lambda p: 10 / p.epochs, lambda p: p.epochs / 10),
        ("few_epochs_discard_the_bad", lambda p: 0.3, lambda p: 8.0),
    ],
)
def test_verdicts_follow_what_was_built_in(name, helps, hurts):
    assert found(*study(helps, HALVES))[name].verdict == SUPPORTED
    assert found(*study(hurts, HALVES))[name].verdict == CONTRADICTED


def test_equal_proxies_leave_it_undecided():
    claim = found(*study(lambda p: 1, HALVES, n=20))["more_samples_fewer_epochs"]
    assert claim.verdict == UNDECIDED
    assert claim.low < 0 < claim.high


def test_a_grid_without_the_pairs_says_so():
    all_found = found(*study(lambda p: 1, [Proxy(5, 16, 32), Proxy(20, 16, 32)]))
    assert all_found["more_samples_fewer_epochs"].verdict == NOT_TESTABLE
    assert all_found["channels_before_resolution"].verdict == NOT_TESTABLE
    assert all_found["tau_falls_with_epochs"].pairs == (("e20 c16 r32 s1", "e5 c16 r32 s1"),)
    assert "not testable on this grid" in str(all_found["more_samples_fewer_epochs"])


def test_nearly_equal_costs_count_as_equal():
    levels = [Proxy(60, 25, 32), Proxy(60, 36, 22)]  # 25 x 32 = 800, 36 x 22 = 792
    assert len(found(*study(lambda p: 1, levels))["channels_before_resolution"].pairs) == 1
    assert not found(*study(lambda p: 1, [Proxy(60, 25, 32), Proxy(60, 36, 24)]))["channels_before_resolution"].pairs


def test_the_share_ordered_rightly_is_counted_by_hand():
    errors, truth, settings = study(lambda p: 1, [Proxy(5, 16, 32), Proxy(20, 16, 32)], n=40)
    x = np.round(errors["e5 c16 r32 s1"], 0)
    claim = found({"e5 c16 r32 s1": x}, truth, settings)["few_epochs_discard_the_bad"]
    worst = set(np.argsort(truth)[30:].tolist())
    right = [(x[i] > x[j]) + (x[i] == x[j]) / 2 for i in worst for j in range(40) if j not in worst]
    assert claim.value == pytest.approx(np.mean(right))
    assert claim.low < claim.value < claim.high


def test_scores_of_untrained_networks_take_no_part():
    errors, truth, settings = study(lambda p: 1, HALVES)
    with_params = found({**errors, "params": np.full(120, 3.0)}, truth, settings)
    assert with_params["tau_falls_with_epochs"] == found(errors, truth, settings)["tau_falls_with_epochs"]
    with pytest.raises(BadInput, match="no proxy has epochs"):
        found({"params": truth}, truth, {})


def test_failed_trainings_count_as_bad():
    errors, truth, settings = study(lambda p: 1, [Proxy(5, 16, 32), Proxy(20, 16, 32)])
    claim = "few_epochs_discard_the_bad"
    before = found(errors, truth, settings)[claim].value
    errors["e5 c16 r32 s1"][np.argsort(truth)[-20:]] = math.inf
    assert found(errors, truth, settings)[claim].value > before


def test_adjusting_widens_every_interval_and_keeps_what_is_not_testable():
    each = list(found(*study(lambda p: 10 / p.epochs, [Proxy(5, 16, 32), Proxy(20, 16, 32)], n=40)).values())
    together = adjusted(each)
    for one, wide in zip(each, together, strict=True):
        if one.verdict == NOT_TESTABLE:
            assert wide == one
        else:
            assert wide.high - wide.low > one.high - one.low
    assert list(CLAIMS) == [claim.name for claim in together]


FEW = [Proxy(10, 16, 32, 1.0), Proxy(20, 16, 32, 0.5), Proxy(10, 16, 16, 1.0), Proxy(10, 8, 32, 1.0),
       Proxy(5, 16, 32, 1.0)]  # fmt: skip


def wrong_verdicts(n, noise, repeats):
    """Of proxies that are all as good: verdicts on the three claims about differences."""
    wrong = dict.fromkeys(list(CLAIMS)[:3], 0)
    for seed in range(repeats):
        errors, truth, settings = study(lambda p: noise, FEW, n, seed)
        for name in wrong:
            claim = CLAIMS[name](errors, truth, settings, 0, np.random.default_rng(0), 0.95)
            wrong[name] += claim.verdict != UNDECIDED
    return max(wrong.values()) / repeats


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_few_networks_decide_nothing_that_is_not_there(n):
    assert wrong_verdicts(n, 20.0, 60) <= (0.05 + 3 * np.sqrt(0.05 * 0.95 / 60) if n > 3 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_claims_hold_their_level_on_few_networks(n, noise):
    rate = wrong_verdicts(n, noise, 500)
    print(f"\nwrong verdicts, n = {n}, noise {noise}: {100 * rate:.1f} %")
    assert rate <= (0.05 + 3 * np.sqrt(0.05 * 0.95 / 500) if n > 3 else 0)


@pytest.mark.parametrize("n", [3, 5, 8, 12, 40])
def test_a_share_ordered_rightly_throughout_proves_what_chance_would_not_bring_about(n):
    truth, proxy = np.arange(float(n)), Proxy(5, 16, 32)
    claim = CLAIMS["few_epochs_discard_the_bad"]({"p": truth}, truth, {"p": proxy}, 200, np.random.default_rng(0), 0.95)
    assert claim.verdict == (SUPPORTED if n == 40 else UNDECIDED)


@pytest.mark.slow
def test_undecided_is_the_verdict_19_times_in_20_when_nothing_is_built_in():
    grid = [Proxy(10, 16, 32, 1.0), Proxy(20, 16, 32, 0.5), Proxy(10, 16, 16, 1.0), Proxy(10, 8, 32, 1.0)]
    rates = {}
    for n in (20, 60):
        wrong = dict.fromkeys(("more_samples_fewer_epochs", "channels_before_resolution"), 0)
        for seed in range(1000):
            errors, truth, settings = study(lambda p: 1, grid, n, seed)
            for name in wrong:
                claim = CLAIMS[name](errors, truth, settings, 0, np.random.default_rng(0), 0.95)
                wrong[name] += claim.verdict != UNDECIDED
        rates[n] = {name: count / 1000 for name, count in wrong.items()}
    print(f"\nwrong verdicts: {rates}")
    assert max(max(rate.values()) for rate in rates.values()) <= 0.075


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60])
def test_the_interval_of_the_share_ordered_rightly_covers(n):
    proxies = [Proxy(5, 16, 32)]
    claim = CLAIMS["few_epochs_discard_the_bad"]
    truths = [claim(*study(lambda p: 1, proxies, 40_000, s), 2, np.random.default_rng(0), 0.95).value for s in (1, 2)]
    held = [claim(*study(lambda p: 1, proxies, n, s), 200, np.random.default_rng(s), 0.95) for s in range(500)]
    rate = np.mean([c.low <= np.mean(truths) <= c.high for c in held])
    print(f"\ncoverage of the share ordered rightly, n = {n}: {rate}")
    assert rate >= 0.92
