"""The registry: names, options, capabilities, and searchers of other packages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.analytic import PROXY

import searchers
from suite.spaces import SPACES
from suite.types import BadInput, Searcher

SPACE = SPACES["nas_bench_201"]


def make(name: str, **options: object) -> Searcher:
    return searchers.make(name, SPACE, PROXY, np.random.default_rng(0), **options)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Installs a package: its metadata with one entry point, and its module."""

    def install(package: str, entry: str, source: str | None = None) -> Path:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kendall.searchers]\n{entry}\n")
        if source is not None:
            (tmp_path / f"{package}.py").write_text(source)
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    yield install
    for module in set(sys.modules) - modules:
        del sys.modules[module]


def test_the_registry_is_called_like_any_class():
    searcher = searchers.SEARCHERS["regularized_evolution"](SPACE, PROXY, np.random.default_rng(0), population_size=50)
    assert isinstance(searcher, Searcher)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="no searcher 'random_serch': did you mean 'random_search'"):
        make("random_serch")
    with pytest.raises(BadInput, match="there are random_search, regularized_evolution, local_search"):
        make("xyz")


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match="no option 'populationsize': did you mean 'population_size'"):
        make("regularized_evolution", populationsize=10)
    with pytest.raises(BadInput, match="no option 'x': there are move, initial"):
        make("local_search", x=1)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("random_search", {"repeats": "no"}, "repeats must be true or false, not 'no'"),
        ("regularized_evolution", {"population_size": 0}, "population_size must be a whole number of at least 1"),
        ("regularized_evolution", {"population_size": "ten"}, "population_size must be a whole number"),
        ("regularized_evolution", {"population_size": 10}, "sample_size must be a whole number in 1..10, not 25"),
        ("regularized_evolution", {"sample_size": True}, "sample_size must be a whole number"),
        ("regularized_evolution", {"p_identity": 1.5}, "p_identity must be a number in [0, 1], not 1.5"),
        ("regularized_evolution", {"training_seeds": 0}, "training_seeds must be a whole number"),
        ("local_search", {"move": "worst"}, "move must be one of best, first, not 'worst'"),
        ("local_search", {"initial": 0}, "initial must be a whole number"),
        ("successive_halving", {"eta": 1}, "eta must be a whole number of at least 2, not 1"),
        ("successive_halving", {"eta": 2.5}, "eta must be a whole number"),
        ("successive_halving", {"initial": 0}, "initial must be a whole number"),
        ("successive_halving", {"min_epochs": 13}, "min_epochs must be a whole number in 1..12, not 13"),
        ("successive_halving", {"rungs": [4, 2]}, "rungs must rise, not (4, 2)"),
        ("successive_halving", {"rungs": []}, "rungs must name at least one"),
        ("successive_halving", {"rungs": 4}, "rungs must be a list"),
        ("successive_halving", {"stages": (0,)}, "stages must be a whole number in 1..12, not 0"),
        ("successive_halving", {"rungs": (3, 12), "stages": (4, 12)}, "rungs (3, 12) are not all among the stages"),
    ],
)
def test_an_option_out_of_range_is_refused(name, options, says):
    with pytest.raises(BadInput, match=f"^{name}: {re.escape(says)}"):
        make(name, **options)


def test_a_capability_reaches_whoever_has_an_option_of_its_name_and_was_not_given_one():
    offered = {"stages": (4, 12), "weather": "fine"}
    assert make("successive_halving", capabilities=offered).stages == (4, 12)
    assert make("successive_halving", capabilities=offered, stages=(6, 12)).stages == (6, 12)
    make("random_search", capabilities=offered)


def test_options_are_listed_with_their_defaults():
    assert searchers.options("local_search") == {"move": "best", "initial": 1}


GOOD = """
class Mine:
    family, objectives, needs, paper = "random", ("val_error",), (), "none"
    def __init__(self, space, proxy, rng, *, task): self.task = task
    def ask(self): return []
    def tell(self, evaluations): pass
"""


def test_another_package_brings_a_searcher(plug_in):
    plug_in("their_package", "mine = their_package:Mine", GOOD)
    assert searchers.available()[-1] == "mine"
    assert make("mine", task="digits").task == "digits"


def test_all_are_loaded_at_once_and_a_broken_one_says_so(plug_in):
    plug_in("their_package", "mine = their_package:Mine", "raise ImportError('no luck')")
    found = searchers.load_all()
    assert tuple(found) == searchers.available()
    assert all(found[name] is searchers.load(name) for name in searchers.SEARCHERS)
    assert isinstance(found["mine"], BadInput)
    assert "cannot be loaded: ImportError: no luck" in str(found["mine"])


def test_an_option_without_default_must_come_from_somewhere(plug_in):
    plug_in("their_package", "mine = their_package:Mine", GOOD)
    with pytest.raises(BadInput, match="mine: needs task, which was not given"):
        make("mine")
    assert make("mine", capabilities={"task": "digits"}).task == "digits"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("class Other: pass", "cannot be loaded: AttributeError: module 'their_package' has no attribute 'Mine'"),
        ("class Mine: family = 'random'", "is no searcher: it lacks objectives, needs, paper"),
    ],
)
def test_a_broken_package_is_named_when_its_searcher_is_wanted_and_disturbs_no_other(plug_in, source, says):
    plug_in("their_package", "mine = their_package:Mine", source)
    assert "mine" in searchers.available()
    make("random_search")
    with pytest.raises(BadInput) as refused:
        make("mine")
    assert str(refused.value) == f"searcher 'mine' (their_package:Mine, package their_package) {says}"


def test_a_name_taken_twice_is_refused(plug_in):
    plug_in("first", "mine = first:Mine", GOOD)
    plug_in("second", "mine = second:Mine", GOOD)
    with pytest.raises(
        BadInput, match=r"'mine' is registered twice: by package .* and by package .*; rename or uninst"
    ):
        searchers.available()


def test_a_name_of_ours_is_not_for_others(plug_in):
    plug_in("first", "random_search = first:Mine", GOOD)
    with pytest.raises(BadInput, match="'random_search' is registered twice: by kendall and by package first"):
        searchers.available()
