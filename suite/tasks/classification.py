"""The task of most boards: which of its classes an image shows."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.data.images import ImageData
from suite.networks.batch import Batch
from suite.tasks.base import Part, Preparation
from suite.tasks.images import ImageTask
from suite.types import Metric


class Classification(ImageTask):
    """Images with one label each; `val_error` is the share of them that the network takes for something else."""

    name = "classification"

    def __init__(self, data: ImageData, preparation: Preparation) -> None:
        super().__init__(data, preparation)
        self.ends = data.ends
        self.metric = Metric("error", "%", worst=100.0, chance=100 * (1 - 1 / data.classes))

    def grouped(self) -> Tensor:
        """The classes: every share of the images has as much of each."""
        return self.data.train_labels.cpu()

    def least(self) -> str:
        """The end of a refusal of too few images."""
        return f"its {self.data.classes} classes"

    def targets(self, part: Part, device: torch.device) -> Tensor:
        """The labels of a part, on the device."""
        key = ("labels", part, 0, device)
        if key not in self.kept:
            labels: Tensor = getattr(self.data, f"{part}_labels")
            self.kept[key] = labels.to(device)
        return self.kept[key]

    def question(self, images: Tensor, part: Part, places: slice | Tensor) -> Batch:
        """Which class each image is of."""
        return Batch(images, self.targets(part, images.device)[places])
