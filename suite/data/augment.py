"""Augmentation: changes of images on their way into a network, a batch at a time, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suite.data.seeding import generator
from suite.machine_code import compiled

CHUNK = 1024
"""Number of images that are resized at once."""
COMPILING_PAYS = 300_000_000
"""Pixel values that are augmented in the time that the compiled pass takes to load."""


def resize(images: Tensor, side: int) -> Tensor:
    """Images of another side: bilinear, smoothed before shrinking, rounded to whole pixel values.

    Args:
        images: Shape (n, c, h, w), uint8.
        side: Of the result [pixels].

    Returns:
        Shape (n, c, side, side), uint8; `images` itself if that is its shape.
    """
    if images.shape[-2:] == (side, side):
        return images
    resized = images.new_empty((*images.shape[:2], side, side))
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].float()
        smooth = F.interpolate(chunk, (side, side), mode="bilinear", antialias=True, align_corners=False)
        resized[start : start + CHUNK] = smooth.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def crop(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Each image surrounded by `padding` black pixels, cut back to its size, then mirrored or not.

    Args:
        images: Shape (n, c, h, w).
        top: First row kept of the padded image, 0..2 padding, shape (n,), int64.
        left: First column kept, likewise.
        mirrored: Whether left and right are exchanged, shape (n,), bool.
        padding: On each side [pixels].

    >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> crop(image, torch.tensor([2]), torch.tensor([1]), torch.tensor([True]), padding=1).tolist()
    [[[[4, 3], [0, 0]]]]
    """
    n, c, h, w = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    down, across = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    rows = top[:, None] + down  # (n, h)
    columns = left[:, None] + torch.where(mirrored[:, None], w - 1 - across, across)  # (n, w)
    image = torch.arange(n, device=images.device)
    channel = torch.arange(c, device=images.device)
    return padded[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def cut_out(images: Tensor, row: Tensor, column: Tensor, length: int) -> Tensor:
    """A square of each image set to 0, the mean of normalised images; it is clipped at the border.

    Args:
        images: Shape (n, c, h, w), normalised; changed in place.
        row: Of the square's centre, 0..h-1, shape (n,), int64.
        column: Likewise, 0..w-1.
        length: Side of the square [pixels].

    Source: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv:1708.04552.
    """
    down = torch.arange(images.shape[-2], device=images.device) - (row[:, None] - length // 2)  # (n, h)
    across = torch.arange(images.shape[-1], device=images.device) - (column[:, None] - length // 2)  # (n, w)
    rows, columns = (down >= 0) & (down < length), (across >= 0) & (across < length)
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


class Augmentation:
    """From uint8 to what the network sees, with chance for training and without for evaluation."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        side: int,
        *,
        padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.side, self.padding, self.flip, self.cutout, self.device = side, padding, flip, cutout, device
        self.scale = torch.tensor([1 / (255 * deviation) for deviation in std], device=device)[:, None, None]
        shift = [-centre / deviation for centre, deviation in zip(mean, std, strict=True)]
        self.shift = torch.tensor(shift, device=device)[:, None, None]
        self.rows: tuple[np.ndarray, np.ndarray] | None = None
        """Once compiled: scale and shift of each value in a row of pixels, channels last, shape (side * channels,)."""

    def compile(self) -> None:
        """From now on a batch is one compiled pass on the CPU, with the same results; loads for half a second, once."""
        scale, shift = (each.repeat(self.side, 1, 1).flatten().numpy() for each in (self.scale, self.shift))
        self.rows = scale, shift
        gather_compiled()

    def normalise(self, images: Tensor) -> Tensor:
        """Floats, channels last in memory, in which the training images have mean 0 and deviation 1 in each channel."""
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self.scale).add_(self.shift)

    def draw(self, images: int, *key: int | str) -> dict[str, Tensor]:
        """Chance for an epoch of `images`, from `key` alone and the same on every device."""
        rng = generator(*key, "augmentation")
        drawn = {
            "top": torch.randint(2 * self.padding + 1, (images,), generator=rng),
            "left": torch.randint(2 * self.padding + 1, (images,), generator=rng),
            "mirrored": torch.rand(images, generator=rng) < (0.5 if self.flip else 0.0),
            "row": torch.randint(self.side, (images,), generator=rng),
            "column": torch.randint(self.side, (images,), generator=rng),
        }
        return {name: values.to(self.device, non_blocking=True) for name, values in drawn.items()}

    def batch(self, pool: Tensor, chosen: Tensor, drawn: dict[str, Tensor], batch: slice) -> Tensor:
        """Training images of a batch by their places in a pool, as `__call__` of those."""
        if self.rows is None:
            return self(pool[chosen], drawn, batch)
        made = torch.empty((len(chosen), *pool.shape[1:]), memory_format=torch.channels_last)
        draws = [drawn[name][batch].numpy() for name in ("top", "left", "mirrored", "row", "column")]
        written = made.permute(0, 2, 3, 1).numpy()
        gather_compiled()(pool.numpy(), chosen.numpy(), *self.rows, *draws, self.padding, self.cutout, written)
        return made

    def __call__(self, images: Tensor, drawn: dict[str, Tensor], batch: slice) -> Tensor:
        """Training images of a batch; `batch` says which of the draws are theirs."""
        if self.padding or self.flip:
            images = crop(images, drawn["top"][batch], drawn["left"][batch], drawn["mirrored"][batch], self.padding)
        floats = self.normalise(images)
        return cut_out(floats, drawn["row"][batch], drawn["column"][batch], self.cutout) if self.cutout else floats


def gather(
    pool: Any, chosen: Any, scale: Any, shift: Any, top: Any, left: Any, mirrored: Any, row: Any, column: Any,
    padding: int, cutout: int, made: Any,
) -> None:  # fmt: skip
    """Into `made`, shape (n, h, w, c): images of `pool`, shape (all, c, h, w), cropped, mirrored, normalised, cut.

    A row of pixels is put together in bytes; what then turns it into floats is vector instructions.
    """
    n, h, w, c = made.shape
    floats = made.reshape(n, h, w * c)
    pixels = np.empty(w * c, np.uint8)
    for i in range(n):
        up, aside = top[i] - padding, left[i] - padding
        first = aside if mirrored[i] else -aside  # column that shows column 0 or, mirrored, the last
        begin, end = max(first, 0), min(first + w, w)
        high, start = row[i] - cutout // 2, column[i] - cutout // 2
        for y in range(h):
            pixels[:] = 0
            if 0 <= y + up < h:
                for k in range(c):
                    line = pool[chosen[i], k, y + up]
                    if mirrored[i]:
                        for x in range(begin, end):
                            pixels[x * c + k] = line[w - 1 - x + aside]
                    else:
                        for x in range(begin, end):
                            pixels[x * c + k] = line[x + aside]
            out = floats[i, y]
            for place in range(w * c):
                out[place] = np.float32(pixels[place]) * scale[place] + shift[place]
            if high <= y < high + cutout:
                made[i, y, max(start, 0) : max(start + cutout, 0)] = 0.0


@functools.cache
def gather_compiled() -> Callable[..., None]:
    """`gather` as machine code, loaded already."""
    made = compiled(gather)
    none, one, no = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, bool)
    image = np.zeros((1, 1, 1, 1), np.uint8)
    made(image, none, one, one, none, none, no, none, none, 0, 0, image.astype(np.float32))
    return made
