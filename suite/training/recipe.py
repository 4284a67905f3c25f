"""Recipes: everything of a training that is neither the network, nor the data, nor the proxy. RECIPES names some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from suite.types import BadInput, Unsupported, nearest

PRECISIONS = ("auto", "float32", "bfloat16")
PERIODS = ("epoch", "step")
STEPS = ("torch", "compiled")


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum under a cosine schedule, and the augmentation of the training images.

    The values are those of NAS-Bench-201's 200-epoch training. The length of the schedule is the proxy's.

    Raises:
        BadInput: A value is of the wrong type or out of its range.
    """

    lr: float = 0.1
    """Learning rate at the top of the schedule."""
    lr_min: float = 0.0
    """Learning rate at its end."""
    lr_changes: str = "epoch"
    """When the schedule moves: every "epoch", as in NAS-Bench-201, or every "step"."""
    warmup_epochs: int = 0
    """Epochs, of the proxy's, in which the learning rate rises from 0, step by step."""
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    """On all weights, norms and biases too."""
    batch_size: int = 256
    label_smoothing: float = 0.0
    grad_clip: float = 0.0
    """Largest norm of the whole gradient; 0: any."""
    crop: bool = True
    """Shift images at random inside the data set's padding."""
    flip: bool = True
    """Mirror half of the images, in data sets whose images may be."""
    cutout: float = 0.0
    """Side of a square set to the mean, as a fraction of the image's side; 0: none."""
    precision: str = "auto"
    """Arithmetic of the forward pass: "float32", "bfloat16"; "auto" is bfloat16 on CUDA devices that have it."""
    step: str = "torch"
    """Who computes a step: "torch"; "compiled": machine code of ours (`suite.training.compiled`), for stand-alone
    networks of NAS-Bench-201 on a CPU: the same sums in another order, in a fraction of the time if they are narrow."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value: Any = getattr(self, entry.name)
            kind: type = type(entry.default)
            allowed: Any = (int, float) if kind is float else (kind,)
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise BadInput(f"recipe: {entry.name} must be a {_KINDS[kind]}, not {value!r}")
            if kind is not bool and kind is not str and not (math.isfinite(value) and value >= 0):
                raise BadInput(f"recipe: {entry.name} must be a finite number of at least 0, not {value!r}")
        if self.batch_size < 2:
            raise BadInput(f"recipe: batch_size must be at least 2 (batch norm needs it), not {self.batch_size}")
        if self.lr_min > self.lr:
            raise BadInput(f"recipe: lr_min must be at most lr = {self.lr:g}, not {self.lr_min:g}")
        for name in ("momentum", "label_smoothing", "cutout"):
            if getattr(self, name) > 1:
                raise BadInput(f"recipe: {name} must be at most 1, not {getattr(self, name):g}")
        if self.nesterov and self.momentum == 0:
            raise BadInput("recipe: nesterov needs a momentum above 0; set nesterov = false")
        for name, choices in (("lr_changes", PERIODS), ("precision", PRECISIONS), ("step", STEPS)):
            if getattr(self, name) not in choices:
                raise BadInput(f"recipe: {name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.step == "compiled" and self.precision == "bfloat16":
            raise BadInput('recipe: step = "compiled" works in float32; set precision to "float32" or step to "torch"')

    def learning_rate(self, step: int, steps: int, epochs: int) -> float:
        """Learning rate of a step.

        Args:
            step: Counted from 0 over the whole run.
            steps: Steps an epoch.
            epochs: Length of the whole run, warm-up included.

        Source: Loshchilov, Hutter, "SGDR", ICLR 2017, equation 5, without restarts.

        >>> [round(Recipe().learning_rate(step, steps=1, epochs=4), 4) for step in range(4)]
        [0.1, 0.0854, 0.05, 0.0146]
        """
        warmup = self.warmup_epochs * steps
        if step < warmup:
            return self.lr * step / warmup
        done = (step - warmup) if self.lr_changes == "step" else (step // steps - self.warmup_epochs) * steps
        progress = done / (epochs * steps - warmup)
        return self.lr_min + (self.lr - self.lr_min) * (1 + math.cos(math.pi * progress)) / 2


_KINDS = {float: "number", int: "whole number", bool: "boolean", str: "string"}

RECIPES: dict[str, Recipe] = {
    "nas_bench_201": Recipe(),
    "darts_search": Recipe(
        lr=0.025, lr_min=0.001, nesterov=False, weight_decay=3e-4, batch_size=64, grad_clip=5.0, precision="float32"
    ),
    "nas_bench_201_search": Recipe(lr=0.025, lr_min=0.001, batch_size=64, grad_clip=5.0, precision="float32"),
}
"""Recipes with a name. Two are for the weights of supernets: DARTS's own, and NAS-Bench-201's for its gradient searches
(Nesterov's momentum, weight decay 5e-4); both in float32, as second order is a small difference of gradients."""


def resolve(spec: str | Mapping[str, Any] | Recipe) -> Recipe:
    """The recipe that a spec means: a name, or a table of values over those of its `base`.

    Raises:
        BadInput: A name or key that does not exist, with the nearest that does; a value out of range.

    >>> resolve({"base": "nas_bench_201", "batch_size": 64}).batch_size
    64
    """
    if isinstance(spec, Recipe):
        return spec
    if isinstance(spec, str):
        if spec not in RECIPES:
            raise BadInput(f"recipe: no {spec!r}: {nearest(spec, RECIPES)}")
        return RECIPES[spec]
    values = dict(spec)
    base = resolve(values.pop("base", "nas_bench_201"))
    known = [entry.name for entry in fields(Recipe)]
    for key in values:
        if key not in known:
            raise BadInput(f"recipe: no key {key!r}: {nearest(str(key), [*known, 'base'])}")
    return replace(base, **values)


OF_THE_RUN = ("precision", "step")
"""Keys that say how a machine computes; no architecture chooses them."""


def check_keys(names: Iterable[str]) -> None:
    """Check that an architecture may set these keys of its recipe.

    Raises:
        BadInput: A recipe has no such key, with the nearest that there is; or the key is the run's.
    """
    allowed = [entry.name for entry in fields(Recipe) if entry.name not in OF_THE_RUN]
    for name in names:
        if name in OF_THE_RUN:
            raise BadInput(f"recipe: {name} is set for a whole run, not by an architecture; set it in the recipe")
        if name not in allowed:
            raise BadInput(f"recipe: no key {name!r}: {nearest(name, allowed)}")


def recipe_of(recipe: Recipe, training: Mapping[str, Any], epochs: int) -> Recipe:
    """The recipe of a network whose architecture sets some of its values (`SearchSpace.training`).

    Args:
        recipe: The run's.
        training: Keys and values of the architecture.
        epochs: Length of the network's schedule.

    Raises:
        BadInput: A value is out of its range, or does not go with another: such a network cannot be trained.

    >>> recipe_of(Recipe(), {"lr": 0.5, "batch_size": 16}, epochs=8).lr
    0.5
    """
    if not training:
        return recipe
    found = replace(recipe, **training)
    if found.warmup_epochs >= epochs:
        raise BadInput(f"recipe: a warm-up of {found.warmup_epochs} epochs leaves nothing of {epochs}")
    return found


def resolve_for_supernet(spec: str | Mapping[str, Any] | Recipe) -> Recipe:
    """As `resolve`, for the weights of a supernet.

    Raises:
        Unsupported: The recipe asks for what stand-alone networks only have.
    """
    recipe = resolve(spec)
    if recipe.step == "compiled":
        raise Unsupported('recipe: step = "compiled" has stand-alone networks only, no supernets; set step = "torch"')
    return recipe
