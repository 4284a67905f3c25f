"""Random search: uniform, with replacement or without."""

from __future__ import annotations

from collections import Counter

import numpy as np
from helpers.analytic import PROXY, Analytic, converse

from searchers.random_search import RandomSearch
from suite.spaces import SPACES

SPACE = SPACES["nas_bench_201"]


def test_draws_with_replacement_as_often_as_chance_has_it():
    searcher = RandomSearch(SPACE, PROXY, np.random.default_rng(0))
    asked = converse(searcher, Analytic(SPACE), 5000)
    distinct = len({trial.arch for trial in asked})
    expected = SPACE.size * (1 - (1 - 1 / SPACE.size) ** 5000)
    assert abs(distinct - expected) < 100


def test_all_options_are_equally_likely():
    searcher = RandomSearch(SPACE, PROXY, np.random.default_rng(0))
    archs = [trial.arch for trial in converse(searcher, Analytic(SPACE), 5000)]
    for place in range(6):
        counts = Counter(arch[place] for arch in archs)
        assert sum((counts[option] - 1000) ** 2 / 1000 for option in range(5)) < 18.5  # 99.9 %, 4 degrees of freedom


def test_without_repeats_it_draws_the_whole_space_once_and_ends():
    space = SPACES["nas_bench_macro"]
    searcher = RandomSearch(space, PROXY, np.random.default_rng(0), repeats=False)
    asked = converse(searcher, Analytic(space), 10_000)
    assert sorted(trial.arch for trial in asked) == list(space)
