"""EcoNAS's notation, its theoretical acceleration, and the rank service that its card asks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.proxies import LEVELS, Levels, levels, notation, parse, theoretical_acceleration
from suite.spaces import SPACES, SearchSpace
from suite.statistics.measures import kendall_tau, spearman
from suite.types import BadInput, Proxy, Unsupported

SPACE = SPACES["nas_bench_201"]


class Wide(type(SPACE)):  # type: ignore[misc]
    """A space with the paper's full training, and a name without levels of its own."""

    name = "wide"
    full = Proxy(epochs=600, channels=36, resolution=32)
    cells = None


def test_1_the_paper_s_proxy_is_2560_times_cheaper_in_theory():
    space: SearchSpace = Wide()
    assert parse("c0r0s0e600", space) == space.full
    assert parse("c4r4s0e60", space) == Proxy(epochs=60, channels=9, resolution=8)
    assert theoretical_acceleration(parse("c4r4s0e60", space), space.full) == 2560


@pytest.mark.parametrize("space", [SPACE, Wide()], ids=lambda space: space.name)
def test_1_the_full_setting_is_accelerated_by_1(space):
    assert theoretical_acceleration(space.full, space.full) == 1


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.sampled_from([20, 30, 40, 60, 90, 120, 200, 600]))
def test_1_the_acceleration_is_the_product_of_those_of_its_factors(c, r, s, e):
    space = Wide()
    one_by_one = [f"c{c}r0s0e600", f"c0r{r}s0e600", f"c0r0s{s}e600", f"c0r0s0e{e}"]
    together = theoretical_acceleration(parse(f"c{c}r{r}s{s}e{e}", space), space.full)
    apart = prod(theoretical_acceleration(parse(text, space), space.full) for text in one_by_one)
    assert together == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "ratio"), [("c4r0s0e600", 16), ("c0r4s0e600", 16), ("c0r0s3e600", 8), ("c0r0s0e60", 10)]
)
def test_1_each_factor_by_itself(text, ratio):
    assert theoretical_acceleration(parse(text, Wide()), Wide.full) == pytest.approx(ratio)


def test_1_a_depth_of_its_own_is_not_in_the_product():
    with pytest.raises(Unsupported, match="differ in depth"):
        theoretical_acceleration(replace(Wide.full, cells=6), Wide.full)


def test_10_the_rank_service_knows_equal_and_reversed_rankings():
    errors = np.array([5.0, 7.5, 6.0, 9.0, 8.0])
    assert kendall_tau(errors, errors) == spearman(errors, errors) == 1
    assert kendall_tau(-errors, errors) == spearman(-errors, errors) == -1


def test_10_the_rank_service_takes_ties_as_tau_b_and_agrees_with_scipy_to_the_last_digits():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n in (3, 10, 100):
        for high in (3, 1000):
            a, b = rng.integers(0, high, (2, n)).astype(float)
            a[0], a[1], b[0], b[1] = 0, 1, 0, 1  # never all equal
            assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
            assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("space", [SPACE, Wide()], ids=lambda space: space.name)
def test_reading_what_was_written_gives_the_same_proxy(space):
    known = levels(space)
    for c, r, s in itertools.product(*(range(len(values)) for values in vars(known).values())):
        text = f"c{c}r{r}s{s}e60"
        assert notation(parse(text, space), space) == text


def test_every_level_of_nas_bench_201_can_be_built():
    for r in range(5):
        SPACE.check_proxy(parse(f"c0r{r}s0e20", SPACE))  # sides are multiples of 4
    for r in range(3):
        SPACE.check_proxy(parse(f"c0r{r}s0e20", SPACE, side=16))


def test_every_step_of_channels_and_resolution_halves_the_compute_roughly():
    for name, known in LEVELS.items():
        for values in (known.channels, known.resolution):
            for high, low in itertools.pairwise(values):
                assert 1.5 < (high / low) ** 2 < 2.5, name


def test_other_spaces_have_the_paper_s_ratios():
    assert levels(Wide()) == LEVELS["darts"]
    scaled = type("Scaled", (Wide,), {"full": Proxy(600, 16, 32)})()
    assert levels(scaled) == LEVELS["nas_bench_201"]
    for space in SPACES.values():
        known = levels(space)
        assert known.channels[0] == space.full.channels
        assert known.resolution[0] == space.full.resolution


def test_images_of_16_pixels_have_three_levels_of_resolution():
    assert parse("c4r2s0e20", SPACE, side=16) == Proxy(20, 4, 8)
    with pytest.raises(BadInput, match="c4r4s0e20: nas_bench_201 has no level r4; there are r0 = 16, r1 = 12, r2 = 8"):
        parse("c4r4s0e20", SPACE, side=16)


def test_other_levels_can_be_handed_in():
    mine = Levels(channels=(16, 2), resolution=(32, 16), samples=(1.0, 0.1))
    assert parse("c1r1s1e5", SPACE, table=mine) == Proxy(5, 2, 16, 0.1)
    assert notation(Proxy(5, 2, 16, 0.1), SPACE, table=mine) == "c1r1s1e5"


@pytest.mark.parametrize("text", ["", "c4r4s0", "c4 r4 s0 e60", "c4r4s0e60x", "r4c4s0e60", "c-1r0s0e60"])
def test_another_notation_is_refused_with_an_example(text):
    with pytest.raises(BadInput, match=r"not a proxy in EcoNAS's notation: .*; one reads c4r4s0e60"):
        parse(text, SPACE)


def test_what_the_notation_cannot_say_is_refused():
    with pytest.raises(Unsupported, match="channels 5 is no level of nas_bench_201; there are 16, 11, 8, 6, 4"):
        notation(Proxy(60, 5, 8), SPACE)
    with pytest.raises(Unsupported, match="no letter for the number of cells"):
        notation(Proxy(60, 4, 8, cells=1), SPACE)
    assert notation(Proxy(60, 4, 8, cells=5), SPACE) == "c4r4s0e60"


def test_no_epochs_are_refused():
    with pytest.raises(BadInput, match="epochs must be a whole number of at least 1, not 0"):
        parse("c0r0s0e0", SPACE)
