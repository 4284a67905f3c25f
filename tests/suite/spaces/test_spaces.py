"""Search spaces: what all have in common, and NAS-Bench-201's published counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.spaces import SPACES, SearchSpace
from suite.types import Architecture, BadInput, Ends, KendallError, Proxy, Unsupported

NB201 = SPACES["nas_bench_201"]
SHARED = Path(__file__).resolve().parents[3].parent / "shared"
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
SMALL = {name: space for name, space in SPACES.items() if space.size < 100_000}
every_small_space = pytest.mark.parametrize("space", SMALL.values(), ids=SMALL)
SIZES = {"nas_bench_201": 15_625, "nats_bench_size": 32_768, "nas_bench_macro": 6_561}


def architectures(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    return st.tuples(*(st.integers(0, options - 1) for options in space.decisions))


spaces_and_architectures = st.sampled_from(list(SPACES.values())).flatmap(
    lambda space: st.tuples(st.just(space), architectures(space))
)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_sizes_are_the_published_ones(name, size):
    assert SPACES[name].size == size
    assert SPACES[name].name == name


@given(spaces_and_architectures)
def test_text_and_parse_are_inverse(drawn):
    space, arch = drawn
    text = space.text(arch)
    assert space.parse(text) == arch
    assert space.parse(f" {text}\n") == arch


@every_small_space
def test_index_and_at_are_inverse_and_list_the_space_once(space):
    archs = list(space)
    assert len(set(archs)) == len(archs) == space.size
    assert [space.index(arch) for arch in archs] == list(range(space.size))
    assert archs == sorted(archs)


@given(spaces_and_architectures)
def test_index_and_at_are_inverse_in_spaces_of_any_size(drawn):
    space, arch = drawn
    place = space.index(arch)
    assert type(place) is int
    assert 0 <= place < space.size
    assert space.at(place) == arch
    assert all(type(option) is int for option in space.at(place))
    assert next(iter(space)) == space.at(0)  # listed as one goes


@every_small_space
def test_texts_are_all_different(space):
    assert len({space.text(arch) for arch in space}) == space.size


@given(spaces_and_architectures, seeds)
def test_a_mutant_differs_in_one_decision_and_the_parent_stays(drawn, seed):
    space, arch = drawn
    before = tuple(arch)
    mutant = space.mutate(arch, np.random.default_rng(seed))
    assert sum(a != b for a, b in zip(arch, mutant, strict=True)) == 1
    assert arch == before
    space.check(mutant)


@every_space
def test_mutants_are_neighbours_in_any_decision_and_with_any_option_equally_likely(space):
    rng, arch = np.random.default_rng(0), space.at(space.size // 3)
    neighbours = space.neighbours(arch)
    draws = 100 * len(neighbours)
    counts = Counter(space.mutate(arch, rng) for _ in range(draws))
    assert set(counts) == set(neighbours)
    chi_square = 0.0
    for neighbour, count in counts.items():
        (changed,) = (place for place, (a, b) in enumerate(zip(arch, neighbour, strict=True)) if a != b)
        expected = draws / len(arch) / (space.decisions[changed] - 1)
        chi_square += (count - expected) ** 2 / expected
    assert chi_square < chi_square_limit(len(neighbours) - 1)


@given(spaces_and_architectures)
def test_neighbours_are_all_that_differ_in_one_decision(drawn):
    space, arch = drawn
    neighbours = space.neighbours(arch)
    assert len(set(neighbours)) == len(neighbours) == sum(options - 1 for options in space.decisions)
    for other in neighbours:
        space.check(other)
        assert sum(a != b for a, b in zip(arch, other, strict=True)) == 1
    assert all(arch in space.neighbours(other) for other in neighbours[:3])


@every_space
def test_samples_are_uniform(space):
    rng, cells = np.random.default_rng(0), 50
    counts = np.bincount([space.index(space.sample(rng)) * cells // space.size for _ in range(10_000)], minlength=cells)
    bounds = [-(-cell * space.size // cells) for cell in range(cells + 1)]
    expected = np.diff(np.array(bounds, dtype=object)).astype(float) / space.size * 10_000
    assert ((counts - expected) ** 2 / expected).sum() < chi_square_limit(cells - 1)


def chi_square_limit(freedom: int) -> float:
    """What one in ten thousand exceeds (Wilson & Hilferty's approximation)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.719 * (2 / (9 * freedom)) ** 0.5) ** 3


@every_space
@pytest.mark.parametrize("text", ["", "x", "|", "+++", "12", "8:8:8:8:9", "1:2", "00120013", "|none~0|+|none~0|"])
def test_what_is_no_architecture_is_refused_in_one_line(space, text):
    with pytest.raises(BadInput) as refused:
        space.parse(text)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{space.name}: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "no operation 'conv'; there are none, skip_connect"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "not a cell string"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "not a cell string"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|", "not a cell string"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "not a cell string"),
    ],
)
def test_a_wrong_cell_string_says_what_is_wrong(text, says):
    with pytest.raises(BadInput, match=says):
        NB201.parse(text)


@every_space
def test_wrong_architectures_and_indices_are_refused(space):
    right = space.at(0)
    for wrong in ((), right[:-1], (*right, 0), (-1, *right[1:]), (space.decisions[0], *right[1:])):
        with pytest.raises(BadInput, match=f"^{space.name}: "):
            space.check(wrong)
        with pytest.raises(BadInput):
            space.index(wrong)
        with pytest.raises(BadInput):
            space.text(wrong)
    for index in (-1, space.size):
        with pytest.raises(BadInput, match="numbered"):
            space.at(index)


@pytest.mark.parametrize("resolution", [1, 2, 6, 30])
def test_a_resolution_too_small_for_the_strides_is_refused_with_ones_that_work(resolution):
    with pytest.raises(Unsupported, match="multiple of 4") as refused:
        NB201.check_proxy(Proxy(12, 16, resolution))
    offered = [int(word) for word in str(refused.value).split(": ")[-1].split(" or ")]
    for side in offered:
        NB201.check_proxy(Proxy(12, 16, side))


@pytest.mark.parametrize("name", ["nats_bench_size", "nas_bench_macro"])
def test_a_space_without_networks_says_so(name):
    space = SPACES[name]
    for question in (
        lambda: space.check_proxy(space.full),
        lambda: space.params(space.at(0), space.full),
        lambda: space.macs(space.at(0), space.full),
    ):
        with pytest.raises(KendallError, match="table"):
            question()


def test_nas_bench_201_has_6466_cells_by_its_own_rule():
    assert len({NB201.unique_string(arch) for arch in NB201}) == 6466  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def published():
    if not SHARED.exists():
        pytest.skip("needs ../shared/data")
    import pandas as pd

    columns = ["arch_str", "iso_class", *(f"{d}_{c}" for d in ("c10", "c100", "in16") for c in ("params", "mflops"))]
    return pd.read_parquet(SHARED / "data" / "nb201.parquet", columns=columns)


@pytest.mark.parametrize(("prefix", "classes", "side"), [("c10", 10, 32), ("c100", 100, 32), ("in16", 120, 16)])
def test_parameters_and_multiply_adds_of_all_cells_equal_the_published(published, prefix, classes, side):
    proxy = Proxy(epochs=200, channels=16, resolution=side)
    archs = [NB201.parse(text) for text in published["arch_str"]]
    assert set(archs) == set(NB201)
    params = [NB201.params(arch, proxy, ends=Ends(3, classes)) for arch in archs]
    assert params == published[f"{prefix}_params"].tolist()
    macs = np.array([NB201.macs(arch, proxy, ends=Ends(3, classes)) for arch in archs], dtype=np.float64)
    np.testing.assert_array_equal((macs / 1e6).astype(np.float32), published[f"{prefix}_mflops"].to_numpy())


def test_cells_of_one_unique_string_are_one_function(published):
    """The table's classes, found by another rule, never part cells that ours calls the same."""
    classes: dict[str, set[int]] = {}
    for text, number in zip(published["arch_str"], published["iso_class"], strict=True):
        classes.setdefault(NB201.unique_string(NB201.parse(text)), set()).add(number)  # type: ignore[attr-defined]
    assert all(len(numbers) == 1 for numbers in classes.values())
