"""Old names of options, and where their values stand now: refusals name the new place."""

from __future__ import annotations

from collections.abc import Mapping

ALPHA = {
    "alpha_lr": "alpha.lr", "alpha_betas": "alpha.betas", "alpha_decay": "alpha.decay", "scale": "alpha.scale",
    "warmup_epochs": "alpha.warmup_epochs",
}  # fmt: skip
LSTM = {name: f"lstm.{name}" for name in ("hidden", "layers", "embedding", "tanh", "temperature")}
PPO = {
    **{name: f"ppo.{name}" for name in ("lr", "clip", "passes", "entropy_weight")},
    **{name: f"lstm.{name}" for name in ("hidden", "layers", "embedding", "spread")},
    **{name: f"tradeoff.{name}" for name in ("constraint", "a", "b", "metric", "target")},
}
FNAS = {
    **PPO,
    **{name: f"uac.{name}" for name in ("threshold", "audit", "warm_up", "advantage")},
    "critic_hidden": "uac.hidden",
    "critic_lr": "uac.lr",
    "critic_steps": "uac.steps",
    "capacity": "aeb.capacity",
    "replayed": "aeb.share",
    "priority": "aeb.priority",
    "rho_cap": "aeb.rho_cap",
}
RENAMED: Mapping[str, Mapping[str, str]] = {
    "reinforce": LSTM,
    "monas": LSTM,
    "mnas": PPO,
    "fnas": FNAS,
    "darts": ALPHA,
    "gdas": ALPHA,
    "ms_darts": ALPHA,
    "snas": {**ALPHA, "alpha_optimizer": "alpha.optimizer", "alpha_clip": "alpha.clip", "mean": "alpha.mean"},
    "snas_bilevel": {**ALPHA, "mean": "alpha.mean"},
}
"""Searcher -> old option -> option value and field."""


def refusal(name: str, option: str) -> str:
    """One line for an old option of a searcher; empty where it is none.

    >>> refusal("darts", "alpha_lr")
    "darts: the option 'alpha_lr' is now alpha.lr: write alpha = { lr = ... }"
    """
    place = RENAMED.get(name, {}).get(option)
    if place is None:
        return ""
    value, _, field = place.partition(".")
    return f"{name}: the option {option!r} is now {place}: write {value} = {{ {field} = ... }}"
