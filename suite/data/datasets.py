"""Facts of the image data sets without their pixels: sizes, sources, what may be done to an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """The facts of a data set that are known before its pixels are loaded."""

    what: str
    classes: int
    image_channels: int
    side: int
    """Side of the square images [pixels]."""
    source: str
    """Who published it, and where."""
    get: str
    """The way to get it, in a few words."""
    valid_fraction: float
    """Share of the publishers' training part that is held out for validation unless told otherwise."""
    crop_padding: int
    """Pixels around the image before a random crop of its own size."""
    flip: bool
    """Whether a mirrored image is still of its class."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: channels, height, width."""
        return self.image_channels, self.side, self.side


_CIFAR = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html"

DATASETS: dict[str, Entry] = {
    "digits": Entry(
        what="1,797 handwritten digits, grey, 8x8",
        classes=10,
        image_channels=1,
        side=8,
        source="UCI Optical Recognition of Handwritten Digits (test part), 1998, as scikit-learn ships it",
        get="it comes with scikit-learn",
        valid_fraction=0.25,
        crop_padding=1,
        flip=False,
    ),
    "fashion_mnist": Entry(
        what="70,000 articles of clothing, grey, 28x28",
        classes=10,
        image_channels=1,
        side=28,
        source="Xiao, Rasul, Vollgraf, arXiv:1708.07747, https://github.com/zalandoresearch/fashion-mnist",
        get="Debian's package dataset-fashion-mnist, the four official idx files, or download = true",
        valid_fraction=1 / 6,
        crop_padding=4,
        flip=True,
    ),
    "cifar10": Entry(
        what="60,000 photographs of 10 kinds, RGB, 32x32",
        classes=10,
        image_channels=3,
        side=32,
        source=_CIFAR,
        get="cifar-10-python.tar.gz (or cifar-10-batches-py), train-*.npz with test-*.npz, or download = true",
        valid_fraction=0.5,
        crop_padding=4,
        flip=True,
    ),
    "cifar100": Entry(
        what="60,000 photographs of 100 kinds, RGB, 32x32",
        classes=100,
        image_channels=3,
        side=32,
        source=_CIFAR,
        get="cifar-100-python.tar.gz (or its folder cifar-100-python), or download = true",
        valid_fraction=0.5,
        crop_padding=4,
        flip=True,
    ),
}
