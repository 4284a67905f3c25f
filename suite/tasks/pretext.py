"""Tasks without labels: cheaper questions about the same network, as in UnNAS.

Liu, Dollar, He, Girshick, Yuille, Xie. "Are Labels Necessary for Neural Architecture Search?". ECCV 2020.
https://arxiv.org/abs/2003.12056

No label is read: `samples` takes a share of all images, whatever they show. What a recipe says of cropping holds for
rotation only, as in the authors' CIFAR-10 runs; mirroring holds for all three. Departures:
- Scores are of the last epoch on held-out images, not the best of all epochs on test images. Permutations and offsets
  of the tiles that are scored are drawn once and are the same for all networks.
- Jigsaw's linear layer on the concatenated features of four tiles is a classifier of four times as many outputs on each
  tile, of which a tile at place i contributes the i-th part to a sum: the same function, so no network needs another
  head; its weights start as those of any classifier here, and its bias is there four times.
- Jigsaw divides a tile of one colour by 1 instead of by its deviation of 0.
- The 313 colours of colourisation are the points of a grid of 10 that are at most 13.5 from a colour of sRGB. The
  published file is not read: 229 grid points are colours of sRGB and 261 are the nearest of some, so the published 313
  hold neighbours too, by a rule that is not published. The other 52 are never the nearest to a colour, so they are no
  target under either choice.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks.batch import Batch
from suite.tasks.base import Part, Preparation
from suite.tasks.images import ImageSession, ImageTask
from suite.types import Ends, Metric, Proxy, Unsupported

TURNS = 4
GRID = 2
"""Number of tiles across, and of tiles down."""
TILES = GRID * GRID
TILE = 0.76
"""Side of a tile, as a share of its part of the image."""
GREY = 0.3
"""Share of the training images of a jigsaw that lose their colours, so that colours do not give the order away."""
LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Share of red, green and blue in grey."""
SMALLEST = 32
"""Images of a jigsaw: at 16 pixels a tile has 6, fewer than networks that halve twice can take [pixels]."""
PERMUTATIONS = tuple(itertools.permutations(range(TILES)))
COLOUR_GRID = 10
"""Between neighbouring centres of colours, in units of a and b of Lab."""


class Rotation(ImageTask):
    """Every image in all four orientations; which quarter turn is it?

    Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
    """

    name = "rotation"
    metric = Metric("rotation error", "%", worst=100.0, chance=75.0)
    copies = TURNS

    def __init__(self, data: ImageData, preparation: Preparation) -> None:
        super().__init__(data, preparation)
        self.ends = Ends(data.image_channels, TURNS)

    def question(self, images: Tensor, part: Part, places: slice | Tensor) -> Batch:
        """Images turned by 0, 90, 180, 270 degrees, all of one turn together, and their turns."""
        turned = torch.cat([torch.rot90(images, turn, (2, 3)) for turn in range(TURNS)])
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
        return Batch(turned.contiguous(memory_format=torch.channels_last), turns)


class Jigsaw(ImageTask):
    """Four tiles of an image in one of 24 orders; which?

    Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016.
    """

    name = "jigsaw"
    metric = Metric("jigsaw error", "%", worst=100.0, chance=100 * (1 - 1 / len(PERMUTATIONS)))
    compiled = "sees images of the proxy's resolution only, not the tiles of a jigsaw"
    copies = TILES

    def __init__(self, data: ImageData, preparation: Preparation) -> None:
        super().__init__(data, preparation)
        self.ends = Ends(data.image_channels, TILES * len(PERMUTATIONS))

    def check(self, proxy: Proxy) -> None:
        """Raises Unsupported if images or proxy are below 32 pixels, or a recipe cuts squares out."""
        super().check(proxy)
        for what, side in ((self.data.name, self.data.side), ("proxy", proxy.resolution)):
            if side < SMALLEST:
                raise Unsupported(
                    f"{what}: {side} pixels a side are too few for a jigsaw, whose tiles would have "
                    f"{tile_side(side)}; use images and a resolution of at least {SMALLEST}"
                )
        check_plain(self)

    def seen(self, proxy: Proxy) -> Proxy:
        """The proxy with the side of a tile for its resolution."""
        return replace(proxy, resolution=tile_side(proxy.resolution))

    def session(
        self, network: nn.Module, proxy: Proxy, *, seed: int, device: torch.device, half: bool = False
    ) -> ImageSession:
        """The task with one network; see `suite.tasks.base.Task`."""
        return JigsawSession(self, network, proxy, seed=seed, device=device, half=half)

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """For each permutation the sum over tiles of the outputs for the place where the tile lies, shape (n, 24)."""
        by_place = outputs.view(-1, TILES, TILES, len(PERMUTATIONS))  # (n, tile, place, permutation)
        return by_place.diagonal(dim1=1, dim2=2).sum(dim=-1)


def tile_side(side: int) -> int:
    """Side of a tile, for an image of this side [pixels].

    >>> tile_side(32)
    12
    """
    return int(TILE * (side // GRID))


class JigsawSession(ImageSession):
    """The session of one network with jigsaws."""

    def chance(self, images: int, *key: int | str) -> dict[str, Tensor]:
        """Mirroring, loss of colours, permutation and offsets of each image."""
        rng = generator(*key, "jigsaw")
        gap = self.side // GRID - tile_side(self.side)
        drawn = {
            "mirrored": torch.rand(images, generator=rng) < (0.5 if self.augmentation.flip else 0.0),
            "grey": torch.rand(images, generator=rng) < GREY,
            "permutation": torch.randint(len(PERMUTATIONS), (images,), generator=rng),
            "row": torch.randint(gap + 1, (images, TILES), generator=rng),
            "column": torch.randint(gap + 1, (images, TILES), generator=rng),
        }
        return {name: values.to(self.device, non_blocking=True) for name, values in drawn.items()}

    def asked(self, pool: Tensor, chosen: Tensor, drawn: dict[str, Tensor], batch: slice) -> Batch:
        """A training batch: mirrored, some grey, cut into tiles that change places."""
        images = mirrored(pool[chosen], drawn["mirrored"][batch]).float()
        images = torch.where(drawn["grey"][batch][:, None, None, None], grey(images), images)
        return self.cut(images, {name: values[batch] for name, values in drawn.items()})

    def look(self, part: Part, places: slice | Tensor) -> Batch:
        """Images as they are, cut by chance that is the image's own."""
        images = self.task.few(part, places, self.side, self.device).float()
        number = len(self.task.images(part))
        key = ("jigsaw", part, self.side, self.device)
        if key not in self.task.kept:
            drawn = self.chance(number, "jigsaw", part)
            self.task.kept[key] = torch.cat([drawn["permutation"][:, None], drawn["row"], drawn["column"]], dim=1)
        permutation, row, column = torch.split(self.task.kept[key][places], [1, TILES, TILES], dim=1)
        return self.cut(images, {"permutation": permutation[:, 0], "row": row, "column": column})

    def cut(self, images: Tensor, drawn: dict[str, Tensor]) -> Batch:
        """Tiles in their new order, an image's four together, and the number of the permutation.

        Args:
            images: Pixel values, shape (n, c, side, side).
            drawn: `permutation` (n,), and `row` and `column` (n, tiles) of a tile in its part of the image.
        """
        normal = self.plain.normalise(images)
        n, side, part = len(images), tile_side(self.side), self.side // GRID
        number = torch.arange(TILES, device=self.device)
        along = torch.arange(side, device=self.device)
        rows = (number // GRID * part + drawn["row"])[:, :, None] + along  # (n, tile, side)
        columns = (number % GRID * part + drawn["column"])[:, :, None] + along
        image = torch.arange(n, device=self.device)[:, None, None, None]
        tiles = normal.permute(0, 2, 3, 1)[image, rows[:, :, :, None], columns[:, :, None, :]]  # (n, tile, y, x, c)
        tiles = tiles.permute(0, 1, 4, 2, 3)
        deviation, mean = torch.std_mean(tiles, dim=(2, 3, 4), correction=0, keepdim=True)
        tiles = (tiles - mean) / torch.where(deviation > 0, deviation, 1.0)
        orders = torch.tensor(PERMUTATIONS, device=self.device)[drawn["permutation"]]  # (n, tile): where it goes
        placed = torch.empty_like(tiles)
        placed[torch.arange(n, device=self.device)[:, None], orders] = tiles
        inputs = placed.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, drawn["permutation"])


class Colourisation(ImageTask):
    """The lightness of an image; which of 313 colours does each pixel have?

    Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, without its rebalancing of the colours.
    """

    name = "colourisation"
    compiled = "has a classifier on pooled features, and colourisation one on each pixel"

    def __init__(self, data: ImageData, preparation: Preparation) -> None:
        if data.image_channels != len(LUMINANCE):
            raise Unsupported(f"{data.name}: colourisation needs coloured images, and these are grey; use rotation")
        super().__init__(data, preparation)
        colours = len(colour_centres())
        self.ends = Ends(1, colours, "map")
        self.metric = Metric("colour error", "%", worst=100.0, chance=100 * (1 - 1 / colours))

    def check(self, proxy: Proxy) -> None:
        """Raises Unsupported if there are too few images, or a recipe cuts squares out."""
        super().check(proxy)
        check_plain(self)

    def session(
        self, network: nn.Module, proxy: Proxy, *, seed: int, device: torch.device, half: bool = False
    ) -> ImageSession:
        """The task with one network; see `suite.tasks.base.Task`."""
        return ColourSession(self, network, proxy, seed=seed, device=device, half=half)

    def colours(self, part: Part, side: int, device: torch.device) -> Tensor:
        """The number of each pixel's colour, shape (n, side, side), int16."""
        key = ("colours", part, side, device)
        if key not in self.kept:
            pixels = self.pixels(part, side, device)
            found = torch.empty((len(pixels), side, side), dtype=torch.int16, device=device)
            for start in range(0, len(pixels), 512):
                _, ab = lab(pixels[start : start + 512])
                found[start : start + 512] = nearest_colours(ab)
            self.kept[key] = found
        return self.kept[key]

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Those of the last map, brought to the side of the image, shape (n, colours, side, side)."""
        assert isinstance(batch.targets, Tensor)
        return F.interpolate(outputs, batch.targets.shape[1:], mode="bilinear", align_corners=True)


class ColourSession(ImageSession):
    """One network that sees lightness and is asked for colours."""

    def ready(self, part: Part, *, epochs: float = 0) -> None:
        """Have images and the colours of their pixels on the device."""
        super().ready(part)
        assert isinstance(self.task, Colourisation)
        self.task.colours(part, self.side, self.device)

    def asked(self, pool: Tensor, chosen: Tensor, drawn: dict[str, Tensor], batch: slice) -> Batch:
        """A training batch: images are mirrored or not."""
        assert isinstance(self.task, Colourisation)
        flipped = drawn["mirrored"][batch]
        colours = self.task.colours("train", self.side, self.device)[chosen]
        return self.told(mirrored(pool[chosen], flipped), mirrored(colours[:, None], flipped)[:, 0])

    def look(self, part: Part, places: slice | Tensor) -> Batch:
        """Images as they are, with their colours for targets."""
        assert isinstance(self.task, Colourisation)
        colours = self.task.colours(part, self.side, self.device)[places]
        return self.told(self.task.few(part, places, self.side, self.device), colours)

    def told(self, images: Tensor, colours: Tensor) -> Batch:
        """Lightness, normalised as roughly as the authors do by the data's own mean and deviation, and colours."""
        data = self.task.data
        lightness, _ = lab(images)
        normal = (lightness / 100 - float(np.mean(data.mean))) / float(np.mean(data.std))
        return Batch(normal.contiguous(memory_format=torch.channels_last), colours.long())


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Images of which some are mirrored, shape (n, c, h, w).

    >>> mirrored(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([False, True])).flatten().tolist()
    [1, 2, 4, 3]
    """
    return torch.where(which[:, None, None, None], images.flip(3), images)


def grey(images: Tensor) -> Tensor:
    """Images without their colours, in as many channels, shape (n, c, h, w)."""
    if images.shape[1] != len(LUMINANCE):
        return images
    weights = torch.tensor(LUMINANCE, device=images.device)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True).expand_as(images)


def check_plain(task: ImageTask) -> None:
    """Raises Unsupported if the recipe cuts squares out of images."""
    if task.preparation.cutout:
        raise Unsupported(f"recipe: cutout has no meaning for {task.name}; set cutout = 0")


# Colours

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear sRGB to XYZ (ITU-R BT.709)."""
WHITE = (0.95047, 1.0, 1.08883)
"""XYZ of the illuminant D65, seen at 2 degrees."""
NEAR = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 100), -50: (-30, 100), -40: (-40, 100), -30: (-40, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 80),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-120, 80), 90: (-110, 70), 100: (-80, -10), 110: (-60, -60),
}  # fmt: skip
"""Points of the grid that are at most 13.5 from a colour of sRGB: a to the least and largest b."""


def lab(images: Tensor) -> tuple[Tensor, Tensor]:
    """Lightness, shape (n, 1, h, w), in [0, 100], and a and b of Lab, shape (n, 2, h, w).

    Args:
        images: sRGB in [0, 255], shape (n, 3, h, w).

    >>> lightness, ab = lab(torch.full((1, 3, 1, 1), 255))
    >>> round(float(lightness), 3), bool(ab.abs().max() < 0.01)  # white, to the rounding of the published matrix
    (100.0, True)
    """
    values = images.float() / 255
    linear = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    to_xyz = torch.tensor(TO_XYZ, device=images.device) / torch.tensor(WHITE, device=images.device)[:, None]
    xyz = torch.einsum("ij,njhw->nihw", to_xyz, linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return (116 * y - 16)[:, None], torch.stack([500 * (x - y), 200 * (y - z)], dim=1)


@cache
def colour_centres() -> npt.NDArray[np.int64]:
    """The 313 colours, (a, b) each, in the order of a, then of b.

    >>> len(colour_centres())
    313
    """
    grid = [(a, b) for a, (low, high) in NEAR.items() for b in range(low, high + 1, COLOUR_GRID)]
    return np.array(grid, np.int64)


def nearest_colours(ab: Tensor) -> Tensor:
    """The number of the nearest centre of each pixel, shape (n, 2, h, w) to (n, h, w).

    Where the nearest point of the whole grid is a centre it is taken; the others are compared with all centres.
    """
    centres = torch.from_numpy(colour_centres()).to(ab.device)
    reach = int(centres.abs().max()) // COLOUR_GRID + 2
    table = torch.full((2 * reach + 1, 2 * reach + 1), -1, dtype=torch.int64, device=ab.device)
    table[tuple((centres // COLOUR_GRID + reach).unbind(1))] = torch.arange(len(centres), device=ab.device)
    a, b = ((ab / COLOUR_GRID).round().long().clamp_(-reach, reach) + reach).unbind(1)
    found = table[a, b]
    lost = found < 0
    if lost.any():
        distances = torch.cdist(ab.permute(0, 2, 3, 1)[lost], centres.to(ab.dtype))
        found[lost] = distances.argmin(dim=1)
    return found
