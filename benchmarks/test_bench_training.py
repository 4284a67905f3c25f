"""Images a second of live training on one core, beside the loop that most search code trains with.

The peers' loop: a DataLoader of PIL images with torchvision's transforms for each, channels first, the loss read after
every step. Both train the same three random cells of NAS-Bench-201 on CIFAR-10's shape; pairs are interleaved.

Run: pytest benchmarks/test_bench_training.py -s --benchmark-disable-gc --benchmark-columns=median
"""

import statistics
import time

import numpy as np
import pytest
import torch
from PIL import Image

from suite.networks import build
from suite.spaces import SPACES
from suite.training._torchvision import torchvision_module
from suite.training.data import ImageData
from suite.training.recipe import Recipe
from suite.training.train import Trainer, threads
from suite.types import Proxy, Trial

SPACE = SPACES["nas_bench_201"]
CELLS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(3)]
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
ROUNDS = 3


def images_like_cifar10(number):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number + 10, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.arange(number + 10) % 10
    train, valid = slice(10, None), slice(10)  # hardly any validation: the peers' loop here has none
    parts = (pixels[train], labels[train], pixels[valid], labels[valid], pixels[:0], labels[:0])
    return ImageData("random", 10, *parts, mean=MEAN, std=STD, crop_padding=4, flip=True, fingerprint="")


class PictureSet(torch.utils.data.Dataset):
    """As torchvision's CIFAR10."""

    def __init__(self, data, transform):
        self.pixels, self.labels = data.train_images.permute(0, 2, 3, 1).numpy(), data.train_labels.tolist()
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        return self.transform(Image.fromarray(self.pixels[place])), self.labels[place]


def peers_epoch(data, arch, proxy, batch_size):
    transforms = torchvision_module("transforms")
    smaller = [transforms.Resize(proxy.resolution)] if proxy.resolution != 32 else []
    transform = transforms.Compose(
        [
            *smaller,
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(proxy.resolution, padding=4 * proxy.resolution // 32),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = torch.utils.data.DataLoader(PictureSet(data, transform), batch_size=batch_size, shuffle=True)
    network = build(SPACE, arch, proxy, classes=10, image_channels=3, seed=0).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    criterion = torch.nn.CrossEntropyLoss()
    losses = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        losses += loss.item() * len(labels)
    return losses


@pytest.mark.parametrize(
    ("channels", "cells", "side", "batch_size", "number"),
    [(4, 1, 8, 64, 2048), (8, 1, 16, 64, 1024), (16, 1, 32, 256, 512), (16, 5, 32, 256, 256)],
)
def test_images_a_second(benchmark, tmp_path, capsys, channels, cells, side, batch_size, number):
    data, proxy = images_like_cifar10(number), Proxy(1, channels, side, cells=cells)
    recipe = Recipe(batch_size=batch_size)
    ours, peers = [], []

    def pair(seed):
        trainer = Trainer(SPACE, data, recipe, device="cpu", threads=1, judge=False, checkpoints=tmp_path)
        began = time.perf_counter()
        for arch in CELLS:
            assert trainer.answer(Trial(arch, proxy, seed=seed)).failure == ""
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        with threads(1):
            for arch in CELLS:
                peers_epoch(data, arch, proxy, batch_size)
        peers.append(time.perf_counter() - began)

    pair(0)  # warm-up
    ours.clear()
    peers.clear()
    for seed in range(1, ROUNDS):
        pair(seed)
    benchmark.pedantic(pair, args=(ROUNDS,), rounds=1)
    images = number * len(CELLS)
    ratio = statistics.median(theirs / own for own, theirs in zip(ours, peers, strict=True))
    rates = [images / statistics.median(seconds) for seconds in (ours, peers)]
    benchmark.extra_info |= {"images_s": rates[0], "peers_images_s": rates[1], "ratio": ratio}
    with capsys.disabled():
        print(
            f"\nC={channels} N={cells} {side}x{side} batch {batch_size}: {rates[0]:,.0f} images/s, "
            f"peers' loop {rates[1]:,.0f}, ratio {ratio:.2f}"
        )
