"""The registry: names, options, capabilities, and searchers of other packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.analytic import PROXY

import searchers
from searchers.parts.logits import Alpha
from searchers.parts.options import checked_options
from searchers.parts.renamed import RENAMED
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
        ("regularized_evolution", {"population_size": 10}, "sample_size must be at most population_size = 10, not 25"),
        ("regularized_evolution", {"sample_size": True}, "sample_size must be a whole number"),
        ("regularized_evolution", {"p_identity": 1.5}, "p_identity must be a number in [0, 1], not 1.5"),
        ("regularized_evolution", {"training_seeds": 0}, "training_seeds must be a whole number"),
        ("local_search", {"move": "worst"}, "move must be one of best, first, not 'worst'"),
        ("local_search", {"initial": 0}, "initial must be a whole number"),
        ("successive_halving", {"eta": 1}, "eta must be a whole number of at least 2, not 1"),
        ("successive_halving", {"eta": 2.5}, "eta must be a whole number"),
        ("successive_halving", {"initial": 0}, "initial must be a whole number"),
        ("successive_halving", {"min_epochs": 13}, "min_epochs must be at most the proxy's 12 epochs, not 13"),
        ("successive_halving", {"rungs": [4, 2]}, "rungs must rise, not (4, 2)"),
        ("successive_halving", {"rungs": []}, "rungs must name at least one"),
        ("successive_halving", {"rungs": 4}, "rungs must be a list"),
        ("successive_halving", {"stages": (0,)}, "stages must be a list of whole numbers of at least 1, not (0,)"),
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


def test_an_old_option_is_refused_with_its_new_name():
    with pytest.raises(BadInput, match=r"^darts: the option 'alpha_lr' is now alpha.lr: write alpha = { lr = ... }$"):
        make("darts", alpha_lr=0.1)


@pytest.mark.parametrize("name", RENAMED)
def test_every_new_name_of_an_old_option_is_one_and_no_old_name_is_left(name):
    entries = {entry["name"]: entry for entry in searchers.listed(name)["options"]}
    for old, new in RENAMED[name].items():
        assert old not in entries
        value, field = new.split(".")
        assert field in [inner["name"] for inner in entries[value]["options"]]


@pytest.mark.parametrize("name", searchers.SEARCHERS)
def test_every_option_has_a_type_a_default_a_range_and_a_meaning(name):
    def each(entries: list[dict[str, object]]) -> Iterator[dict[str, object]]:
        for entry in entries:
            yield entry
            yield from each(entry.get("options", []))  # type: ignore[arg-type]

    for entry in each(searchers.listed(name)["options"]):
        assert entry["meaning"], entry["name"]
        assert entry["type"] != "object", entry["name"]
        assert entry["default"] != "needed", entry["name"]
        assert entry["range"], entry["name"]


@pytest.mark.parametrize("name", searchers.SEARCHERS)
def test_every_default_fits_its_own_range_and_the_wrong_type_does_not(name):
    for option, default in searchers.options(name).items():
        if option not in searchers.CAPABILITIES and default is not None:
            assert checked_options(searchers.load(name), name, {option: default}) == {option: default}
            with pytest.raises(BadInput, match=f"^{name}: {option} must be "):
                checked_options(searchers.load(name), name, {option: object()})


def test_a_table_changes_what_it_names_and_leaves_the_rest_of_the_methods_default():
    searcher = searchers.SEARCHERS["ms_darts"](SPACE, PROXY, np.random.default_rng(0), alpha={"lr": 0.01})
    assert searcher.alpha == Alpha(lr=0.01, warmup_epochs=5)


def test_an_option_value_checks_its_fields_however_it_is_made():
    with pytest.raises(BadInput, match=r"^Alpha: lr must be a number above 0, not 0$"):
        Alpha(lr=0)


def test_what_is_listed_of_an_option():
    (tau, *_, alpha, statistics) = searchers.listed("gdas")["options"]
    assert tau == {
        "name": "tau_max", "type": "float", "default": 10.0, "range": "a number above 0",
        "meaning": "Temperature of the first epoch.",
    }  # fmt: skip
    assert alpha["type"] == "table"
    assert alpha["options"][0] == {
        "name": "lr", "type": "float", "default": 3e-4, "range": "a number above 0",
        "meaning": "Learning rate of the logits.",
    }  # fmt: skip
    assert statistics["range"] == "one of running, batch"
    assert searchers.listed("fnas")["capabilities"] == ["resources", "goal", "pool", "stores"]


GOOD = """
class Mine:
    def __init__(self, space, proxy, rng, *, task): self.task = task
    def ask(self): return []
    def tell(self, evaluations): pass
"""


def test_another_package_brings_a_searcher(plug_in):
    plug_in("their_package", "mine = their_package:Mine", GOOD)
    assert searchers.available()[-1] == "mine"
    assert make("mine", task="digits").task == "digits"


def test_a_searcher_that_says_nothing_of_itself_has_defaults(plug_in):
    plug_in("their_package", "mine = their_package:Mine", GOOD)
    said = searchers.listed("mine")
    assert (said["family"], said["objectives"], said["needs"], said["paper"]) == ("other", ("val_error",), (), "")
    assert [option["name"] for option in said["options"]] == ["task"]


RANGED = """
from typing import Annotated
from searchers.parts.options import AtLeast
class Mine:
    def __init__(self, space, proxy, rng, *, size: Annotated[int, AtLeast(2)] = 3): self.size = size
    def ask(self): return []
    def tell(self, evaluations): pass
"""


def test_options_of_another_package_are_checked_by_their_annotations(plug_in):
    plug_in("their_package", "mine = their_package:Mine", RANGED)
    assert make("mine", size=2).size == 2
    with pytest.raises(BadInput, match=r"^mine: size must be a whole number of at least 2, not 1$"):
        make("mine", size=1)


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
        (
            "class Mine: family = 'random'",
            "is no searcher: it must be a class with ask and tell, or begin, step and derive",
        ),
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
