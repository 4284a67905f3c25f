"""The trivial predictor: networks are ranked by how large they are, as far as the fitted ones bear it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from surrogates.base import Arrays, Floats, Model


@dataclass(kw_only=True)
class Size(Model):
    """A line in the first column: the logarithm of the parameters if rows are encoded as `size`."""

    name = "size"
    encoding: ClassVar[str] = "size"

    line: Floats = field(init=False, repr=False)

    def learn(self, x: Floats, z: Floats) -> None:
        """The line of least squares and the error around it."""
        first = x[:, 0]
        spread = float(first.var())
        slope = float(((first - first.mean()) * (z - z.mean())).mean()) / spread if spread > 0 else 0.0
        offset = float(z.mean() - slope * first.mean())
        self.line = np.array([slope, offset, np.std(z - slope * first - offset)])

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """The line, and the same error everywhere."""
        return self.line[0] * x[:, 0] + self.line[1], np.full(len(x), self.line[2])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Slope, offset, error."""
        return {"line": self.line}

    def restore(self, arrays: Arrays) -> None:
        """Slope, offset, error."""
        self.line = arrays["line"]
