import math
import time
from dataclasses import fields, replace

import pytest
import torch

import suite.networks.nas_bench_201 as nas_bench_201
from suite.data.images import ImageData, load
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.types import BadInput, Ends, Evaluator, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
GOOD, OTHER, NONE = (3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1), (0,) * 6
TINY = Proxy(epochs=4, channels=4, resolution=8, samples=0.5, cells=1)
RECIPE = {"batch_size": 64}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def live(digits):
    return lambda **options: LiveEvaluator(SPACE, digits, **{"recipe": RECIPE, "device": "cpu", **options})


def told(evaluation):
    """What does not depend on the clock."""
    curve = [{name: value for name, value in entry.items() if name != "device_s"} for entry in evaluation.curve]
    return evaluation.trial, dict(evaluation.metrics), evaluation.failure, curve


def weights(evaluator, trial):
    """Of the run, after its last stage."""
    kept = evaluator.trainer.checkpoints.load(evaluator.trainer.key(trial))
    momentum = [entry["momentum_buffer"] for entry in kept["optimizer"]["state"].values()]
    return [*kept["network"].values(), *momentum]


def test_it_is_an_evaluator(live):
    evaluator = live()
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.name, evaluator.dataset, evaluator.judge) == ("live", "digits", "test")
    assert evaluator.full == SPACE.full
    assert evaluator.stages(TINY) is None
    assert evaluator.device.startswith("CPU (")
    assert evaluator.device.endswith("1 thread)")


def test_it_learns_and_a_cell_of_zeros_does_not(live):
    good, none = live().evaluate([Trial(GOOD, Proxy(4, 8, 8, cells=1)), Trial(NONE, Proxy(4, 8, 8, cells=1))])
    assert good.metrics["val_error"] < 25
    assert 85 < none.metrics["val_error"] < 95
    assert good.metrics["params"] == SPACE.params(GOOD, Proxy(4, 8, 8, cells=1), ends=Ends(1, 10))


def test_resuming_equals_training_through_bit_for_bit(live, tmp_path):
    proxy = replace(TINY, epochs=5)
    first, second, third = (Trial(GOOD, proxy, epochs=epochs, seed=2) for epochs in (1, 3, 4))
    through = live()
    (whole,) = through.evaluate([third])
    staged = live(checkpoints=tmp_path)
    stages = staged.evaluate([first, second])
    fresh = live(checkpoints=tmp_path)  # a new object goes on from the files
    (last,) = fresh.evaluate([third])
    assert told(last) == told(whole)
    assert all(torch.equal(a, b) for a, b in zip(weights(through, third), weights(fresh, third), strict=True))
    assert [len(stage.curve) for stage in stages] == [1, 3]
    assert sum(stage.cost.macs for stage in [*stages, last]) == whole.cost.macs
    assert last.cost.device_s == pytest.approx(last.curve[3]["device_s"], rel=0.1)


def test_stages_asked_in_any_order_at_once_are_one_training(live):
    early, late = Trial(GOOD, TINY, epochs=2), Trial(GOOD, TINY)
    backwards = live().evaluate([late, early])
    (alone,) = live().evaluate([late])
    assert told(backwards[0]) == told(alone)
    assert sum(answer.cost.macs for answer in backwards) == alone.cost.macs


def test_an_earlier_stage_asked_later_is_the_same(live, tmp_path):
    early, late = Trial(GOOD, TINY, epochs=1), Trial(GOOD, TINY, epochs=3)
    (before,) = live().evaluate([early])
    live(checkpoints=tmp_path).evaluate([late])
    evaluator = live(checkpoints=tmp_path)
    (after,) = evaluator.evaluate([early])
    assert told(after) == told(before)
    assert evaluator.trainer.checkpoints.load(evaluator.trainer.key(late))["leg"]["trained"] > 0
    assert len(evaluator.trainer.checkpoints.load(evaluator.trainer.key(late))["curve"]) == 3


def test_a_stage_that_was_trained_but_never_told_is_charged_as_it_was(live, tmp_path):
    trial = Trial(GOOD, TINY, epochs=2)
    (trained,) = live(checkpoints=tmp_path).evaluate([trial])
    (found,) = live(checkpoints=tmp_path).evaluate([trial])
    assert told(found) == told(trained)
    assert found.cost == trained.cost


def test_the_order_of_networks_changes_nothing(live):
    trials = [Trial(GOOD, TINY), Trial(OTHER, TINY), Trial(GOOD, TINY, seed=1), Trial(OTHER, TINY, epochs=2)]
    forwards, backwards = live().evaluate(trials), live().evaluate(trials[::-1])
    assert [told(answer) for answer in forwards] == [told(answer) for answer in backwards[::-1]]
    assert forwards[0].metrics != forwards[2].metrics  # seeds differ


def test_the_global_generator_and_thread_count_are_neither_used_nor_changed(live):
    trial = Trial(GOOD, replace(TINY, epochs=1))
    torch.manual_seed(0)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    (one,) = live().evaluate([trial])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(1)
    (two,) = live().evaluate([trial])
    assert told(one) == told(two)


def test_a_trial_asked_again_costs_nothing(live):
    trial = Trial(GOOD, replace(TINY, epochs=1))
    evaluator = live()
    first, twin = evaluator.evaluate([trial, trial])
    (again,) = evaluator.evaluate([trial])
    assert told(first) == told(twin) == told(again)
    assert first.cost.device_s > 0
    assert twin.cost.device_s == again.cost.device_s == again.cost.macs == 0
    later = live()
    later.recall(first)
    assert later.evaluate([trial])[0].cost.device_s == 0


def test_answers_arrive_as_they_are_done(live):
    trials = [Trial(GOOD, TINY), Trial(OTHER, TINY)]
    stream = live().stream(trials)
    place, answer = next(stream)
    assert answer.trial == trials[place]
    assert [place for place, _ in stream] == [1 - place]


# Views


class Sealed(ImageData):
    """Nobody may look at the test images."""

    def __getattribute__(self, name):
        if name.startswith("test_"):
            raise AssertionError("test data touched")
        return super().__getattribute__(name)


@pytest.fixture
def sealed(digits):
    return Sealed(**{entry.name: getattr(digits, entry.name) for entry in fields(ImageData)})


def test_a_search_never_touches_test_images(live, sealed):
    (answer,) = LiveEvaluator(SPACE, sealed, recipe=RECIPE).evaluate([Trial(GOOD, replace(TINY, epochs=1))])
    assert list(answer.metrics) == ["val_error", "params", "macs"]
    assert not any("test" in name for entry in answer.curve for name in entry)
    judge = LiveEvaluator(SPACE, sealed, recipe=RECIPE, view="judge")
    (answer,) = judge.evaluate([Trial(GOOD, replace(TINY, epochs=1))])
    assert answer.failure == "AssertionError: test data touched"


def test_a_judge_adds_the_test_error_and_else_agrees_with_the_search(live):
    trial = Trial(GOOD, TINY)
    (judged,), (searched,) = live(view="judge").evaluate([trial]), live().evaluate([trial])
    assert judged.metrics.keys() - searched.metrics.keys() == {"test_error"}
    assert judged.metrics["val_error"] == searched.metrics["val_error"]
    assert 0 <= judged.metrics["test_error"] < 60


def test_validation_and_test_images_are_not_augmented(live, digits):
    evaluator = live(view="judge", recipe={"batch_size": 64, "cutout": 0.5})
    evaluator.evaluate([Trial(GOOD, replace(TINY, epochs=1))])
    session = evaluator.trainer.opened(torch.nn.Flatten(), TINY, 0)
    mean, std = (torch.tensor(values)[:, None, None] for values in (digits.mean, digits.std))
    for part, images in (("valid", digits.valid_images), ("test", digits.test_images)):
        torch.testing.assert_close(session.look(part, slice(None)).inputs, (images / 255 - mean) / std)
        assert session.score(part) == session.score(part)


# Failures


def failing(monkeypatch, error):
    """Networks of OTHER raise `error` when they are built."""
    build = nas_bench_201.network

    def network(arch, proxy, **shape):
        if arch == OTHER:
            raise error
        return build(arch, proxy, **shape)

    monkeypatch.setattr(nas_bench_201, "network", network)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such layer\nand more"), "ValueError: no such layer"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory on CPU"),
        (MemoryError(), "out of memory on CPU"),
    ],
)
def test_a_network_that_fails_is_infinite_with_the_reason_and_the_next_is_trained(live, monkeypatch, error, reason):
    failing(monkeypatch, error)
    proxy = replace(TINY, epochs=1)
    broken, fine = live(view="judge").evaluate([Trial(OTHER, proxy), Trial(GOOD, proxy)])
    assert set(broken.metrics) == set(fine.metrics)
    assert all(value == math.inf for value in broken.metrics.values())
    assert broken.failure.startswith(reason)
    assert math.isfinite(fine.metrics["test_error"])
    assert not fine.failure


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_users_interrupt_is_no_failure_of_a_network(live, monkeypatch, error):
    failing(monkeypatch, error())
    with pytest.raises(error):
        live().evaluate([Trial(OTHER, TINY)])


def test_divergence_is_infinite_with_the_epoch_and_the_cost(live):
    (answer,) = live(recipe={"lr": 1e12, "batch_size": 64}).evaluate([Trial(GOOD, TINY)])
    assert answer.metrics["val_error"] == math.inf
    assert answer.failure.startswith("diverged: the ")
    assert answer.cost.device_s > 0
    assert answer.cost.macs > 0


def test_nothing_is_trained_if_one_trial_cannot_be(live):
    evaluator = live()
    with pytest.raises(Unsupported, match="multiple of 4"):
        evaluator.stream([Trial(GOOD, TINY), Trial(GOOD, replace(TINY, resolution=6))])
    with pytest.raises(BadInput, match="decision 0"):
        evaluator.evaluate([Trial(GOOD, TINY), Trial((9, 0, 0, 0, 0, 0), TINY)])
    with pytest.raises(Unsupported, match="keeps no run 'abc' to start from; use origin '' or 'pool'"):
        evaluator.evaluate([Trial(GOOD, TINY), Trial(GOOD, TINY, origin="abc")])
    assert evaluator.known == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "both"}, "search or judge"),
        ({"workers": 0}, "workers must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"threads": 10**9}, "threads must be at most 1024"),
        ({"recipe": {"learning_rate": 1}}, "no key 'learning_rate'"),
        ({"device": "cuda:77"}, "no 'cuda:77'"),
        ({"full": Proxy(1, 4, 9)}, "multiple of 4"),
    ],
)
def test_wrong_options_are_refused(live, options, message):
    with pytest.raises((BadInput, Unsupported), match=message):
        live(**options)


def test_a_space_without_networks_is_refused(digits):
    with pytest.raises(Unsupported, match="no networks to train"):
        LiveEvaluator(SPACES["nas_bench_macro"], digits)


def test_data_without_validation_images_are_refused(digits):
    empty = replace(digits, valid_images=digits.valid_images[:0], valid_labels=digits.valid_labels[:0])
    with pytest.raises(BadInput, match="held out"):
        LiveEvaluator(SPACE, empty)


def test_a_damaged_checkpoint_means_training_again(live, tmp_path):
    stage, whole = Trial(GOOD, TINY, epochs=2), Trial(GOOD, TINY)
    live(checkpoints=tmp_path).evaluate([stage])
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        (answer,) = live(checkpoints=tmp_path).evaluate([whole])
    assert told(answer) == told(live().evaluate([whole])[0])


def test_only_stages_leave_checkpoints(live, tmp_path):
    live(checkpoints=tmp_path).evaluate([Trial(GOOD, replace(TINY, epochs=1)), Trial(OTHER, TINY, epochs=1)])
    assert len(list(tmp_path.iterdir())) == 1


# Processes

DEADLY = """
import os, signal
from pathlib import Path
from suite.spaces.nas_bench_201 import NASBench201

class Deadly(NASBench201):
    def __init__(self, folder, times):
        self.folder, self.times = Path(folder), times

    def trained_macs(self, arch, proxy, **shape):
        times = self.times.get(arch, 0)
        deaths = list(self.folder.glob(f"{arch}*"))
        if len(deaths) < times:
            (self.folder / f"{arch} {len(deaths)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().trained_macs(arch, proxy, **shape)
"""


def test_processes_answer_bit_for_bit_like_one(live, sealed, tmp_path):
    stage, whole = Trial(GOOD, TINY, epochs=2), Trial(GOOD, TINY)
    trials = [whole, Trial(OTHER, TINY), Trial(GOOD, TINY, seed=1), stage]
    live(checkpoints=tmp_path).evaluate([stage])  # here; another process goes on from it
    pool = LiveEvaluator(SPACE, sealed, recipe=RECIPE, device="cpu", workers=2, checkpoints=tmp_path)
    side_by_side, in_a_row = pool.evaluate(trials), live().evaluate(trials)
    assert [told(answer) for answer in side_by_side] == [told(answer) for answer in in_a_row]
    processes = [worker.process for worker in pool.trains.crew.workers]
    next(pool.stream([Trial(GOOD, TINY, seed=2), Trial(OTHER, TINY, seed=2)]))
    assert any(process.is_alive() for process in processes)  # reused
    pool.close()
    assert not any(process.is_alive() for process in processes)


def test_a_process_that_dies_is_replaced_and_its_network_blamed_only_when_it_trained_alone(
    digits, tmp_path, monkeypatch
):
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    import deadly

    deaths = tmp_path / "deaths"
    deaths.mkdir()
    evaluator = LiveEvaluator(
        deadly.Deadly(deaths, {OTHER: 1, NONE: 3}), digits, recipe=RECIPE, device="cpu", workers=2
    )
    began = time.perf_counter()
    proxy = replace(TINY, epochs=1)
    with pytest.warns(
        UserWarning, match=r"a process died .* are lost, and .* is asked again while nothing else trains"
    ):
        once, again, bystander = evaluator.evaluate([Trial(arch, proxy) for arch in (OTHER, NONE, GOOD)])
    evaluator.close()
    assert [math.isfinite(answer.metrics["val_error"]) for answer in (once, again, bystander)] == [True, False, True]
    assert again.failure == (
        "its process died 3 times, 2 of them while it trained alone: SIGKILL, for lack of memory perhaps"
    )
    assert 0 < once.cost.device_s < time.perf_counter() - began


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_learns_resumes_and_measures_like_the_cpu(live, tmp_path):
    stage, whole = Trial(GOOD, TINY, epochs=2), Trial(GOOD, TINY)
    evaluator = live(device="cuda", view="judge", checkpoints=tmp_path)
    assert evaluator.trainer.half == torch.cuda.is_bf16_supported()
    answers = evaluator.evaluate([stage, whole, Trial(NONE, TINY)])
    assert [answer.failure for answer in answers] == ["", "", ""]
    assert answers[1].metrics["test_error"] < 60
    assert answers[2].metrics["val_error"] > 85
    assert answers[0].cost.device == torch.cuda.get_device_name(0)
    (cpu,) = live(view="judge").evaluate([whole])
    assert answers[0].cost.macs + answers[1].cost.macs - cpu.cost.macs == pytest.approx(
        len(load("digits").test_labels) * SPACE.macs(GOOD, TINY, ends=Ends(1, 10))
    )
    assert answers[1].metrics["val_error"] == pytest.approx(cpu.metrics["val_error"], abs=15)
