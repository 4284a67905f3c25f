"""A study of published pairs of trainings: the same figures and files, without a search space to train in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from suite.problem import Problem
from suite.records.folder import Folder
from suite.spec.reading import check
from suite.spec.study import StudySpec
from suite.study.answers import BASELINE, PUBLISHED, SCHEDULE, Ranking, Study
from suite.study.findings import Findings
from suite.study.plan import Plan
from suite.tables.pairs import Pairs
from suite.types import Architecture, Proxy

NO_PROXY = Proxy(1, 1, 1)
"""Nothing is known of the settings but their names."""


@dataclass(frozen=True)
class PublishedNetworks:
    """Names in place of a search space."""

    name: str
    names: tuple[str, ...]

    def text(self, arch: Architecture) -> str:
        """The network of this number."""
        return self.names[arch[0]]


@dataclass(frozen=True)
class Records:
    """The part of a problem that a study of published records needs."""

    space: PublishedNetworks
    dataset: str
    device: str
    judge: str
    full: Proxy = NO_PROXY
    simulated: bool = False
    free_judge: bool = False
    side: int = 1


def study_of(pairs: Pairs) -> Study:
    """The rankings of published pairs, beside their parameters and multiply-adds."""
    rankings = [
        Ranking(name, PUBLISHED, errors, device_s=pairs.cheap_s[name], seeds=tuple(range(len(errors))))
        for name, errors in pairs.cheap.items()
    ]
    rankings += [Ranking(name, BASELINE, -values[None]) for name, values in pairs.sizes.items()]
    rankings.append(Ranking("random", BASELINE, np.random.default_rng(7).random((1, len(pairs.networks)))))
    full = Ranking("full", SCHEDULE, pairs.full, device_s=pairs.full_s, seeds=tuple(range(len(pairs.full))))
    problem = Records(PublishedNetworks(pairs.space, pairs.networks), pairs.dataset, pairs.device, pairs.judge)
    nothing = Plan((), (0,), tuple(range(len(pairs.full))), (), (), len(pairs.networks))
    archs = tuple((i,) for i in range(len(pairs.networks)))
    return Study(cast(Problem, problem), archs, nothing, tuple(rankings), full, pairs.full, pairs.sizes, pairs.judge)


def write(pairs: Sequence[Pairs], out: Path, *, command: str, environment: dict[str, Any], draws: int = 10_000) -> Path:
    """The files of a study, without scores.csv: those are published elsewhere."""
    content = {
        "name": "published-pairs", "space": "nas_bench_201", "datasets": [one.dataset for one in pairs], "draws": draws,
        "architectures": {"all": True}, "proxies": [{"epochs": 1}], "evaluator": {"kind": "table", "table": "log"},
    }  # fmt: skip
    spec = check(StudySpec, content, "published pairs")
    # these share no proxies, so nothing is said from one data set to another
    findings = Findings(spec.model_copy(update={"datasets": spec.datasets[:1]}), command)
    for one in pairs:
        findings.add(study_of(one))
    told = {"published": [one.space for one in pairs], "draws": draws}
    with Folder(out, told) as folder:
        folder.describe(environment)
        for name, columns, rows in findings.tables():
            folder.write_csv(name, columns, rows)
    return out
