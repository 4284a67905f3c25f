"""A proxy table: one set of networks under a grid of cheap trainings and in full, as our own live studies measured it.

No published table isolates channels, resolution or samples; a study's trials.jsonl does. What a row means is that of
`suite.tables.log`, and beside the end of every run its curve is read: each epoch is a stage of its proxy. Seconds of a
stage are those of its epochs, multiply-adds are shared equally among them. Full trainings (the judge's) bring test
errors too. Scores of untrained networks are no trainings, and left out.

A proxy table holds the study's networks only. It judges, is studied again and fits surrogates like any other; a
searcher that asks for a network it lacks is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.spaces import named
from suite.tables import log
from suite.tables.base import PROXY
from suite.types import BadInput, Proxy

if TYPE_CHECKING:
    import pandas as pd


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All answers of a study in the long schema; `about` names the space."""
    import pandas as pd

    if source is None:
        raise BadInput("proxy_table: give a study's trials.jsonl")
    whole, about = log.frame(source)
    space = named(about["space"])
    stages: list[dict[str, Any]] = []
    for _, line in log.lines(source):
        if "val_error" not in line["metrics"] or log.inherited(line) or line["phase"] == "judging":
            continue
        proxy, seconds = space.canonical(Proxy(**line["proxy"])), 0.0
        for epoch, entry in enumerate(line.get("curve") or (), start=1):
            seconds += log.number_in(entry.get("device_s"))
            if epoch == line["epochs"]:
                break  # its end has a row already
            spent = log.number_in(line["cost"]["macs"]) * epoch / line["epochs"]
            stages.append(
                {
                    "architecture": line["arch"],
                    **vars(proxy),
                    "stage": epoch,
                    "dataset": line["dataset"],
                    "split": "valid",
                    "seed": line["seed"],
                    "error": log.number_in(entry["val_error"]),
                    "loss": log.number_in(entry.get("val_loss")),
                    **{name: log.number_in(line["metrics"].get(name)) for name in ("params", "macs")},
                    "device_s": seconds,
                    "spent_macs": spent,
                    "device": line["cost"]["device"],
                    "source": about["source"],
                    "failure": "",
                }
            )
    if not stages:
        return whole, about
    both = pd.concat([whole, pd.DataFrame(stages)], ignore_index=True)
    key = ["architecture", *PROXY, "stage", "dataset", "split", "seed"]
    return both.drop_duplicates(key), about
