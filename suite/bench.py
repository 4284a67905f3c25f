"""The rates that this machine reaches, as `kendall bench` prints them.

The reference workload is a mean cell of NAS-Bench-201 under a proxy, on random images of CIFAR-10's shape: nothing is
downloaded, and images make no difference to how long they take.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from suite.data.images import ImageData
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.training.device import device_name, pick_device, threads
from suite.training.recipe import Recipe
from suite.training.trainer import BACKWARD
from suite.types import Architecture, BadInput, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
CELL: Architecture = (3, 2, 1, 1, 4, 3)
"""Convolutions on half of the edges, as in a mean cell: one 1x1, two 3x3; a pool, two skips; all reach the output."""
IMAGES = 25_000
"""Images of an epoch, as NAS-Bench-201 trains on half of CIFAR-10."""
GPU_TIMES = 50
"""So many times more images are trained on a GPU, to take as long."""


@dataclass(frozen=True)
class Workload:
    """A proxy by name, the batch that it is trained with, and how many images are trained to time it."""

    name: str
    proxy: Proxy
    batch: int
    images: int


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("tiny", Proxy(12, 4, 8, cells=1), 64, 8_192),
        Workload("small", Proxy(12, 8, 16, cells=1), 64, 2_048),
        Workload("narrow", Proxy(12, 16, 32, cells=1), 128, 512),
        Workload("reference", Proxy(12, 16, 32, cells=5), 128, 256),
    )
}
"""The standard proxies; "reference" is NAS-Bench-201's 12-epoch training."""


@dataclass(frozen=True)
class Machine:
    """The most that a device can do, as measured here: the roofline that workloads are held against."""

    device: str
    precision: str
    matmul_macs_s: float
    """Multiply-adds a second of a large matrix product, on a GPU or one core."""
    convolution_macs_s: float
    """Multiply-adds a second of a 3x3 convolution with 64 channels on 32x32 pixels, forward."""
    copy_bytes_s: float
    """Bytes read and written a second in copies of a large block."""


@dataclass(frozen=True)
class Reached:
    """The measured rates of one workload."""

    workload: str
    setting: str
    images_s: float
    """Images trained a second, by all workers together."""
    candidates_h: float
    """Trainings of the proxy's epochs of 25,000 images an hour; validation not counted."""
    candidate_s: float
    """Device seconds of one such training."""
    share: float
    """Share of a large matrix product's multiply-adds a second, on as many cores and in the same precision."""


def random_images(number: int, side: int) -> ImageData:
    """Random images and labels in CIFAR-10's form."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number + 10, 3, side, side), dtype=torch.uint8, generator=rng)
    labels = torch.arange(number + 10) % 10
    train, valid = slice(10, None), slice(10)
    return ImageData(
        "random", 10, pixels[train], labels[train], pixels[valid], labels[valid], pixels[:0], labels[:0],
        mean=(0.5,) * 3, std=(0.29,) * 3, crop_padding=max(1, side // 8), flip=True, fingerprint="",
    )  # fmt: skip


def fastest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one call: the least of those that `seconds` allow, after one to warm up."""
    best, end = math.inf, time.perf_counter() + seconds
    with threads(1), torch.no_grad():
        work()
        while time.perf_counter() < end or best == math.inf:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - began)
    return best


def roofline(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> Machine:
    """Measure the most that a GPU, or one core of a CPU, can do: the best of several timings of `seconds` each."""
    cpu = device.type == "cpu"
    size, images, side, channels = 1024 if cpu else 8192, 16 if cpu else 1024, 32, 64
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    layout: Any = {"memory_format": torch.channels_last}
    x = torch.randn(images, channels, side, side, device=device).to(dtype).to(**layout)
    w = torch.randn(channels, channels, 3, 3, device=device).to(dtype).to(**layout)
    block = torch.ones(2**24 if cpu else 2**28, device=device)
    target = torch.empty_like(block)
    convolution = images * side * side * channels * channels * 9
    return Machine(
        device_name(device, 1),
        str(dtype).removeprefix("torch."),
        size**3 / fastest(lambda: a @ b, device, seconds),
        convolution / fastest(lambda: F.conv2d(x, w, padding=1), device, seconds),
        2 * block.nbytes / fastest(lambda: target.copy_(block), device, seconds),
    )


def measure(
    workload: Workload, *, device: str = "auto", workers: int = 1, precision: str = "auto", step: str = "torch",
    machine: Machine | None = None,
) -> Reached:  # fmt: skip
    """Train the reference cell under a workload's proxy: each worker once, all at once, after a warm-up.

    Args:
        workload: What to train.
        device: As in `pick_device`.
        workers: Trainings side by side.
        precision: As a recipe has it.
        step: Likewise.
        machine: The roofline in that precision; None: it is measured.

    Raises:
        Unsupported: The device is not there, or the workload does not fit it.
    """
    where = pick_device(device)
    images = workload.images * (GPU_TIMES if where.type == "cuda" else 1)
    proxy = replace(workload.proxy, epochs=1)
    with tempfile.TemporaryDirectory(prefix="kendall-bench-") as folder:
        live = LiveEvaluator(
            SPACE, random_images(images, proxy.resolution),
            recipe=Recipe(batch_size=workload.batch, precision=precision, step=step),
            device=str(where), workers=workers, checkpoints=Path(folder),
        )  # fmt: skip
        try:
            warm_up = replace(proxy, samples=workload.batch / images)
            live.evaluate([Trial(CELL, warm_up, seed=workers + seed) for seed in range(workers)])
            began = time.perf_counter()
            answers = live.evaluate([Trial(CELL, proxy, seed=seed) for seed in range(workers)])
            wall = time.perf_counter() - began
        finally:
            live.close()
    for answer in answers:
        if answer.failure:
            raise Unsupported(f"bench: {workload.name}: {answer.failure}")
    half, total = live.trainer.half, workload.proxy.epochs * IMAGES
    images_s = images * workers / wall
    device_s = sum(answer.cost.device_s for answer in answers) / (images * workers)
    done = (1 + BACKWARD) * SPACE.macs(CELL, proxy) * images_s
    limit = machine or roofline(where, torch.bfloat16 if half else torch.float32)
    most = limit.matmul_macs_s * (workers if where.type == "cpu" else 1)
    setting = f"{workers} worker{'s' if workers > 1 else ''}, {'bfloat16' if half else 'float32'}"
    if step != "torch":
        setting += f", {step}"
    return Reached(workload.name, setting, images_s, 3600 * images_s / total, total * device_s, done / most)


def everything(
    *, device: str = "auto", workers: int | None = None, workloads: Sequence[str] | None = None
) -> Iterator[Machine | Reached]:
    """The roofline, then workloads: bfloat16 where training takes it or a CPU is faster in it, compiled steps on CPUs.

    Args:
        device: As in `pick_device`.
        workers: Trainings side by side; None: one a core, or one on a GPU.
        workloads: Keys of `WORKLOADS`; None: all.

    Raises:
        BadInput: There is no such workload.
        Unsupported: The device is not there, or a workload does not fit it.
    """
    names = list(WORKLOADS if workloads is None else workloads)
    if unknown := [name for name in names if name not in WORKLOADS]:
        raise BadInput(f"bench: no proxy {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    where = pick_device(device)
    cpu = where.type == "cpu"
    many = workers or (len(os.sched_getaffinity(0)) if cpu else 1)
    half = roofline(where, torch.bfloat16) if cpu or torch.cuda.is_bf16_supported() else None
    plain = roofline(where, torch.float32)
    settings = [("float32", "torch", plain)]
    if half is not None and not cpu:
        settings = [("bfloat16", "torch", half)]
    elif half is not None and half.matmul_macs_s > plain.matmul_macs_s:
        settings.append(("bfloat16", "torch", half))
    yield from (machine for *_, machine in settings)
    if cpu:
        settings.append(("float32", "compiled", plain))
    for workload in map(WORKLOADS.__getitem__, names):
        for precision, step, machine in settings:
            yield measure(
                workload, device=str(where), workers=many, precision=precision, step=step, machine=machine
            )  # fmt: skip
