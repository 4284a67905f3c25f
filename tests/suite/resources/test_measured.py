"""Latency, energy and peak power of a network: a meter that can be foretold, a CPU, and (marked) a GPU."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from suite.resources import measured as measure
from suite.resources.measured import NOISY, NVML, Measurement, Meter, Setting, Window
from suite.types import BadInput, Cost, Ends, Unsupported

SHORT = Setting(
    repeats=20, warm_up_s=0.02, energy_batch_size=4, energy_s=0.1, energy_windows=3, energy_warm_up_s=0.02, idle_s=0.05
)
SHAPE = (3, 8, 8)
METRICS = ("latency_ms", "energy_mj", "peak_power_w")


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The meter's time."""
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    return clock


class Sleeper(nn.Module):
    """Takes so long a forward pass [s]: the same for any batch, or by image."""

    def __init__(self, clock: Clock, seconds: float = 0.005, *, by_image: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock, self.seconds, self.by_image, self.passes = clock, seconds, by_image, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.clock.sleep(self.seconds * (len(images) if self.by_image else 1))
        self.passes += 1
        return images.flatten(1).sum(1)


class Board:
    """A power meter whose board takes `idle_w`, and `busy_w` since the network's first pass."""

    def __init__(self, network: Sleeper, *, idle_w: float = 20.0, busy_w: float = 120.0, counter: bool = True) -> None:
        self.network, self.idle_w, self.busy_w, self.counter = network, idle_w, busy_w, counter
        self.spent, self.at = 1000.0, network.clock.now

    def watts(self) -> float:
        return self.busy_w if self.network.passes else self.idle_w

    def joules(self) -> float | None:
        now = self.network.clock.now
        self.spent, self.at = self.spent + self.watts() * (now - self.at), now
        return self.spent if self.counter else None


def measured(network: Sleeper, power: Board | None = None, metrics: tuple[str, ...] = METRICS) -> Measurement:
    return Meter(metrics, device="cpu", protocol=SHORT, power=power).measure(network, SHAPE)


# What the numbers are


@pytest.mark.parametrize("counter", [True, False])
def test_energy_is_what_the_board_takes_above_idle_by_image(clock, counter):
    network = Sleeper(clock)
    found = measured(network, Board(network, counter=counter), METRICS[1:])
    images_a_second = 4 / 0.005
    assert found.idle_w == pytest.approx(20.0)
    assert found.values["energy_mj"] == pytest.approx(1000 * (120 - 20) / images_a_second)
    assert found.values["peak_power_w"] == 120.0
    assert set(found.values) == {"energy_mj", "peak_power_w"}


def test_latency_is_the_median_of_a_forward_pass_of_one_batch(clock):
    found = measured(Sleeper(clock, 0.01), metrics=("latency_ms",))
    assert found.values["latency_ms"] == pytest.approx(10.0)
    assert found.spread["latency_ms"] == pytest.approx(0.0, abs=1e-6)
    assert found.cost.device.startswith("CPU")


def test_measuring_costs_what_the_cores_worked():
    meter = Meter(device="cpu", protocol=Setting(repeats=20, warm_up_s=0.1))
    cost = meter.measure(nn.Sequential(nn.Conv2d(3, 32, 3)), SHAPE).cost
    assert 0 < cost.device_s < 5
    assert cost.energy_j is None


def test_the_warm_up_does_not_count(clock):
    class First(Sleeper):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seconds = 1.0 if not self.passes else 0.01
            return super().forward(images)

    assert measured(First(clock), metrics=("latency_ms",)).values["latency_ms"] == pytest.approx(10.0)


@pytest.mark.parametrize("size", [1, 16])
def test_a_whole_batch_is_timed(clock, size):
    meter = Meter(device="cpu", protocol=Setting(batch_size=size, repeats=5))
    network = Sleeper(clock, 0.001, by_image=True)
    assert meter.measure(network, SHAPE).values["latency_ms"] == pytest.approx(size)


def test_windows_are_as_long_and_as_many_as_asked_for(clock):
    network = Sleeper(clock)
    measured(network, Board(network), ("energy_mj",))
    assert 4 + 3 * 20 <= network.passes <= 5 + 3 * 21  # the warm-up, and three windows of 0.1 s


def test_the_power_is_sampled_at_least_20_times_a_second():
    network = Sleeper(Clock())
    with Window(Board(network), 50) as window:
        time.sleep(1.0)
    assert 20 <= len(window.watts) / window.seconds <= 52


def test_the_idle_power_is_measured_once(clock):
    network = Sleeper(clock)
    board = Board(network)
    meter = Meter(METRICS[1:], device="cpu", protocol=SHORT, power=board)
    first = meter.measure(network, SHAPE).idle_w
    board.idle_w = 90.0
    assert meter.measure(network, SHAPE).idle_w == first


# Property 7 of MONAS's card


def test_7_a_steady_board_is_not_noisy(clock):
    network = Sleeper(clock)
    found = measured(network, Board(network), ("energy_mj",))
    assert found.variation["energy_mj"] < 1e-9
    assert found.noisy == ()


def test_7_an_unsteady_board_is_flagged(clock):
    network = Sleeper(clock)

    class Unsteady(Board):
        def watts(self) -> float:
            return 120.0 + 0.1 * self.network.passes if self.network.passes else 20.0

    found = measured(network, Unsteady(network), ("energy_mj", "peak_power_w"))
    assert 0.005 < found.variation["energy_mj"] < NOISY
    assert found.noisy == ()
    network = Sleeper(clock)

    class Unsteadier(Unsteady):
        def watts(self) -> float:
            return 120.0 + 2.0 * self.network.passes if self.network.passes else 20.0

    found = measured(network, Unsteadier(network), ("energy_mj", "peak_power_w"))
    assert found.variation["energy_mj"] > NOISY
    assert found.noisy == ("energy_mj", "peak_power_w")


@pytest.mark.parametrize(("variation", "noisy"), [(0.049, ()), (0.051, ("energy_mj",)), (math.nan, ("energy_mj",))])
def test_7_the_flag_is_raised_above_5_percent_or_where_nobody_knows(variation, noisy):
    assert Measurement({}, {}, {"energy_mj": variation}, Cost(1.0, "x")).noisy == noisy


def test_7_a_latency_of_this_cpu_is_steady_or_flagged():
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Flatten(), nn.Linear(32 * 36, 10))
    meter = Meter(device="cpu", protocol=Setting(repeats=30, warm_up_s=0.1))
    values = [meter.measure(network, SHAPE) for _ in range(5)]
    latencies = [found.values["latency_ms"] for found in values]
    assert all(0 < latency < 1000 for latency in latencies)
    for found in values:
        assert (found.variation["latency_ms"] > NOISY) == ("latency_ms" in found.noisy)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_7_energy_on_an_idle_gpu_varies_by_less_than_5_percent_or_is_flagged():
    from suite.networks import build
    from suite.spaces import SPACES
    from suite.types import Proxy

    space = SPACES["nas_bench_201"]
    network = build(space, (3,) * 6, Proxy(1, 16, 32), ends=Ends(3, 10), seed=0)
    meter = Meter(METRICS, device="cuda", protocol=Setting())
    found = [meter.measure(network, (3, 32, 32)) for _ in range(3)]
    energies = [each.values["energy_mj"] for each in found]
    assert min(energies) > 0
    assert np.std(energies, ddof=1) / np.mean(energies) < NOISY or any("energy_mj" in each.noisy for each in found)
    assert all(each.values["peak_power_w"] > (each.idle_w or 0) for each in found)


# NVML


def test_nvml_reads_the_instantaneous_field_and_falls_back_to_the_average(monkeypatch):
    import pynvml

    field = SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=SimpleNamespace(uiVal=250_000))
    asked = []

    def fields(handle: object, wanted: list[int]) -> list[SimpleNamespace]:
        asked.append(wanted)
        return [field]

    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", fields)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 180_000)
    meter = NVML("handle", lambda: 5.0)
    assert meter.watts() == 250.0
    assert asked == [[pynvml.NVML_FI_DEV_POWER_INSTANT]]
    field.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert meter.watts() == 180.0
    assert meter.joules() == 5.0
    assert NVML("handle", None).joules() is None


# Refusals


@pytest.mark.parametrize("metric", ["energy_mj", "peak_power_w"])
def test_energy_on_a_cpu_is_refused_in_one_line(metric):
    with pytest.raises(Unsupported) as refusal:
        Meter((metric,), device="cpu")
    assert str(refusal.value).startswith(f"{metric}: CPU (")
    assert "measure latency_ms here, or take energy_mj from the table hw_nas_bench" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"repeats": 0}, "repeats must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, not 1.5"),
        ({"sample_hz": 10.0}, "sample_hz must be a number of at least 20, not 10.0"),
        ({"warm_up_s": -1.0}, "warm_up_s must be a number of at least 0, not -1.0"),
        ({"idle_s": math.inf}, "idle_s must be a number of at least 0, not inf"),
    ],
)
def test_a_wrong_number_is_refused(values, complaint):
    with pytest.raises(BadInput, match=complaint):
        Setting(**values)


def test_an_unknown_metric_and_an_absent_device_are_refused():
    with pytest.raises(BadInput, match="no metric 'watts'; there are latency_ms, energy_mj, peak_power_w"):
        Meter(("watts",))
    with pytest.raises(Unsupported, match="no 'cuda:77' here"):
        Meter(device="cuda:77")
