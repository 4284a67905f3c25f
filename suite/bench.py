"""What this machine reaches: what `kendall bench` prints.

The reference workload is a mean cell of NAS-Bench-201 under a proxy, on random images of CIFAR-10's shape: nothing is
downloaded, and images make no difference to how long they take.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.training.data import ImageData
from suite.training.recipe import Recipe
from suite.training.train import BACKWARD, threads
from suite.types import Architecture, Proxy, Trial

SPACE = SPACES["nas_bench_201"]
CELL: Architecture = (3, 2, 1, 1, 4, 3)
"""Convolutions on half of the edges, as in a mean cell: one 1x1, two 3x3, a pool, two skips."""
IMAGES = 25_000
"""Of an epoch, as NAS-Bench-201 trains on half of CIFAR-10."""
SECONDS = 3.0
"""That a row is measured for, about."""


@dataclass(frozen=True)
class Workload:
    """A proxy by name, and the batch that it is trained with."""

    name: str
    proxy: Proxy
    batch: int


WORKLOADS = (
    Workload("tiny", Proxy(12, 4, 8, cells=1), 64),
    Workload("small", Proxy(12, 8, 16, cells=1), 64),
    Workload("narrow", Proxy(12, 16, 32, cells=1), 256),
    Workload("full", Proxy(12, 16, 32, cells=5), 256),
)
"""The standard proxies; "full" is the reference workload: NAS-Bench-201's 12-epoch training."""


@dataclass(frozen=True)
class Reached:
    """What was measured of a workload."""

    workload: str
    setting: str
    images_s: float
    """Images trained a second, by all workers together."""
    candidates_h: float
    """Trainings of the proxy's 12 epochs of 25,000 images an hour; validation not counted."""
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
    """Multiply-adds a second of a large matrix product, on one thread of a CPU or on a GPU: the best of what was timed."""
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


def measure(workload: Workload, *, device: str, workers: int, precision: str, seconds: float = SECONDS) -> Reached:
    """Train the reference cell under a workload's proxy, by so many workers, for about so many seconds each.

    Raises:
        Unsupported: The device is not there.
    """
    proxy, recipe = workload.proxy, Recipe(batch_size=workload.batch, precision=precision)

    def rate(live: LiveEvaluator, images: int) -> tuple[float, float]:
        """Images a second of all workers, and device seconds an image."""
        short = Proxy(1, proxy.channels, proxy.resolution, cells=proxy.cells)
        began = time.perf_counter()
        answers = live.evaluate([Trial(CELL, short, seed=seed) for seed in range(workers)])
        wall = time.perf_counter() - began
        assert not any(answer.failure for answer in answers), answers[0].failure
        trained = images * workers
        return trained / wall, sum(answer.cost.device_s for answer in answers) / trained

    def evaluator(images: int, folder: Path) -> LiveEvaluator:
        data = random_images(images, proxy.resolution)
        return LiveEvaluator(SPACE, data, recipe=recipe, device=device, workers=workers, checkpoints=folder)

    with tempfile.TemporaryDirectory(prefix="kendall-bench-") as folder:
        images = 4 * workload.batch
        live = evaluator(images, Path(folder))
        try:
            rate(live, images)
            live.known.clear()
            first = rate(live, images)[0] / workers
        finally:
            live.close()
        images = max(images, int(first * seconds) // workload.batch * workload.batch)
        live = evaluator(images, Path(folder))
        try:
            list(live.engine.answers([[Trial(CELL, Proxy(1, 4, proxy.resolution, cells=1), seed=s)] for s in range(workers)]))
            images_s, device_s = rate(live, images)
        finally:
            live.close()
        half = live.trainer.half
    macs = (1 + BACKWARD) * SPACE.macs(CELL, proxy) * images_s
    limit = workers * roofline(live.trainer.device, torch.bfloat16 if half else torch.float32)
    total = proxy.epochs * IMAGES
    setting = f"{workers} worker{'s' if workers > 1 else ''}, {'bfloat16' if half else 'float32'}"
    return Reached(workload.name, setting, images_s, 3600 * images_s / total, total * device_s, macs / limit)


def everything(*, device: str, workers: int | None, seconds: float = SECONDS) -> Iterator[Reached]:
    """Every workload, in both precisions where there are two."""
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    many = workers or (1 if cuda else len(os.sched_getaffinity(0)))
    for workload in WORKLOADS:
        for precision in ("auto",) if cuda else ("float32", "bfloat16"):
            yield measure(workload, device=device, workers=many, precision=precision, seconds=seconds)
