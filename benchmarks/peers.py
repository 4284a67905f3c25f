"""The loop that most search code trains with, written as it is written there; what our training is measured beside.

A DataLoader of PIL images with torchvision's transforms for each, a module for every edge, channels first, float32,
loss and accuracies read after every step (NASLib, AutoDL-Projects).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from suite.data._torchvision import torchvision_module
from suite.data.images import ImageData
from suite.networks import build
from suite.spaces import SPACES
from suite.types import Ends

SPACE = SPACES["nas_bench_201"]
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
SETTINGS = [(workers, threads) for workers in (0, 2) for threads in (1, 2)]
"""(loader's processes, torch's threads): the peers get the best of them."""


def random_cells(count):
    return [SPACE.sample(np.random.default_rng(seed)) for seed in range(count)]


def images_like_cifar10(number, side=32):
    """At their own resolution: peers have no cached resizing, and shall not pay for that here."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number + 10, 3, side, side), dtype=torch.uint8, generator=rng)
    labels = torch.arange(number + 10) % 10
    train, valid = slice(10, None), slice(10)  # hardly any validation: the peers' loop here has none
    parts = (pixels[train], labels[train], pixels[valid], labels[valid], pixels[:0], labels[:0])
    padding = max(1, 4 * side // 32)
    return ImageData("random", 10, *parts, mean=MEAN, std=STD, crop_padding=padding, flip=True, fingerprint="")


class PictureSet(torch.utils.data.Dataset):
    """As torchvision's CIFAR10."""

    def __init__(self, data):
        transforms = torchvision_module("transforms")
        self.pixels, self.labels = data.train_images.permute(0, 2, 3, 1).numpy(), data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(data.side, padding=data.crop_padding),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        return self.transform(Image.fromarray(self.pixels[place])), self.labels[place]


def loader(data, batch_size, workers=0):
    return torch.utils.data.DataLoader(
        PictureSet(data), batch_size=batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def accuracies(logits, labels):
    """Of the first and of the first five, read from the device."""
    _, best = logits.topk(5, 1)
    right = best.t().eq(labels.view(1, -1).expand(5, -1))
    return [right[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100.0 / len(labels)).item() for k in (1, 5)]


def stepper(arch, proxy, device="cpu"):
    """A function that trains on a batch."""
    network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=0).train().to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    criterion = torch.nn.CrossEntropyLoss()

    def step(images, labels):
        optimizer.zero_grad()
        logits = network(images)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.item(), *accuracies(logits, labels)

    return step


def train(data, arch, proxy, batch_size, workers):
    """One candidate, for the proxy's epochs."""
    step, batches = stepper(arch, proxy), loader(data, batch_size, workers)
    for _ in range(proxy.epochs):
        for images, labels in batches:
            step(images, labels)
