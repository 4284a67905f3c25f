"""The device that trains: its choice, name, clock, energy counter, threads, and the words for its failures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from suite.types import KendallError, Unsupported

OUT_OF_MEMORY = "out of memory on "
"""Beginning of the words for such a failure."""


class Diverged(Exception):
    """The loss is not a number any more."""


class DeviceLost(KendallError):
    """The device does not answer any more: nothing can be trained on it."""


def reason(error: Exception, device: str) -> str:
    """Why a training failed, in one line."""
    if isinstance(error, Diverged):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
        return f"{OUT_OF_MEMORY}{device}"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


def free(device: torch.device) -> None:
    """Give back what a training held of the device's memory, and wait for the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.synchronize(device)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many CPU threads for torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact(wanted: bool) -> Iterator[None]:
    """Only algorithms whose sums have a fixed order inside the block, if `wanted`; one that has none raises."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def pick_device(device: str) -> torch.device:
    """The device of a name; "auto" is the first CUDA device, else the CPU.

    Raises:
        Unsupported: There is none of that name here.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    count = torch.cuda.device_count()
    there = ["cpu", *(["cuda"] if count else []), *(f"cuda:{place}" for place in range(count))]
    if device not in there:
        raise Unsupported(f"device: no {device!r} here; there are auto, {', '.join(there)}")
    return torch.device("cuda", 0) if device == "cuda" else torch.device(device)


def device_name(device: torch.device, threads: int) -> str:
    """As in `Cost.device`: "NVIDIA H200", "CPU (AMD EPYC, 1 thread)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        import platform

        model = platform.processor() or platform.machine() or model
    return f"CPU ({model}, {threads} thread{'s' if threads > 1 else ''})"


def device_clock(device: torch.device, threads: int) -> Callable[[], float]:
    """The clock of device seconds: wall time on a GPU; on a CPU, time that its cores worked for this process.

    So other work on the same cores does not raise the cost of a training; on an idle machine the two are the same.
    """
    if device.type == "cpu":
        return lambda: time.process_time() / threads
    return time.perf_counter


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """A function that reads the GPU's counter of energy since the driver was loaded [J]; None where there is none."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(identity)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
