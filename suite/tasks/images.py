"""Tasks on a set of images: who is shown when, what happens to images on their way, and how answers are counted.

A task on images says what is asked of a batch of prepared images (`ImageTask.question`); if its images are prepared in
another way, its session overrides `asked` and `look` too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.augment import COMPILING_PAYS, Augmentation, resize
from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks.batch import Batch
from suite.tasks.base import Half, Part, Preparation, State
from suite.types import BadInput, Ends, Metric, Proxy, Unsupported

EVALUATION_BATCH = 500
"""Images of a forward pass without training."""


def subset(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Places of a share of the images, the same share of each class and at least one image.

    Args:
        labels: Shape (n,), int64.
        fraction: In (0, 1]; a larger one contains a smaller one of the same seed.
        seed: Which images.

    Returns:
        Ascending places, int64.

    >>> subset(torch.tensor([0, 1] * 10), 0.2, seed=0).shape
    torch.Size([4])
    """
    chosen = []
    for label in torch.unique(labels).tolist():
        places = (labels == label).nonzero().flatten()
        first = torch.randperm(len(places), generator=generator(seed, "subset", label))
        chosen.append(places[first[: max(1, math.floor(fraction * len(places) + 0.5))]])
    return torch.cat(chosen).sort().values


def halves(labels: Tensor, places: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The images of the weights and those of the mixture: disjoint, half of `places` each, of each class too.

    Args:
        labels: Of all images, shape (n,).
        places: Which to halve; the first half has one more if their number is odd.
        seed: Of the drawing.

    >>> [half.tolist() for half in halves(torch.tensor([0, 0, 1, 1]), torch.arange(4), seed=0)]
    [[1, 3], [0, 2]]
    """
    mixed = places[torch.randperm(len(places), generator=generator(seed, "halves"))]
    by_class = mixed[labels[mixed].sort(stable=True).indices]
    return by_class[::2].sort().values, by_class[1::2].sort().values


def batches(images: int, size: int) -> list[slice]:
    """An epoch in batches of `size`, the last one smaller; a single image left over joins the batch before it."""
    ends = [*range(size, images, size), images]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class ImageTask:
    """A question about images whose answer is one of some classes, for each image or each pixel.

    Args:
        data: Images in three parts.
        preparation: Batch size, augmentation, label smoothing.

    Raises:
        BadInput: No images are held out for validation.
    """

    name: ClassVar[str]
    metric: Metric
    ends: Ends
    compiled = ""
    copies: int = 1
    """Inputs of the network that are made of an image."""

    def __init__(self, data: ImageData, preparation: Preparation) -> None:
        if not len(data.valid_labels):
            raise BadInput(f"{data.name}: no images are held out for validation; load it with a valid_fraction above 0")
        self.data, self.preparation, self.fingerprint = data, preparation, data.fingerprint
        self.groups = self.grouped()
        """A class for each training image, whose shares `samples` and halves keep."""
        self.kept: dict[tuple[str, str, int, torch.device], Tensor] = {}
        """What was made of the data once: (kind, part, side, device) to tensor."""
        self.compiles = False
        """Whether augmentation is machine code: it changes no image, and pays for long runs only."""

    def prepared_by(self, preparation: Preparation) -> Self:
        """The same task with batches of another recipe; what was made of the data is shared."""
        other = copy.copy(self)
        other.preparation = preparation
        return other

    def grouped(self) -> Tensor:
        """What training images are told apart by before anything is asked; by default nothing, not even labels."""
        return torch.zeros(len(self.data.train_images), dtype=torch.int64)

    def check(self, proxy: Proxy) -> None:
        """Raises Unsupported if the share of the images has fewer than there are groups, or than a batch needs."""
        images, least = len(self.groups), max(2, len(torch.unique(self.groups)))
        if proxy.samples * images < least:
            raise Unsupported(
                f"{self.data.name}: samples {proxy.samples:g} of {images} training images are fewer than {self.least()}"
                f"; use at least {math.ceil(least / images * 1e4) / 1e4:g}"
            )

    def least(self) -> str:
        """The end of a refusal of too few images."""
        return "the 2 that a batch needs"

    def seen(self, proxy: Proxy) -> Proxy:
        """The proxy itself: networks see whole images."""
        return proxy

    def session(
        self, network: nn.Module, proxy: Proxy, *, seed: int, device: torch.device, half: bool = False
    ) -> ImageSession:
        """The task with one network; see `suite.tasks.base.Task`."""
        return ImageSession(self, network, proxy, seed=seed, device=device, half=half)

    def images(self, part: Part) -> Tensor:
        """The data's own, wherever they are, uint8."""
        found: Tensor = getattr(self.data, f"{part}_images")
        return found

    def pixels(self, part: Part, side: int, device: torch.device) -> Tensor:
        """The images of a part at a resolution, on the device, uint8."""
        key = ("pixels", part, side, device)
        if key not in self.kept:
            self.kept[key] = resize(self.images(part).to(device), side)
        return self.kept[key]

    def few(self, part: Part, places: slice | Tensor, side: int, device: torch.device) -> Tensor:
        """Some of `pixels`, without the work for all if nobody has done it yet."""
        ready = self.kept.get(("pixels", part, side, device))
        if ready is not None:
            return ready[places]
        images = self.images(part)
        chosen = images[places] if isinstance(places, slice) else images[places.to(images.device)]
        return resize(chosen.to(device), side)

    def targets(self, part: Part, device: torch.device) -> Tensor:
        """What is asked for of each image of a part, where that is known without looking at it."""
        raise NotImplementedError(f"{self.name}: its targets are made of the images")

    def question(self, images: Tensor, part: Part, places: slice | Tensor) -> Batch:
        """What is asked of prepared images, shape (n, channels, side, side), channels last in memory."""
        raise NotImplementedError(f"{self.name}: its session asks in another way")

    def logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """A score for each class of each target, the classes in dimension 1, out of what the network gives."""
        return outputs


class ImageSession:
    """One network on images; see `suite.tasks.base.Session`."""

    def __init__(
        self, task: ImageTask, network: nn.Module, proxy: Proxy, *, seed: int, device: torch.device, half: bool
    ) -> None:
        self.task, self.network, self.proxy, self.seed, self.device, self.half = (
            task, network, proxy, seed, device, half,
        )  # fmt: skip
        self.modules = nn.ModuleDict()
        self.side = proxy.resolution
        self.places = subset(task.groups, proxy.samples, seed)
        self.plain = Augmentation(task.data.mean, task.data.std, self.side, device=device)
        """What is done to images that are scored."""
        self.augmentation = self.augmenting()
        self.streams: dict[str, tuple[int, Stream]] = {}
        """The mixture's images of an epoch."""

    def augmenting(self) -> Augmentation:
        """What is done to training images; the padding shrinks and grows with the resolution."""
        data, how = self.task.data, self.task.preparation
        made = Augmentation(
            data.mean, data.std, self.side,
            padding=math.floor(data.crop_padding * self.side / data.side + 0.5) if how.crop else 0,
            flip=how.flip and data.flip, cutout=math.floor(how.cutout * self.side + 0.5), device=self.device,
        )  # fmt: skip
        if self.task.compiles:
            made.compile()
        return made

    # What is shown

    def ready(self, part: Part, *, epochs: float = 0) -> None:
        """Have the images of a part on the device; before long trainings on a CPU, load their compiled pass."""
        self.task.pixels(part, self.side, self.device)
        values = epochs * len(self.places) * self.task.data.image_channels * self.side**2
        if part == "train" and self.device.type == "cpu" and values > COMPILING_PAYS and not self.task.compiles:
            self.task.compiles = True
            self.augmentation.compile()

    def half_of(self, half: Half) -> Tensor:
        """Places of the training images that take part."""
        return self.places if half == "all" else halves(self.task.groups, self.places, self.seed)[0]

    def steps(self, half: Half = "all") -> int:
        """Batches of an epoch."""
        return len(batches(len(self.half_of(half)), self.task.preparation.batch_size))

    def batches(self, epoch: int, half: Half = "all") -> Iterator[Batch]:
        """Each image once, in the order of this epoch; made one by one as they are asked for."""
        places = self.half_of(half)
        order = places[torch.randperm(len(places), generator=generator(self.seed, epoch, "order"))]
        stream = Stream(self, order, batches(len(order), self.task.preparation.batch_size), self.seed, epoch)
        return (stream[number] for number in range(len(stream.steps)))

    def held(self, epoch: int, step: int) -> Batch:
        """A batch of the mixture's images, drawn anew from all of them: with replacement across steps."""
        known = self.streams.get("held")
        if known is None or known[0] != epoch:
            places = halves(self.task.groups, self.places, self.seed)[1]
            size, steps = min(self.task.preparation.batch_size, len(places)), self.steps("weights")
            rng = generator(self.seed, epoch, "held order")
            order = torch.cat([places[torch.randperm(len(places), generator=rng)[:size]] for _ in range(steps)])
            known = epoch, Stream(self, order, batches(len(order), size), self.seed, epoch, "held")
            self.streams["held"] = known
        return known[1][step]

    def asked(self, pool: Tensor, chosen: Tensor, drawn: dict[str, Tensor], batch: slice) -> Batch:
        """A training batch: images of the pool by their places, with the chance that is theirs."""
        return self.task.question(self.augmentation.batch(pool, chosen, drawn, batch), "train", chosen)

    def chance(self, images: int, *key: int | str) -> dict[str, Tensor]:
        """Chance for an epoch of training images."""
        return self.augmentation.draw(images, *key)

    def count(self, part: Part) -> int:
        """Images of a part."""
        return len(self.places if part == "train" else self.task.images(part))

    def look(self, part: Part, places: slice | Tensor) -> Batch:
        """Images of a part as they are, asked what is asked in training."""
        images = self.task.few(part, places, self.side, self.device)
        return self.task.question(self.plain.normalise(images), part, places)

    def draw(self, number: int, *key: int | str) -> Tensor:
        """Places of so many training images of the proxy's share."""
        return self.places[torch.randperm(len(self.places), generator=generator(*key))[:number]]

    # What is answered

    def loss(self, outputs: Tensor, batch: Batch, *, each: bool = False) -> Tensor:
        """The cross-entropy of the classes, smoothed as the recipe says."""
        assert isinstance(batch.targets, Tensor)
        loss = F.cross_entropy(
            self.task.logits(outputs, batch), batch.targets, reduction="none" if each else "mean",
            label_smoothing=self.task.preparation.label_smoothing,
        )  # fmt: skip
        return loss.flatten(1).mean(dim=1) if loss.dim() > 1 else loss

    def wrong(self, outputs: Tensor, batch: Batch) -> Tensor:
        """How many targets are not the class of the largest logit."""
        assert isinstance(batch.targets, Tensor)
        return (self.task.logits(outputs.detach(), batch).argmax(1) != batch.targets).sum()

    @torch.no_grad()
    def score(self, part: Part) -> dict[str, float]:
        """Mean loss, without label smoothing, and error [%]."""
        loss, wrong = torch.zeros(2, device=self.device, dtype=torch.float64).unbind()
        answers = 0
        self.network.eval()
        for start in range(0, self.count(part), EVALUATION_BATCH):
            here = slice(start, start + EVALUATION_BATCH)
            batch = self.look(part, self.places[here] if part == "train" else here)
            added, missed = self.judged(self.network, batch)
            loss += added
            wrong += missed
            answers += batch.answers
        total, errors = torch.stack([loss, wrong]).tolist()
        return {"loss": float(total / answers), "error": float(100 * errors / answers)}

    def judged(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss summed over the targets of a batch, and how many answers are wrong."""
        assert isinstance(batch.targets, Tensor)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            outputs = network(batch.inputs)
        logits = self.task.logits(outputs, batch)
        loss = F.cross_entropy(logits.float(), batch.targets, reduction="sum")
        return loss, (logits.argmax(1) != batch.targets).sum()

    def size(self, part: Part) -> int:
        """Inputs that `score` looks at."""
        return self.task.copies * self.count(part)

    def state(self) -> State:
        """Nothing: all chance follows from seed, epoch and step."""
        return {}

    def load(self, state: State) -> None:
        """There is nothing to take up."""


class Stream:
    """Batches of training images that follow one another; all chance is drawn at once.

    Args:
        session: Whose images.
        order: Places of the images, batch after batch.
        steps: Which of `order` are a batch.
        key: Of the chance.
    """

    def __init__(self, session: ImageSession, order: Tensor, steps: Sequence[slice], *key: int | str) -> None:
        self.session, self.steps = session, steps
        self.pool = session.task.pixels("train", session.side, session.device)
        self.order = order.to(session.device, non_blocking=True)
        self.drawn = session.chance(len(order), *key)

    def __getitem__(self, number: int) -> Batch:
        batch = self.steps[number]
        return self.session.asked(self.pool, self.order[batch], self.drawn, batch)
