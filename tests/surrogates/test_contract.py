"""What every registered predictor must do."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

import surrogates
from suite.spaces import SPACES
from suite.types import BadInput
from surrogates.base import Predictor
from surrogates.encoding import Encoder

SPACE = SPACES["nas_bench_201"]
SMALL: dict[str, dict[str, object]] = {
    "boosted_trees": {"members": 2, "rounds": 40},
    "extra_trees": {"trees": 30},
    "lstm": {"members": 1, "hidden": 16, "embedding": 8, "epochs": 40},
    "mlp": {"members": 2, "epochs": 60},
    "ensemble": {"members": 1, "rounds": 40},
}
"""So that each is fitted in a fraction of a second."""
ENCODERS = {name: Encoder(SPACE, surrogates.load_class(name).encoding) for name in surrogates.SURROGATES}
every_predictor = pytest.mark.parametrize("name", surrogates.SURROGATES)


def truth(archs, noise=0.0, rng=None):
    """An error that depends on live operations, as real ones do."""
    gain = np.array([0.0, 2.0, 6.0, 9.0, 1.0])
    made = np.array([60 - gain[list(SPACE.simplified(arch))].sum() for arch in archs])
    return made + (noise * rng.normal(size=len(made)) if rng is not None else 0)


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def fitted(name, n=80, **options):
    encoder = ENCODERS[name]
    model = surrogates.make(name, columns=encoder.names, **SMALL.get(name, {}), **options)
    return model.fit(encoder(drawn(n)), truth(drawn(n)))


@every_predictor
def test_it_is_a_predictor(name):
    assert isinstance(surrogates.make(name), Predictor)
    assert surrogates.load_class(name).name == name
    assert json.dumps(surrogates.make(name).options())


@every_predictor
def test_it_ranks_networks_that_it_did_not_see(name):
    others = drawn(200, seed=1)
    mean, spread = fitted(name).predict(ENCODERS[name](others))
    assert mean.shape == spread.shape == (200,)
    assert np.isfinite(mean).all()
    assert (spread > 0).all()
    assert kendalltau(mean, truth(others)).statistic > 0.35  # `size` alone reaches 0.6; 0.35 is far from chance (0.05)


@every_predictor
def test_same_data_same_seed_same_answer_whatever_the_global_state(name):
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    rows = ENCODERS[name](drawn(30, seed=2))
    first = fitted(name, seed=3).predict(rows)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    assert np.array_equal(fitted(name, seed=3).predict(rows), first)


@every_predictor
def test_no_global_random_state_is_touched(name):
    before = (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    fitted(name)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@every_predictor
def test_a_prediction_does_not_depend_on_the_rows_beside_it(name):
    model, rows = fitted(name), ENCODERS[name](drawn(20, seed=4))
    together = np.stack(model.predict(rows))
    alone = np.concatenate([np.stack(model.predict(rows[i : i + 1])) for i in range(20)], axis=1)
    assert np.allclose(together, alone, rtol=1e-4, atol=1e-4)  # networks of torch are float32
    assert np.allclose(model.predict(np.concatenate([rows, rows]))[0], np.tile(together[0], 2), rtol=1e-4)
    assert model.predict(rows[:0])[0].shape == (0,)


@every_predictor
def test_intervals_hold_the_mean_and_grow_with_the_level(name):
    model, rows = fitted(name, folds=3), ENCODERS[name](drawn(20, seed=5))
    mean = model.mean(rows)
    low, high = model.interval(rows, 0.5)
    lower, higher = model.interval(rows, 0.9)
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert (lower <= low).all()
    assert (high <= higher).all()
    assert np.isinf(model.interval(rows, 0.999)[1]).all()  # 80 rows cannot say so much


@every_predictor
def test_a_saved_model_answers_the_same(name, tmp_path):
    model, rows = fitted(name, folds=3).calibrate(), ENCODERS[name](drawn(20, seed=6))
    model.about = {"space": SPACE.name}
    model.save(tmp_path / "model.npz")
    again = surrogates.load(tmp_path / "model.npz")
    assert np.array_equal(again.predict(rows), model.predict(rows))
    assert np.array_equal(again.interval(rows, 0.8), model.interval(rows, 0.8))
    assert (again.data, again.failed, again.about) == (model.data, 0, {"space": SPACE.name})
    assert len(again.data) == 64


@every_predictor
def test_a_damaged_file_is_one_clear_error(name, tmp_path):
    path = tmp_path / "model.npz"
    fitted(name).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="no model of"):
        surrogates.load(path)


@every_predictor
def test_failed_trainings_are_censored_or_dropped_and_counted(name):
    encoder, archs = ENCODERS[name], drawn(60)
    errors = truth(archs)
    bad = np.arange(60) % 6 == 0
    failing = np.where(bad, np.inf, errors)
    settings = {"columns": encoder.names, **SMALL.get(name, {})}
    dropped = surrogates.make(name, failures="dropped", **settings).fit(encoder(archs), failing)
    kept = [arch for arch, out in zip(archs, bad, strict=True) if not out]
    without = surrogates.make(name, **settings).fit(encoder(kept), errors[~bad])
    censored = surrogates.make(name, **settings).fit(encoder(archs), failing)
    worst = surrogates.make(name, **settings).fit(encoder(archs), np.where(bad, errors[~bad].max(), errors))
    rows = encoder(drawn(20, seed=7))
    assert dropped.failed == censored.failed == 10
    assert np.array_equal(dropped.predict(rows), without.predict(rows))
    assert np.array_equal(censored.predict(rows), worst.predict(rows))


@every_predictor
@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.ones((3, 4)), np.arange(3.0), "too few"),
        (np.random.default_rng(0).random((20, 4)), np.full(20, 7.0), "constant"),
        (np.random.default_rng(0).random((20, 4)), np.full(20, np.inf), "too few"),
        (np.random.default_rng(0).random((20, 4)), np.arange(19.0), "do not match"),
        (np.random.default_rng(0).random((20, 4)), np.where(np.arange(20) == 3, np.nan, np.arange(20)), "target 3"),
    ],
    ids=["few", "constant", "all failed", "unequal", "nan"],
)
def test_bad_rows_are_one_clear_error(name, x, y, match):
    with pytest.raises(BadInput, match=match):
        surrogates.make(name).fit(x, y)


@every_predictor
def test_rows_of_another_encoding_are_refused(name):
    with pytest.raises(BadInput, match="columns"):
        fitted(name).predict(np.zeros((2, 3)))
    with pytest.raises(BadInput, match="fit it before"):
        surrogates.make(name).predict(np.zeros((2, 3)))


def test_a_foreign_file_is_refused_and_nothing_in_it_is_run(tmp_path):
    for content in (b"", b"no model", b"\x80\x04."):
        (tmp_path / "foreign.npz").write_bytes(content)
        with pytest.raises(BadInput, match="no model of"):
            surrogates.load(tmp_path / "foreign.npz")
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    with pytest.raises(BadInput, match="no model of"):
        surrogates.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", said=np.array({"format": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="no model of"):
        surrogates.load(tmp_path / "pickle.npz")
    with pytest.raises(BadInput, match="No such file"):
        surrogates.load(tmp_path / "missing.npz")


def test_wrong_names_and_options_are_one_clear_error():
    with pytest.raises(BadInput, match="did you mean 'ridge'"):
        surrogates.make("rigde")
    with pytest.raises(BadInput, match="no option 'tree'"):
        surrogates.make("extra_trees", tree=3)
    with pytest.raises(BadInput, match="no target"):
        surrogates.make("ridge", target="squared")
    with pytest.raises(BadInput, match="folds"):
        surrogates.make("ridge", folds=1)


def test_a_missing_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(
        surrogates.SURROGATES, "absent", surrogates.Entry("a_package_that_is_not_there:X", "for this test")
    )
    with pytest.raises(BadInput, match="pip install a_package_that_is_not_there"):
        surrogates.make("absent")


def test_importing_surrogates_costs_numpy_and_nothing_else():
    heavy = ("torch", "sklearn", "lightgbm", "scipy", "numba", "pandas")
    code = f"import sys, surrogates; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
