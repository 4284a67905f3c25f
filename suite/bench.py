"""What this machine reaches: what `kendall bench` prints.

The reference workload is a mean cell of NAS-Bench-201 under a proxy, on random images of CIFAR-10's shape: nothing is
downloaded, and images make no difference to how long they take.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.training.data import ImageData
from suite.training.recipe import Recipe
from suite.training.train import BACKWARD, pick_device, threads
from suite.types import Architecture, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
CELL: Architecture = (3, 2, 1, 1, 4, 3)
"""Convolutions on half of the edges, as in a mean cell: one 1x1, two 3x3; a pool, two skips; all reach the output."""
IMAGES = 25_000
"""Of an epoch, as NAS-Bench-201 trains on half of CIFAR-10."""
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
        Workload("tiny", Proxy(12, 4, 8, cells=1), 64, 16_384),
        Workload("small", Proxy(12, 8, 16, cells=1), 64, 4_096),
        Workload("narrow", Proxy(12, 16, 32, cells=1), 128, 1_024),
        Workload("reference", Proxy(12, 16, 32, cells=5), 128, 256),
    )
}
"""The standard proxies; "reference" is NAS-Bench-201's 12-epoch training."""


@dataclass(frozen=True)
class Reached:
    """What was measured of a workload."""

    workload: str
    setting: str
    images_s: float
    """Images trained a second, by all workers together."""
    candidates_h: float
    """Trainings of the proxy's epochs of 25,000 images an hour; validation not counted."""
    candidate_s: float
    """Device seconds of one such training."""
    share: float
    """Of the multiply-adds a second of a large matrix product on as many cores, in the same precision."""


def random_images(number: int, side: int) -> ImageData:
    """Noise in CIFAR-10's form."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number + 10, 3, side, side), dtype=torch.uint8, generator=rng)
    labels = torch.arange(number + 10) % 10
    train, valid = slice(10, None), slice(10)
    return ImageData(
        "random", 10, pixels[train], labels[train], pixels[valid], labels[valid], pixels[:0], labels[:0],
        mean=(0.5,) * 3, std=(0.29,) * 3, crop_padding=max(1, side // 8), flip=True, fingerprint="",
    )  # fmt: skip


def roofline(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Multiply-adds a second of a large matrix product, on a GPU or one thread of a CPU: the best of what was timed."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    with threads(1):
        while time.perf_counter() < end or not best:
            began = time.perf_counter()
            a @ b
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = max(best, size**3 / (time.perf_counter() - began))
    return best


def measure(workload: Workload, *, device: str = "auto", workers: int = 1, precision: str = "auto") -> Reached:
    """Train the reference cell under a workload's proxy: each worker once, all at once, after a warm-up.

    Raises:
        Unsupported: The device is not there.
    """
    where = pick_device(device)
    images = workload.images * (GPU_TIMES if where.type == "cuda" else 1)
    proxy = replace(workload.proxy, epochs=1)
    with tempfile.TemporaryDirectory(prefix="kendall-bench-") as folder:
        live = LiveEvaluator(
            SPACE, random_images(images, proxy.resolution),
            recipe=Recipe(batch_size=workload.batch, precision=precision),
            device=device, workers=workers, checkpoints=Path(folder),
        )  # fmt: skip
        try:
            warm_up = replace(proxy, samples=2 * workload.batch / images)
            live.evaluate([Trial(CELL, warm_up, seed=seed) for seed in range(workers)])
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
    limit = workers * roofline(where, torch.bfloat16 if half else torch.float32)
    setting = f"{workers} worker{'s' if workers > 1 else ''}, {'bfloat16' if half else 'float32'}"
    return Reached(workload.name, setting, images_s, 3600 * images_s / total, total * device_s, done / limit)


def everything(*, device: str = "auto", workers: int | None = None) -> Iterator[Reached]:
    """Every workload; on a CPU in both precisions, by one worker a core."""
    cuda = pick_device(device).type == "cuda"
    many = workers or (1 if cuda else len(os.sched_getaffinity(0)))
    for workload in WORKLOADS.values():
        for precision in ("auto",) if cuda else ("float32", "bfloat16"):
            yield measure(workload, device=device, workers=many, precision=precision)
