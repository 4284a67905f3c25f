import numpy as np
import pytest

from suite.statistics.questions.power import Pilot, assumed, curve, networks_needed, pilot, power
from suite.statistics.questions.taus import taus
from suite.types import BadInput


def draw(n, rng, rho):
    truth, a, b = (rng.standard_normal((n, 3)) @ np.linalg.cholesky(rho).T).T
    return {"a": a, "b": b}, truth


def rho_of(tau_a, tau_b, between):
    rho = np.eye(3)
    for i, j, tau in ((0, 1, tau_a), (0, 2, tau_b), (1, 2, between)):
        rho[i, j] = rho[j, i] = np.sin(np.pi / 2 * tau)
    return rho


def share_found(n, repeats, taus_of, seed=0):
    rng, rho = np.random.default_rng(seed), rho_of(*taus_of)
    gains = [taus(*draw(n, rng, rho)).interval([1, -1]) for _ in range(repeats)]
    return np.mean([not gain.low <= 0 <= gain.high for gain in gains])


def test_the_variance_is_that_of_repeated_studies():
    found, rho, rng = assumed(0.6, 0.45, 0.35, rng=np.random.default_rng(0)), rho_of(0.6, 0.45, 0.35), None
    rng = np.random.default_rng(1)
    for n in (12, 60):
        gains = [float(np.diff(taus(*draw(n, rng, rho)).values)[0]) for _ in range(400)]
        assert found.variance(n) == pytest.approx(np.var(gains), rel=0.25)


def test_power_is_the_share_of_studies_that_find_the_difference():
    assumption = (0.6, 0.45, 0.35)
    found = assumed(*assumption, rng=np.random.default_rng(0))
    assert power(found, 60) == pytest.approx(share_found(60, 300, assumption), abs=0.09)


def test_the_number_needed_is_the_first_with_enough_power():
    found = assumed(0.6, 0.5, 0.4, rng=np.random.default_rng(0))
    n = networks_needed(found, chance=0.8)
    assert power(found, n) >= 0.8 > power(found, n - 1)


def test_power_rises_with_networks_and_difference_and_starts_at_the_level():
    found = assumed(0.6, 0.5, 0.4, rng=np.random.default_rng(0))
    assert (np.diff(curve(found, [10, 50, 200, 1000])) > 0).all()
    assert power(found, 100, difference=0.2) > power(found, 100)
    assert power(found, 10_000, difference=0) == pytest.approx(0.05, abs=0.001)


def test_proxies_that_err_alike_are_told_apart_sooner():
    rng = np.random.default_rng(0)
    alike, apart = assumed(0.6, 0.5, 0.7, rng=rng), assumed(0.6, 0.5, 0.3, rng=rng)
    assert networks_needed(alike) < networks_needed(apart)


def test_a_pilot_says_what_its_networks_say():
    errors, truth = draw(400, np.random.default_rng(3), rho_of(0.6, 0.45, 0.35))
    found = pilot(errors["a"], errors["b"], truth)
    assert found.difference == pytest.approx(float(-np.diff(taus(errors, truth).values)[0]))
    expected = assumed(0.6, 0.45, 0.35, rng=np.random.default_rng(0))
    assert found.variance(50) == pytest.approx(expected.variance(50), rel=0.3)


def test_what_cannot_be_planned_is_refused():
    truth = np.arange(5.0)
    with pytest.raises(BadInput, match="order all 5 networks alike"):
        pilot(truth, truth**2, truth[::-1])
    with pytest.raises(BadInput, match="no rankings have taus"):
        assumed(0.9, -0.9, 0.9, rng=np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"in \(-1, 1\), not 1"):
        assumed(1, 0.5, 0.5, rng=np.random.default_rng(0))
    some = Pilot(0.0, 1.0, 1.0, 50)
    with pytest.raises(BadInput, match="difference other than 0"):
        networks_needed(some)
    with pytest.raises(BadInput, match=r"not found with chance 0\.8 on 1,000,000"):
        networks_needed(some, difference=1e-5)
    with pytest.raises(BadInput, match="at least 3 networks"):
        power(some, 2)


@pytest.mark.slow
@pytest.mark.parametrize("assumption", [(0.6, 0.5, 0.4), (0.6, 0.5, 0.6), (0.4, 0.2, 0.1), (0.8, 0.75, 0.7)])
def test_the_number_needed_gives_the_chance_asked_for(assumption):
    n = networks_needed(assumed(*assumption, rng=np.random.default_rng(0), n=1000), chance=0.8)
    found = share_found(n, 1000, assumption)
    print(f"\n{assumption}: {n} networks for 80 %, found in {found:.3f}")
    assert found == pytest.approx(0.8, abs=0.05)
