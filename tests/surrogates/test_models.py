"""Single models against independent answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import surrogates
from surrogates.base import Scale, distinct
from surrogates.gaussian_process import GaussianProcess, tune
from surrogates.trees import Forest

RNG = np.random.default_rng(0)
X = np.round(RNG.normal(size=(60, 5)), 2)
Y = 3 * X[:, 0] - X[:, 1] ** 2 + 0.1 * RNG.normal(size=60)


def test_trees_as_arrays_say_what_lightgbm_says():
    lightgbm = pytest.importorskip("lightgbm")
    rows = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
    settings = {"verbose": -1, "min_data_in_leaf": 3, "num_leaves": 8}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, Y), 20)
    forest = Forest.of_lightgbm([booster.model_to_string()])
    asked = np.where(RNG.random((200, 5)) < 0.1, np.nan, RNG.normal(size=(200, 5)))
    assert np.allclose(forest.predict(asked)[0], booster.predict(asked))
    whole = lightgbm.train(settings, lightgbm.Dataset(X, Y), 5)  # was never shown a nan, and reads it as 0
    assert np.allclose(Forest.of_lightgbm([whole.model_to_string()]).predict(asked)[0], whole.predict(asked))


def test_a_tree_that_never_splits_is_its_leaf():
    lightgbm = pytest.importorskip("lightgbm")
    booster = lightgbm.train({"verbose": -1, "min_data_in_leaf": 60}, lightgbm.Dataset(X, Y), 3)
    assert np.allclose(Forest.of_lightgbm([booster.model_to_string()]).predict(X)[0], booster.predict(X))


def test_trees_as_arrays_say_what_scikit_learn_says():
    ensemble = pytest.importorskip("sklearn.ensemble")
    forest = ensemble.ExtraTreesRegressor(10, random_state=0).fit(X, Y)
    asked = np.round(RNG.normal(size=(100, 5)), 2).astype(np.float32).astype(np.float64)
    assert np.allclose(Forest.of_sklearn(forest).predict(asked).mean(axis=0), forest.predict(asked))


def test_ridge_is_that_of_scikit_learn_with_the_same_penalty():
    linear = pytest.importorskip("sklearn.linear_model")
    model = surrogates.make("ridge", target="plain").fit(X, Y)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    theirs = linear.RidgeCV(alphas=model.penalties).fit(scaled, Y)
    assert np.allclose(model.predict(X)[0], theirs.predict(scaled))


def test_a_gaussian_process_is_that_of_scikit_learn_with_the_same_kernel():
    gp = pytest.importorskip("sklearn.gaussian_process")
    model = GaussianProcess(target="plain").fit(X, Y)
    assert model.tuned is not None
    weight, amplitude, noise = np.exp(model.tuned)
    kernel = gp.kernels.ConstantKernel(amplitude, "fixed") * gp.kernels.Matern(weight**-0.5, "fixed", nu=2.5)
    points = (X - model.centres) * model.units
    z = (Y - Y.mean()) / Y.std()
    theirs = gp.GaussianProcessRegressor(kernel, alpha=noise + 1e-6, optimizer=None).fit(points, z)
    mean, spread = theirs.predict((X[:7] + 0.3 - model.centres) * model.units, return_std=True)
    ours = model.centre_and_spread(X[:7] + 0.3)
    assert np.allclose(ours[0], mean, atol=1e-8)
    assert np.allclose(ours[1], spread, atol=1e-6)


def test_the_gradient_of_the_posterior_is_that_of_differences(monkeypatch):
    import scipy.optimize

    seen = {}

    def check(loss, start, **_):
        at = start + np.linspace(-0.3, 0.3, len(start))
        seen["ours"] = loss(at)[1]
        steps = 1e-5 * np.eye(len(at))
        seen["theirs"] = np.array([(loss(at + step)[0] - loss(at - step)[0]) / 2e-5 for step in steps])
        return type("Found", (), {"x": start})

    monkeypatch.setattr(scipy.optimize, "minimize", check)
    tune(X, (Y - Y.mean()) / Y.std(), np.array([0, 0, 1, 1, 2]), 1)
    assert np.allclose(seen["ours"], seen["theirs"], rtol=1e-4, atol=1e-5)


def test_columns_of_one_kind_share_a_length_scale():
    names = ("decision 0 is 0", "decision 0 is 1", "path a", "path a b", "log params")
    model = GaussianProcess(columns=names).fit(X, Y)
    assert model.group.tolist() == [0, 0, 2, 3, 1]
    assert model.tuned is not None
    assert len(model.tuned) == 4 + 2


@pytest.mark.parametrize("kind", ["shifted_log", "log", "plain"])
def test_scales_go_there_and_back_and_their_slope_is_the_derivative(kind):
    y = np.exp(Y)
    scale = Scale.of(kind, y)
    z = scale.to(y)
    assert np.allclose(scale.back(z), y)
    assert (z.mean(), z.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    assert np.allclose(scale.slope(z), (scale.back(z + 1e-6) - scale.back(z - 1e-6)) / 2e-6, rtol=1e-5)


def test_distinct_rows_are_found_once():
    rows = np.array([[1.0, 2.0], [3.0, np.nan], [1.0, 2.0], [3.0, np.nan], [2.0, 1.0]])
    first, back = distinct(rows)
    assert len(first) == 3
    assert np.array_equal(rows[first][back], rows, equal_nan=True)


@pytest.mark.parametrize("n", [40, 150])
def test_intervals_cover_as_often_as_they_say(n):
    """Over 60 samples; what 60 x 200 rows can miss by luck, those of one sample not being independent, is 0.03."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n + 200, 4))
        y = x[:, 0] - x[:, 1] + rng.normal(size=n + 200)
        model = surrogates.make("ridge", target="plain", seed=seed).fit(x[:n], y[:n])
        low, high = model.interval(x[n:], 0.8)
        covered.append(((low <= y[n:]) & (y[n:] <= high)).mean())
    assert 0.78 < np.mean(covered) < 0.86


def test_intervals_of_normal_noise_are_as_wide_as_the_normal_law_says():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 3))
    y = x[:, 0] + rng.normal(size=2_000)
    low, high = surrogates.make("ridge", target="plain").fit(x, y).interval(x, 0.9)
    assert float(np.median(high - low)) == pytest.approx(2 * norm.ppf(0.95), rel=0.06)


def test_twins_are_held_out_together():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(40, 3))
    x, noise = np.repeat(half, 2, axis=0), np.repeat(rng.normal(size=40), 2)  # twins with one answer
    y = x[:, 0] + noise
    trees = {"trees": 50, "target": "plain"}
    apart = surrogates.make("extra_trees", **trees).fit(x, y).calibrate()
    together = surrogates.make("extra_trees", **trees).fit(x, y, groups=list(np.repeat(range(40), 2))).calibrate()
    assert np.median(apart._errors) < 0.5 * np.median(together._errors)


def test_an_mlp_is_differentiable_and_says_the_same_as_predict():
    torch = pytest.importorskip("torch")
    for target in ("plain", "shifted_log"):
        model = surrogates.make("mlp", epochs=30, target=target).fit(X, Y)
        code = torch.tensor(X[:5], requires_grad=True)
        said = model(code)
        assert np.allclose(said.detach().numpy(), model.predict(X[:5])[0], rtol=1e-4, atol=1e-4)
        said.sum().backward()
        step = np.zeros_like(X[:5])
        step[:, 1] = 1e-2
        slope = (model.predict(X[:5] + step)[0] - model.predict(X[:5] - step)[0]) / 2e-2
        assert np.allclose(code.grad[:, 1].numpy(), slope, rtol=0.05, atol=0.02)


def test_a_ranking_loss_ranks_and_has_the_unit_of_the_targets():
    pytest.importorskip("torch")
    model = surrogates.make("mlp", loss="ranking", epochs=150, target="plain").fit(X[:50], Y[:50])
    mean = model.predict(X)[0]
    assert np.corrcoef(mean[50:], Y[50:])[0, 1] > 0.7
    assert mean.mean() == pytest.approx(Y.mean(), abs=0.5)


def test_an_additive_table_finds_the_times_that_were_added():
    rng = np.random.default_rng(0)
    rows = np.eye(4)[rng.integers(4, size=(80, 3))].reshape(80, 12)
    times = rng.uniform(0, 5, size=12)
    model = surrogates.make("additive").fit(rows, rows @ times + 2)
    asked = np.eye(4)[rng.integers(4, size=(20, 3))].reshape(20, 12)
    assert np.allclose(model.predict(asked)[0], asked @ times + 2)


def test_an_lstm_reads_sequences_that_end_early():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(4, size=(80, 6)).astype(float)
    x[40:, 3:] = np.nan
    y = np.nansum(x, axis=1)
    model = surrogates.make("lstm", members=1, hidden=16, embedding=8, epochs=60, target="plain").fit(x, y)
    mean = model.predict(x)[0]
    assert np.corrcoef(mean, y)[0, 1] > 0.9
    changed = x.copy()
    changed[0, 5] = (x[0, 5] + 2) % 4  # the last decision counts where it is there
    assert model.predict(changed)[0][0] != mean[0]
