"""The weight pool: properties 2, 3 and 8 of FNAS's card, versions, replay, refusals."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from suite.data.images import ImageData, load
from suite.evaluators.live import LiveEvaluator
from suite.networks import build
from suite.networks.blocks import Block, blocks
from suite.spaces import SPACES, SearchSpace
from suite.training.weights.pool import WeightPool, similarity, taken, transfer
from suite.types import Architecture, BadInput, Ends, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
TINY = Proxy(epochs=1, channels=4, resolution=4, samples=0.1, cells=1)
SHAPE = {"ends": Ends(1, 10)}
GOOD, OTHER, THIRD = (3, 2, 1, 1, 3, 2), (3, 3, 2, 1, 1, 3), (2, 3, 1, 3, 0, 3)
RECIPE = {"batch_size": 64}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


@pytest.fixture
def pool(tmp_path) -> Callable[..., WeightPool]:
    def make(
        run: str = "a", space: SearchSpace = SPACE, proxy: Proxy = TINY, folder: str = "pool", **shape: int
    ) -> WeightPool:
        return WeightPool(tmp_path / folder, space, proxy, **{**SHAPE, **shape}, run=run)

    return make


def trial(arch: Architecture, proxy: Proxy = TINY) -> Trial:
    return Trial(arch, proxy, origin="pool")


def network(arch: Architecture, proxy: Proxy = TINY, seed: int = 0, space: SearchSpace = SPACE) -> torch.nn.Module:
    return build(space, arch, proxy, **SHAPE, seed=seed)  # type: ignore[arg-type]


def begun(pool: WeightPool, arch: Architecture, proxy: Proxy = TINY, seed: int = 0) -> dict[str, torch.Tensor]:
    """A network's weights as it begins."""
    made = network(arch, proxy, seed, pool.space)
    pool.inherit(made, trial(arch, proxy), **SHAPE)
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def train(pool: WeightPool, arch: Architecture, seed: int, error: float = 50.0, proxy: Proxy = TINY) -> torch.nn.Module:
    """A network with other weights, left in the pool as if it had been trained."""
    made = network(arch, proxy, seed, pool.space)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith("running_mean"):
                tensor.add_(seed)
    pool.stage(made, trial(arch, proxy), error, **SHAPE)
    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", ["nas_bench_201", "mnas"])
def test_2_every_block_has_a_donor_from_the_first_batch(name, pool):
    space = SPACES[name]
    proxy = TINY if name == "nas_bench_201" else Proxy(1, 16, 8)
    filled, rng = pool(space=space, proxy=proxy), np.random.default_rng(0)
    for arch in [space.sample(rng) for _ in range(10)]:
        begun(filled, arch, proxy)
    assert filled.hits[True] > 50
    assert filled.hits[False] == 0


def test_2_a_donor_with_an_identical_key_gives_an_exact_copy(pool):
    filled = pool()
    trained = train(filled, GOOD, seed=5).state_dict()
    filled.commit()
    assert same(begun(filled, GOOD), trained)  # running statistics and counts too


def test_3_within_a_batch_the_order_of_evaluation_changes_no_initial_weights(pool, digits, tmp_path):
    archs = [GOOD, OTHER]

    def batch(folder: str, order: int) -> tuple[list[dict[str, torch.Tensor]], dict[Architecture, float]]:
        """Initial weights of a second batch, each asked for between the trainings of its siblings."""
        used = pool(folder=folder)
        live = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=used)
        live.evaluate([trial(arch) for arch in archs[::order]])
        used.commit()
        found, errors = {}, {}
        for arch in archs[::order]:
            found[arch] = begun(used, arch)
            (answer,) = live.evaluate([Trial(arch, TINY, seed=1, origin="pool")])
            errors[arch] = answer.metrics["val_error"]
        assert all(same(begun(used, arch), found[arch]) for arch in archs)  # though all siblings are done
        return [found[arch] for arch in archs], errors

    forwards, errors = batch("one", 1)
    backwards, errors_again = batch("two", -1)
    assert all(same(one, other) for one, other in zip(forwards, backwards, strict=True))
    assert errors == errors_again


@pytest.mark.slow
def test_8_half_the_epochs_from_the_pool_are_as_good_as_all_from_scratch(pool, digits):
    """E = 16; 20 networks after 64 have filled the pool; docs/methods/fnas.md says where it does not hold."""
    full, half = Proxy(16, 8, 8, cells=1), Proxy(8, 8, 8, cells=1)
    filled, rng = pool(proxy=half), np.random.default_rng(1)
    live = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled)
    for _ in range(4):
        live.evaluate([trial(SPACE.sample(rng), half) for _ in range(16)])
        filled.commit()
    archs = [SPACE.sample(rng) for _ in range(20)]
    inherited = live.evaluate([trial(arch, half) for arch in archs])
    scratch = live.evaluate([Trial(arch, full) for arch in archs])
    gain = [s.metrics["val_error"] - i.metrics["val_error"] for s, i in zip(scratch, inherited, strict=True)]
    print(f"\nfrom scratch less from the pool: {np.mean(gain):+.2f} points, s.e. {np.std(gain, ddof=1) / 20**0.5:.2f}")
    assert np.mean(gain) >= -0.5


# Donors


def block(position: str = "stage0.edge1", op: str = "nor_conv_3x3", **more: object) -> Block:
    fields = {"kernel": 3 if op == "nor_conv_3x3" else 1, "c_in": 4, "c_out": 4, **more}
    return Block(position, op, **fields)  # type: ignore[arg-type]


def test_similarity_is_the_cosine_with_twice_the_operation():
    one, other = block().key, block(op="nor_conv_1x1").key
    a = np.array([2, 0, 1, 3 / 7, 1 / 6, 0, 0.2, 0.2])
    b = np.array([0, 2, 1, 1 / 7, 1 / 6, 0, 0.2, 0.2])
    assert similarity(one, other) == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)))
    assert similarity(one, block(c_in=8, c_out=8).key) > similarity(one, other)


def test_trained_donors_come_before_initial_weights_the_same_operation_first_the_most_recent_of_equals(pool):
    filled = pool()
    wanted = block()
    donor = filled.donor(wanted)
    assert donor is not None
    assert (donor.trained, donor.key[1]) == (False, "nor_conv_3x3")
    train(filled, (1, 2, 1, 1, 1, 1), seed=1)  # its edge 1 is a 1x1
    filled.commit()
    donor = filled.donor(wanted)
    assert donor is not None
    assert (donor.trained, donor.key[1]) == (True, "nor_conv_1x1")
    for seed in (2, 3):
        last = train(filled, (1, 3, 1, 1, 1, 1), seed=seed)
        filled.commit()
    donor = filled.donor(wanted)
    assert donor is not None
    assert (donor.trained, donor.key[1], donor.version) == (True, "nor_conv_3x3", filled.version)
    assert same(filled.layers(donor)[0], taken(wanted_in(last, (1, 3, 1, 1, 1, 1)), last.state_dict())[0])
    assert filled.donor(block(position="nowhere")) is None


def wanted_in(made: torch.nn.Module, arch: Architecture, position: str = "stage0.edge1") -> Block:
    return next(b for b in blocks(SPACE, arch, TINY, **SHAPE) if b.position == position)


def test_of_one_batch_the_most_accurate_network_gives_a_block_its_weights(pool):
    filled = pool()
    states = {
        error: train(filled, arch, seed=k, error=error) for k, (arch, error) in enumerate([(GOOD, 30.0), (OTHER, 20.0)])
    }
    filled.commit()
    start = begun(filled, GOOD)
    assert torch.equal(start["stem.weight"], states[20.0].state_dict()["stem.weight"])  # both have it
    only = "cells.0.edge1.nor_conv_1x1.conv.weight"  # OTHER has a 3x3 there
    assert torch.equal(start[only], states[30.0].state_dict()[only])


def test_channels_that_both_have_and_the_middle_of_the_kernel_are_copied():
    three, one = block("e", layers=("x.",)), block("e", op="nor_conv_1x1", layers=("x.",))
    narrow = [{"conv.weight": torch.full((2, 2, 1, 1), 7.0), "norm.running_var": torch.full((2,), 3.0)}]
    state = {
        "x.conv.weight": torch.zeros(4, 4, 3, 3),
        "x.norm.running_var": torch.ones(4),
        "y.conv.weight": torch.zeros(1),
    }
    transfer(narrow, three, state)
    expected = torch.zeros(4, 4, 3, 3)
    expected[:2, :2, 1, 1] = 7.0
    assert torch.equal(state["x.conv.weight"], expected)
    assert state["x.norm.running_var"].tolist() == [3, 3, 1, 1]
    assert state["y.conv.weight"].item() == 0
    wide = [{"conv.weight": torch.arange(81.0).reshape(3, 3, 3, 3)}]
    state = {"x.conv.weight": torch.zeros(2, 2, 1, 1)}
    transfer(wide, one, state)
    assert torch.equal(state["x.conv.weight"], wide[0]["conv.weight"][:2, :2, 1:2, 1:2])


def test_a_deeper_block_repeats_the_donors_last_layer(pool):
    filled = pool()
    shallow = train(filled, GOOD, seed=4).state_dict()
    filled.commit()
    deep = begun(filled, GOOD, Proxy(1, 4, 4, samples=0.1, cells=3))
    for cell in range(3):
        name = "edge0.nor_conv_3x3.conv.weight"
        assert torch.equal(deep[f"cells.{cell}.{name}"], shallow[f"cells.0.{name}"])


def test_networks_of_another_task_and_width_inherit_what_fits(pool):
    filled = pool()
    train(filled, GOOD, seed=4)
    filled.commit()
    wide, shape = Proxy(1, 8, 8, cells=1), {"ends": Ends(3, 100)}
    made = build(SPACE, GOOD, wide, **shape, seed=0)
    plain = made.state_dict()["stem.weight"].clone()
    pool("b", proxy=wide, **shape).inherit(made, trial(GOOD, wide), **shape)
    now = made.state_dict()["stem.weight"]
    assert not torch.equal(now[:4, :1], plain[:4, :1])
    assert torch.equal(now[4:], plain[4:])
    assert torch.equal(now[:, 1:], plain[:, 1:])


def test_blocks_that_do_not_reach_the_output_are_not_written_back(pool, digits):
    arch = (3, 0, 0, 3, 0, 0)  # edge 0 ends in a node that goes nowhere
    filled = pool()
    LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled).evaluate([trial(arch)])
    filled.commit()
    trained = {key[0] for key, entry in filled.entries(filled.version).items() if entry.trained}
    assert {"stem", "stage0.edge3", "stage2.edge3", "reduction1", "norm", "classifier"} <= trained
    assert not {"stage0.edge0", "stage1.edge0", "stage2.edge0"} & trained


# Training


def test_a_run_from_the_pool_goes_on_from_better_weights_and_is_charged_for_the_copying(pool, digits):
    proxy = Proxy(2, 4, 8, cells=1)
    filled = pool(proxy=proxy)
    live = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled)
    (first,) = live.evaluate([trial(GOOD, proxy)])
    filled.commit()
    (again,) = live.evaluate([Trial(GOOD, proxy, seed=1, origin="pool")])
    (scratch,) = live.evaluate([Trial(GOOD, proxy, seed=1)])
    assert again.metrics["val_error"] < min(first.metrics["val_error"], scratch.metrics["val_error"])
    assert again.cost.device_s > sum(entry["device_s"] for entry in again.curve)
    assert again.cost.macs == scratch.cost.macs


def test_trials_that_do_not_inherit_neither_read_nor_write(pool, digits):
    filled = pool()
    live = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled)
    (with_pool,) = live.evaluate([Trial(GOOD, TINY)])
    (without,) = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu").evaluate([trial(GOOD)])  # a permission only
    assert with_pool.metrics == without.metrics
    assert not list((filled.folder / "weights").glob(f"{filled.name}*"))
    assert sum(filled.hits.values()) == 0


def test_the_checkpoint_of_an_inheriting_run_is_of_one_version(pool, digits):
    filled = pool()
    trainer = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled).trainer
    before, plain = trainer.key(trial(GOOD)), trainer.key(Trial(GOOD, TINY))
    filled.commit()
    assert trainer.key(trial(GOOD)) != before
    assert trainer.key(Trial(GOOD, TINY)) == plain


@pytest.mark.slow
def test_processes_read_and_write_the_pool_as_one_process_does(pool, digits):
    def weights(folder: str, workers: int) -> dict[str, torch.Tensor]:
        filled = pool(folder=folder)
        live = LiveEvaluator(SPACE, digits, recipe=RECIPE, device="cpu", pool=filled, workers=workers)
        for batch in ([GOOD, OTHER], [THIRD, (1, 3, 3, 2, 2, 3)]):
            live.evaluate([trial(arch) for arch in batch])
            filled.commit()
        live.close()
        return begun(filled, GOOD)

    assert same(weights("one", 1), weights("two", 2))


# Versions, and searches that are cut off


def test_what_was_trained_is_read_after_the_commit_and_not_before(pool):
    filled = pool()
    before, version = begun(filled, GOOD), filled.version
    train(filled, GOOD, seed=3)
    assert same(begun(filled, GOOD), before)
    filled.commit()
    assert filled.version == version + 1
    assert not same(begun(filled, GOOD), before)


def test_a_search_that_goes_through_its_log_again_reads_what_it_read(pool):
    first, starts = pool(), []
    for seed in (1, 2, 3):
        starts.append(begun(first, GOOD))
        train(first, GOOD, seed=seed)
        first.commit()
    other = pool("another search")
    train(other, GOOD, seed=9)
    other.commit()
    again, files = pool(), sorted((first.folder / "weights").iterdir())
    for start in starts:
        assert same(begun(again, GOOD), start)
        again.commit()
    assert sorted((first.folder / "weights").iterdir()) == files
    assert same(begun(again, GOOD), begun(first, GOOD))
    train(again, OTHER, seed=4)
    again.commit()  # a new one: it sees what the other search left, too
    assert torch.equal(begun(again, THIRD)["stem.weight"], network(OTHER, seed=4).state_dict()["stem.weight"])


def test_a_batch_that_was_cut_off_is_committed_whole(pool):
    cut = pool()
    one = train(cut, GOOD, seed=1, error=10.0)  # answered and logged; then the process was killed
    again = pool()
    train(again, OTHER, seed=2, error=20.0)
    again.commit()
    assert torch.equal(begun(again, THIRD)["stem.weight"], one.state_dict()["stem.weight"])


def test_a_later_search_begins_with_what_earlier_ones_left_and_says_so(pool):
    first = pool()
    for seed, arch in enumerate([GOOD, OTHER]):
        train(first, arch, seed=seed, error=seed)
    first.commit()
    later = pool("b")
    assert same(begun(later, GOOD), begun(first, GOOD))
    assert first.note == "weight pool began with blocks of 0 trained networks"
    assert later.note == "weight pool began with blocks of 2 trained networks"


def test_another_search_of_the_same_name_is_refused(pool):
    first = pool()
    train(first, GOOD, seed=1)
    first.commit()
    second = pool()
    train(second, OTHER, seed=1)
    with pytest.raises(BadInput, match="commit 1 of a holds other networks: another search had this name"):
        second.commit()


def test_another_process_stands_where_the_search_stands(pool):
    here = pool()
    there = pickle.loads(pickle.dumps(here))
    train(here, GOOD, seed=6)
    here.commit()
    assert there.version == here.version
    assert same(begun(there, GOOD), begun(here, GOOD))
    made = train(there, OTHER, seed=7)
    here.commit()
    assert torch.equal(begun(here, THIRD)["stem.weight"], made.state_dict()["stem.weight"])


# Refusals


def test_a_pool_of_another_space_is_refused(pool):
    pool()
    with pytest.raises(
        BadInput, match=r"journal\.jsonl: it is of space 'nas_bench_201', not 'mnas'; choose another weight"
    ):
        pool(space=SPACES["mnas"], proxy=Proxy(1, 16, 8))


def test_a_pool_of_another_version_is_refused(pool, tmp_path):
    pool()
    journal = tmp_path / "pool" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"version":1', '"version":2', 1))
    with pytest.raises(BadInput, match="it is of version 2, not 1; choose another weight pool"):
        pool()


def test_a_space_without_blocks_is_refused_before_a_folder_is_made(pool, tmp_path):
    with pytest.raises(Unsupported, match="darts: its networks are not taken apart"):
        pool(space=SPACES["darts"], proxy=SPACES["darts"].full)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "swap"])
def test_damaged_weights_are_one_error(pool, harm):
    filled = pool()
    train(filled, GOOD, seed=1)
    filled.commit()
    (file,) = (filled.folder / "weights").glob(f"{filled.name}*")
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[random.Random(0).randrange(100, len(content))] ^= 1
        file.write_bytes(content)
    elif harm == "cut":
        file.write_bytes(content[:-10])
    elif harm == "swap":  # whole, but not what the journal says
        file.write_bytes(next((filled.folder / "weights").glob("seeds*")).read_bytes())
    else:
        file.unlink()
    later = pool("b")
    with pytest.raises(BadInput, match=f"{file.name}.*choose another folder"):
        begun(later, GOOD)


def test_a_file_that_would_run_code_is_not_read(pool):
    class Trap:
        def __reduce__(self):
            return (Path("/tmp/never").touch, ())

    filled = pool()
    train(filled, GOOD, seed=1)
    filled.commit()
    import hashlib
    import io

    buffer = io.BytesIO()
    torch.save({"val_error": 0.0, "blocks": [Trap()]}, buffer)
    (file,) = (filled.folder / "weights").glob(f"{filled.name}*")
    header = b"kendall weights 1 " + hashlib.sha256(buffer.getvalue()).hexdigest().encode() + b"\n"
    file.write_bytes(header + buffer.getvalue())
    with pytest.raises(BadInput, match="damaged weights"):
        filled.read(file.name)
