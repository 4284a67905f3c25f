"""The rows that a study writes: how far each ranking can be trusted, and the answers behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from suite.evaluators.table import OTHER_SEEDS
from suite.proxies import notation, theoretical_acceleration
from suite.records.folder import Row
from suite.records.ledger import Ledger
from suite.spec.study import StudySpec
from suite.statistics.bootstrap import Interval, bootstrap, ceiling
from suite.statistics.measures import MEASURES
from suite.statistics.questions import ceilings
from suite.statistics.sweeps import Draws, resample
from suite.study.answers import BASELINE, SCHEDULE, Floats, Ranking, Study, judged_kind, mean_cost
from suite.study.plan import known_levels
from suite.types import BadInput, Cost, Unsupported

if TYPE_CHECKING:
    import pandas as pd

MANY = 2_000
"""Networks from which on a bootstrap has a tenth of the draws, unless the spec says how many."""

CONSISTENCY = (
    "space", "dataset", "proxy", "epochs", "channels", "resolution", "samples", "cells", "task", "n", "failed",
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
    "ceiling_tau", "ceiling_low", "ceiling_high", "ceiling", "judge", "seeds_proxy", "seeds_full", "draws", "device_s",
    "full_device_s", "speedup_device", "speedup_macs", "clock", "device", "command",
    "kind", "stage", "econas", "possible_tau", "possible_low", "possible_high", "possible", "unknown",
    "speedup_theory", "speedup_energy", "energy_j", "full_energy_j", "note",
)  # fmt: skip
SCORES = (
    "space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error", "device_s", "params", "macs",
    "failure", "judge_error", "kind",
)  # fmt: skip


@dataclass(frozen=True)
class MeasuredGroup:
    """Rankings of the same networks, all measures on the same draws."""

    rankings: tuple[Ranking, ...]
    rows: np.ndarray[tuple[int], np.dtype[np.intp]]
    """Indices of the networks that the group ranks."""
    draws: Draws | None
    """None: nothing can be ranked."""


def draws_for(spec: StudySpec, n: int) -> int:
    """Bootstrap draws for n networks: as the spec says, else 10,000, or 1,000 where networks are many."""
    return spec.draws or (10_000 if n <= MANY else 1_000)


def measure(study: Study, spec: StudySpec) -> list[MeasuredGroup]:
    """All measures of all rankings; those of the same networks share draws."""
    groups: dict[bytes, list[Ranking]] = {}
    for one in study.rankings:
        groups.setdefault(one.known.tobytes(), []).append(one)
    found = []
    for of_one in groups.values():
        rows = np.flatnonzero(of_one[0].known)
        draws = None
        if len(rows) >= 2:
            draws = resample(
                [one.errors[:, rows] for one in of_one], study.truth[:, rows], draws=draws_for(spec, len(rows)),
                rng=np.random.default_rng([spec.seed0, len(rows)]),
            )  # fmt: skip
        found.append(MeasuredGroup(tuple(of_one), rows, draws))
    return found


def consistency_rows(study: Study, spec: StudySpec, command: str, measured: list[MeasuredGroup]) -> Iterator[Row]:
    """One line a ranking, in the order of the study."""
    problem = study.problem
    top, kind = noise_ceiling(study.full.errors.T, study.judged.T, study, spec)
    possible, how = possible_tau(study)
    full_s, full_macs = mean_cost(study.full.device_s), mean_cost(study.full.macs)
    full_j = mean_cost(study.full.energy_j) if len(study.full.energy_j) else math.nan
    place = {id(one): (group, i) for group in measured for i, one in enumerate(group.rankings)}
    for one in study.rankings:
        group, number = place[id(one)]
        found = intervals(group, number)
        device_s, macs, energy_j = costs(one)
        ledger = Ledger()
        ledger.add("proxy", Cost(device_s, problem.device))
        proxy = one.as_proxy
        factors = {name: getattr(one.proxy, name) if one.proxy else None
                   for name in ("epochs", "channels", "resolution", "samples", "cells")}  # fmt: skip
        yield {
            "space": problem.space.name,
            "dataset": problem.dataset,
            "proxy": one.name,
            **factors,
            "task": one.proxy.task if one.proxy else "",
            "n": len(group.rows),
            "failed": int(np.isinf(one.errors[:, group.rows]).sum()),
            **{name: interval.value for name, interval in found.items()},
            **{f"{name}_{end}": getattr(found[name], end) for name in found for end in ("low", "high")},
            "ceiling_tau": top.value,
            "ceiling_low": top.low,
            "ceiling_high": top.high,
            "ceiling": kind,
            "judge": study.judge,
            "seeds_proxy": len(one.errors),
            "seeds_full": len(study.judged),
            "draws": draws_for(spec, len(group.rows)),
            "device_s": device_s if one.proxy or device_s else math.nan,
            "full_device_s": full_s,
            "speedup_device": full_s / device_s if device_s else math.nan,
            "speedup_macs": full_macs / macs if macs else math.nan,
            "clock": ledger.clock,
            "device": ledger.device,
            "command": command,
            "kind": one.kind,
            "stage": one.stage or None,
            "econas": written(one, study, spec),
            "possible_tau": possible.value if possible else math.nan,
            "possible_low": possible.low if possible else math.nan,
            "possible_high": possible.high if possible else math.nan,
            "possible": how,
            "unknown": int((~one.known).sum()),
            "speedup_theory": theory(proxy, study) if proxy else math.nan,
            "speedup_energy": full_j / energy_j if energy_j else math.nan,
            "energy_j": energy_j,
            "full_energy_j": full_j,
            "note": note(one, study, group),
        }


def intervals(group: MeasuredGroup, number: int) -> Mapping[str, Interval]:
    """Every measure of a ranking."""
    if group.draws is None:
        nothing = Interval(math.nan, math.nan, math.nan, 0.95, 0, len(group.rows))
        return dict.fromkeys(MEASURES, nothing)
    return {name: group.draws.interval(number, name) for name in MEASURES}


def costs(one: Ranking) -> tuple[float, float, float]:
    """Mean device seconds, multiply-adds and energy of a network; 0 where there are none, nan energy if not known."""
    return mean_cost(one.device_s), mean_cost(one.macs), mean_cost(one.energy_j) if len(one.energy_j) else math.nan


def written(one: Ranking, study: Study, spec: StudySpec) -> str:
    """EcoNAS's notation, where the proxy has one."""
    if one.proxy is None or one.kind != SCHEDULE:
        return ""
    problem = study.problem
    try:
        return notation(one.proxy, problem.space, side=problem.side, table=known_levels(spec, problem))
    except Unsupported:
        return ""


def theory(proxy: object, study: Study) -> float:
    """EcoNAS's acceleration; nan where the depth differs, which it does not know."""
    try:
        return theoretical_acceleration(proxy, study.problem.full)  # type: ignore[arg-type]
    except Unsupported:
        return math.nan


def note(one: Ranking, study: Study, group: MeasuredGroup) -> str:
    """Notes that a reader needs beside a ranking."""
    said = []
    if len(group.rows) < 3:
        said.append(f"ranks {len(group.rows)} networks only, and a ranking needs 3")
    errors = one.errors[:, group.rows]
    if len(group.rows) and (errors == errors[:, :1]).all():
        said.append("all networks are equal under it, so it ranks nothing")
    if (study.truth[:, group.rows] == study.truth[:, group.rows[:1]]).all():
        said.append("all networks are equal in full training, so there is no ranking to compare with")
    if one.failures:
        said.append(f"{len(one.failures)} trainings failed and rank last")
    if (missing := int((~one.known).sum())) > 0:
        said.append(f"{missing} networks have no such score")
    device_s, full_s = mean_cost(one.device_s), mean_cost(study.full.device_s)
    if device_s > full_s > 0:
        said.append(f"costs more than full training here: {device_s:.3g} s against {full_s:.3g} s")
    return "; ".join(said)


def noise_ceiling(valid: Floats, judged: Floats, study: Study, spec: StudySpec) -> tuple[Interval, str]:
    """The noise ceiling, full training as a proxy of itself, and the sense in which it is meant.

    Args:
        valid: What a search sees of full training, shape (n, seeds) [%].
        judged: What the judge sees of it, likewise.
        study: Where they come from.
        spec: How many draws.
    """
    rng = np.random.default_rng([spec.seed0, len(spec.proxies)])
    one = valid.shape[1] == 1
    kind = judged_kind(study, one)
    if not kind:  # full training is the truth itself
        return Interval(math.nan, math.nan, math.nan, 0.95, 0, len(valid)), kind
    other = valid if study.judge == OTHER_SEEDS else judged
    draws = draws_for(spec, len(valid)) if len(valid) <= MANY else 1_000
    if one:
        return bootstrap(valid[:, 0], judged[:, 0], measures=("tau",), draws=draws, rng=rng)["tau"], kind
    return ceiling(valid, other, draws=draws, rng=rng), kind


def possible_tau(study: Study) -> tuple[Interval | None, str]:
    """The tau that a perfect proxy could reach with this judge, extrapolated from the runs; None for one run only."""
    problem = study.problem
    if study.judge == OTHER_SEEDS:
        runs, judges = study.full.errors.T, study.full.errors.shape[0] - 1
    elif problem.free_judge:
        return None, ""
    else:
        runs, judges = study.judged.T, study.judged.shape[0]
    if runs.shape[1] < 2 or judges < 1 or np.isinf(runs).any(axis=0).all():
        return None, ""
    try:
        found = ceilings.extrapolate(runs, judge_runs=judges)
    except BadInput:
        return None, ""
    many = "one run" if judges == 1 else f"the mean of {judges} runs"
    return found, f"a perfect proxy against {many} of full training"


def score_frame(study: Study) -> pd.DataFrame:
    """One line an answer: what the figures and further analyses start from. Baselines are left out."""
    import pandas as pd

    problem = study.problem
    texts = [problem.space.text(arch) for arch in study.archs]
    sizes = {name: study.sizes.get(name, np.full(len(texts), math.nan)) for name in ("params", "macs")}

    def part(one: Ranking, name: str, place: int, judged: Floats | float, test: Floats | float) -> pd.DataFrame:
        frame = pd.DataFrame({
            "space": problem.space.name, "dataset": problem.dataset, "architecture": texts, "proxy": name,
            "seed": one.seeds[place], "val_error": one.errors[place], "test_error": test,
            "device_s": one.device_s[place] if len(one.device_s) else math.nan, **sizes,
            "failure": [one.failures.get((place, i), "") for i in range(len(texts))] if one.failures else "",
            "judge_error": judged, "kind": one.kind,
        })  # fmt: skip
        return frame[frame["val_error"].notna()]

    parts = [
        part(one, one.name, place, math.nan, math.nan)
        for one in study.rankings if one.kind != BASELINE for place in range(len(one.seeds))
    ]  # fmt: skip
    for place, judged in enumerate(study.judged):
        parts.append(part(study.full, "full", place, judged, judged if study.judge == "test" else math.nan))
    return pd.concat(parts, ignore_index=True)[list(SCORES)]
