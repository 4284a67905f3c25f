"""Latency, energy and peak power of a network's inference on the device at hand.

Latency: after a warm-up, so many forward passes of one batch, each waited for; the median, and the distance of its
quartiles as spread. Energy and peak power: batches run back to back for at least `energy_s` seconds while the board's
power is sampled. The energy is the difference of the board's own counter (or, where there is none, the mean sampled
power times the seconds), less the idle power over the same seconds, by image. Peak power is the 95th percentile of the
samples, since a maximum is noise. Several such windows give a coefficient of variation; above `NOISY` the metric is
said to be noisy.

Nothing else may run on the device meanwhile; nobody checks that.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.seeding import generator
from suite.training.device import device_clock, device_name, energy_counter, pick_device, threads
from suite.types import JSON, BadInput, Cost, Unsupported

METRICS = {"latency_ms": "ms for a batch", "energy_mj": "mJ an image", "peak_power_w": "W"}
"""The metrics that can be measured, with their units."""
POWER = ("energy_mj", "peak_power_w")
"""Those that need a power meter."""
NOISY = 0.05
"""Coefficient of variation above which a metric is noisy."""
AT_ONCE = 16
"""Batches that are sent to the device before it is waited for."""


@dataclass(frozen=True)
class Setting:
    """The protocol of measuring: all that a value depends on beside network and device.

    Raises:
        BadInput: A number is out of its range.
    """

    batch_size: int = 1
    """Images in a forward pass whose latency is measured."""
    repeats: int = 50
    """Forward passes that a latency is the median of."""
    warm_up_s: float = 0.5
    """Seconds of forward passes before latencies are taken."""
    energy_batch_size: int = 64
    energy_s: float = 5.0
    """Length of a window in which energy is measured [s]."""
    energy_windows: int = 3
    energy_warm_up_s: float = 3.0
    idle_s: float = 3.0
    """Seconds over which the idle power is averaged, once."""
    sample_hz: float = 50.0
    """Samples of the power a second; at least 20."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name in ("batch_size", "repeats", "energy_batch_size", "energy_windows")
            least = 20 if name == "sample_hz" else 1 if whole else 0
            good = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and value >= least
            if not good or not math.isfinite(value):
                kind = "a whole number" if whole else "a number"
                raise BadInput(f"measure: {name} must be {kind} of at least {least}, not {value!r}")


class PowerMeter(Protocol):
    """A board's own meter of its power."""

    def watts(self) -> float:
        """The power that the device draws now [W]."""

    def joules(self) -> float | None:
        """Since some moment in the past [J]; None: there is no counter."""


@dataclass(frozen=True)
class Measurement:
    """The measured metrics of one network."""

    values: dict[str, float]
    spread: dict[str, float]
    """latency_ms: distance of the quartiles [ms]; energy_mj, peak_power_w: standard deviation over the windows."""
    variation: dict[str, float]
    """Standard deviation by mean (for the latency: distance of the quartiles by 1.35 and median)."""
    cost: Cost
    idle_w: float | None = None

    @property
    def noisy(self) -> tuple[str, ...]:
        """The metrics that vary too much to be trusted to a few percent."""
        return tuple(name for name, variation in self.variation.items() if not variation <= NOISY)


class Meter:
    """Measures networks on one device.

    Args:
        metrics: Of `METRICS`; energy and peak power need a GPU with NVML.
        device: "auto", "cpu", "cuda", "cuda:1"; "auto" is a CUDA device if there is one.
        cpu_threads: Of a CPU.
        protocol: How.
        power: Read instead of the device's own power meter.

    Raises:
        BadInput: No such metric.
        Unsupported: The device is not there, or cannot tell its power.
    """

    def __init__(
        self, metrics: tuple[str, ...] = ("latency_ms",),
        *, device: str = "auto", cpu_threads: int = 1, protocol: Setting | None = None, power: PowerMeter | None = None,
    ) -> None:  # fmt: skip
        for metric in metrics:
            if metric not in METRICS:
                raise BadInput(f"measure: no metric {metric!r}; there are {', '.join(METRICS)}")
        self.metrics, self.protocol, self.cpu_threads = tuple(metrics), protocol or Setting(), cpu_threads
        self.device = pick_device(device)
        self.device_name = device_name(self.device, cpu_threads)
        wanted = [metric for metric in metrics if metric in POWER]
        self.power = power if power is not None or not wanted else nvml(self.device)
        if wanted and self.power is None:
            raise Unsupported(
                f"{wanted[0]}: {self.device_name} has no power meter that can be read (NVML, on NVIDIA's GPUs); "
                "measure latency_ms here, or take energy_mj from the table hw_nas_bench"
            )
        self.idle_w: float | None = None
        """Mean power of the idle device [W]; measured before the first energy."""

    def measure(self, network: nn.Module, shape: tuple[int, int, int]) -> Measurement:
        """All metrics of one network.

        Args:
            network: Is put on the device and into evaluation mode.
            shape: (channels, height, width) of an image.

        Raises:
            torch.OutOfMemoryError: It does not fit.
        """
        clock, energy = device_clock(self.device, self.cpu_threads), energy_counter(self.device)
        began = clock()
        before = energy() if energy else None
        values: dict[str, float] = {}
        spread: dict[str, float] = {}
        variation: dict[str, float] = {}
        layout: Any = {"memory_format": torch.channels_last}
        with threads(self.cpu_threads), torch.inference_mode():
            network = network.to(self.device, **layout).eval()
            if "latency_ms" in self.metrics:
                images = self.images(self.protocol.batch_size, shape)
                times = self.latencies(lambda: network(images))
                low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
                values["latency_ms"], spread["latency_ms"] = middle, high - low
                variation["latency_ms"] = (high - low) / 1.349 / middle
            if self.power is not None:
                images = self.images(self.protocol.energy_batch_size, shape)
                for metric, windows in self.energies(lambda: network(images), self.power).items():
                    if metric in self.metrics:
                        values[metric], spread[metric] = statistics.median(windows), deviation(windows)
                        variation[metric] = abs(spread[metric] / statistics.fmean(windows))
        spent = None if energy is None or before is None else energy() - before
        return Measurement(values, spread, variation, Cost(clock() - began, self.device_name, spent), self.idle_w)

    def images(self, batch_size: int, shape: tuple[int, int, int]) -> Tensor:
        """A fixed batch of noise."""
        noise = torch.randn((batch_size, *shape), generator=generator(0, "measure"))
        return noise.to(self.device).contiguous(memory_format=torch.channels_last)

    def latencies(self, forward: Callable[[], object]) -> list[float]:
        """The latency of each repeat [ms]."""
        self.run_for(self.protocol.warm_up_s, forward)
        times = []
        for _ in range(self.protocol.repeats):
            began = time.perf_counter()
            forward()
            self.wait()
            times.append(1000 * (time.perf_counter() - began))
        return times

    def energies(self, forward: Callable[[], object], power: PowerMeter) -> dict[str, list[float]]:
        """energy_mj and peak_power_w of each window."""
        protocol = self.protocol
        if self.idle_w is None:
            self.wait()
            with Window(power, protocol.sample_hz) as idle:
                time.sleep(protocol.idle_s)
            self.idle_w = idle.joules / idle.seconds
        self.run_for(protocol.energy_warm_up_s, forward)
        found: dict[str, list[float]] = {"energy_mj": [], "peak_power_w": []}
        for _ in range(protocol.energy_windows):
            with Window(power, protocol.sample_hz) as window:
                batches = self.run_for(protocol.energy_s, forward)
            own_j = window.joules - self.idle_w * window.seconds
            found["energy_mj"].append(1000 * own_j / (batches * protocol.energy_batch_size))
            found["peak_power_w"].append(float(np.percentile(window.watts, 95)))
        return found

    def run_for(self, seconds: float, forward: Callable[[], object]) -> int:
        """Batches back to back for at least so long; how many."""
        began, batches = time.perf_counter(), 0
        while batches == 0 or time.perf_counter() - began < seconds:
            for _ in range(AT_ONCE if self.device.type == "cuda" else 1):
                forward()
                batches += 1
            self.wait()
        return batches

    def wait(self) -> None:
        """For the device to have done what it was sent."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def setting(self) -> JSON:
        """All that a value depends on beside the network, ready for JSON."""
        return {"metrics": list(self.metrics), "torch": torch.__version__, **asdict(self.protocol)}


class Window:
    """Power and energy while it is open."""

    def __init__(self, power: PowerMeter, sample_hz: float) -> None:
        self.power, self.period = power, 1 / sample_hz
        self.watts: list[float] = []
        self.joules = self.seconds = 0.0

    def __enter__(self) -> Window:
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.began, self.before = time.perf_counter(), self.power.joules()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        after, self.seconds = self.power.joules(), time.perf_counter() - self.began
        self.closed.set()
        self.thread.join()
        if after is not None and self.before is not None:
            self.joules = after - self.before
        else:
            self.joules = statistics.fmean(self.watts) * self.seconds

    def sample(self) -> None:
        """At least once, then every period."""
        due = time.perf_counter()
        while True:
            self.watts.append(self.power.watts())
            due += self.period
            if self.closed.wait(max(0.0, due - time.perf_counter())):
                return


class NVML:
    """The power meter of one of NVIDIA's boards."""

    def __init__(self, handle: Any, counter: Callable[[], float] | None) -> None:
        self.handle, self.counter = handle, counter

    def watts(self) -> float:
        """The instantaneous field where the driver has it: the default one is an average over a second."""
        import pynvml

        (field,) = pynvml.nvmlDeviceGetFieldValues(self.handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
        if field.nvmlReturn == pynvml.NVML_SUCCESS:
            return float(field.value.uiVal) / 1000
        return float(pynvml.nvmlDeviceGetPowerUsage(self.handle)) / 1000

    def joules(self) -> float | None:
        """Energy that the board's counter shows [J]; None without one."""
        return None if self.counter is None else self.counter()


def nvml(device: torch.device) -> NVML | None:
    """The device's power meter; None where there is none."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        meter = NVML(handle, energy_counter(device))
        meter.watts()
    except pynvml.NVMLError:
        return None
    return meter


def deviation(values: list[float]) -> float:
    """Standard deviation (n - 1); nan of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan
