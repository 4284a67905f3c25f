"""How far each proxy's ranking can be trusted: its agreement with full training, beside the noise ceiling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from suite.arena import Arena
from suite.consistency import MEASURES, Interval, bootstrap, ceiling
from suite.evaluators.recorded import Log, Recorded
from suite.evaluators.table import OTHER_SEEDS
from suite.folder import Row
from suite.ledger import Ledger
from suite.spaces import SearchSpace
from suite.spec import StudySpec
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

Errors: TypeAlias = npt.NDArray[np.float64]

MANY = 2_000
BLOCK = 24
"""Networks that go through all proxies together, so that seconds of different proxies are measured side by side."""

CONSISTENCY = (
    "space", "dataset", "proxy", "epochs", "channels", "resolution", "samples", "cells", "n", "failed",
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
    "ceiling_tau", "ceiling_low", "ceiling_high", "ceiling", "judge", "seeds_proxy", "seeds_full", "draws", "device_s",
    "full_device_s", "speedup_device", "speedup_macs", "clock", "device", "command",
)  # fmt: skip
SCORES = (
    "space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error", "device_s", "params", "macs",
    "failure", "judge_error",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """The answers of one study on one data set."""

    arena: Arena
    archs: tuple[Architecture, ...]
    proxies: Mapping[Proxy, Sequence[Evaluation]]
    """One answer an architecture, in order."""
    full: Sequence[Sequence[Evaluation]]
    """(full_seeds, n): what the search would see of full training."""
    judged: Sequence[Sequence[Evaluation]]
    """(full_seeds, n): what the judge sees of it."""


def architectures(spec: StudySpec, space: SearchSpace, base: Path) -> tuple[Architecture, ...]:
    """The networks of a study, no two alike.

    Raises:
        BadInput: Not exactly one of count, all and file is given; fewer than 3 networks; a line of the file is none.
    """
    part = spec.architectures
    if sum((part.count is not None, part.all, part.file is not None)) != 1:
        raise BadInput("architectures: give one of count, all = true, file")
    if part.file is not None:
        path = next((p for p in (base / part.file, Path(part.file)) if p.exists()), None)
        if path is None:
            raise BadInput(f"architectures: no file {part.file}, neither beside the spec nor here")
        archs = list(dict.fromkeys(listed(path, space)))
    elif part.all:
        archs = list(space)
    else:
        assert part.count is not None
        if part.count > space.size:
            raise BadInput(f"architectures: {space.name} has {space.size} architectures, not {part.count}")
        rng = np.random.default_rng(spec.seed0)
        archs = [space.at(int(i)) for i in rng.choice(space.size, part.count, replace=False)]
    if len(archs) < 3:
        raise BadInput(f"architectures: a ranking needs at least 3 networks, not {len(archs)}")
    return tuple(archs)


def listed(path: Path, space: SearchSpace) -> Iterator[Architecture]:
    """The architectures of a file, one text form a line; empty lines and those that begin with # are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no text file: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.strip().startswith("#"):
            try:
                yield space.parse(line.strip())
            except BadInput as error:
                raise BadInput(f"{path}:{number}: {error}") from None


def check(spec: StudySpec, arena: Arena) -> None:
    """Raises BadInput or Unsupported for what would fail later: proxies that cannot be trained, or one twice."""
    proxies = [part.proxy(arena.space, arena.side) for part in spec.proxies]
    arena.check(arena.full)
    for number, proxy in enumerate(proxies):
        arena.check(proxy)
        if proxy in proxies[:number]:
            raise BadInput(f"proxies: {proxy} is there twice")


def full_seeds(spec: StudySpec, arena: Arena, archs: Sequence[Architecture]) -> range:
    """Seeds of the full trainings: as many as the spec asks for and, on a table, as every network has runs."""
    there = [runs for arch in archs if (runs := arena.full_runs(arch)) is not None]
    return range(spec.seed0, spec.seed0 + min([spec.full_seeds, *there]))


def answers_due(spec: StudySpec, arena: Arena, archs: Sequence[Architecture]) -> int:
    """Answers of a whole study on one arena."""
    full = len(full_seeds(spec, arena, archs)) * (2 if arena.simulated else 1)
    return len(archs) * (len(spec.proxies) + full)


def conduct(spec: StudySpec, arena: Arena, archs: Sequence[Architecture], log: Log, tick: Callable[[], None]) -> Study:
    """Train (or look up) every network under every proxy and in full; `tick` is called once an answer.

    Raises:
        Unsupported: The space or table cannot serve a proxy; nothing was trained.
    """
    proxies = [part.proxy(arena.space, arena.side) for part in spec.proxies]
    seeds = full_seeds(spec, arena, archs)

    def recorded(view: str, phase: str) -> Recorded:
        source = arena.search_view(view) if view == "search" else arena.judge_view()
        return Recorded(source, log, dataset=arena.dataset, run=view, phase=phase)

    search, judge = recorded("search", "proxy"), recorded("judge", "full training")
    columns = [(search, proxy, spec.seed0) for proxy in proxies] + [(judge, arena.full, seed) for seed in seeds]
    if arena.simulated:
        seen = recorded("search", "full training")
        columns += [(seen, arena.full, seed) for seed in seeds]
    answers: list[list[Evaluation]] = [[] for _ in columns]
    for start in range(0, len(archs), BLOCK):
        block = archs[start : start + BLOCK]
        for (evaluator, proxy, seed), column in zip(columns, answers, strict=True):
            placed = {}
            for place, answer in evaluator.stream([Trial(arch, proxy, seed=seed) for arch in block]):
                placed[place] = answer
                tick()
            column += [placed[place] for place in range(len(block))]
    arena.search_over("search")
    by_proxy, rest = dict(zip(proxies, answers, strict=False)), answers[len(proxies) :]
    judged, full = rest[: len(seeds)], rest[len(seeds) :]
    return Study(arena, tuple(archs), by_proxy, full or judged, judged)


def consistency_rows(study: Study, spec: StudySpec, command: str) -> Iterator[Row]:
    """One line a proxy."""
    arena = study.arena
    valid = np.array([[answer.metrics["val_error"] for answer in answers] for answers in study.full]).T  # (n, seeds)
    judged = np.array([[arena.judge_error(answer) for answer in answers] for answers in study.judged]).T
    truth = judged[:, 0] if arena.simulated else judged.mean(axis=1)
    top, kind = noise_ceiling(valid, judged, arena, spec)
    full_s, full_macs = mean_costs([answer for answers in study.full for answer in answers])
    for number, (proxy, answers) in enumerate(study.proxies.items()):
        errors = np.array([answer.metrics["val_error"] for answer in answers])
        rng = np.random.default_rng([spec.seed0, number])
        found = bootstrap(errors, truth, measures=tuple(MEASURES), draws=draws_for(spec, len(errors)), rng=rng)
        ends = {f"{name}_{end}": getattr(found[name], end) for name in MEASURES for end in ("low", "high")}
        device_s, macs = mean_costs(answers)
        ledger = Ledger()
        for answer in (*answers, *study.full[0]):
            ledger.add("proxy", answer.cost)
        yield {
            "space": arena.space.name,
            "dataset": arena.dataset,
            "proxy": str(proxy),
            **{name: getattr(proxy, name) for name in ("epochs", "channels", "resolution", "samples", "cells")},
            "n": len(errors),
            "failed": int(np.isinf(errors).sum()),
            **{name: interval.value for name, interval in found.items()},
            **ends,
            "ceiling_tau": top.value,
            "ceiling_low": top.low,
            "ceiling_high": top.high,
            "ceiling": kind,
            "judge": arena.judge,
            "seeds_proxy": 1,
            "seeds_full": len(study.judged),
            "draws": draws_for(spec, len(errors)),
            "device_s": device_s,
            "full_device_s": full_s,
            "speedup_device": full_s / device_s if device_s else math.nan,
            "speedup_macs": full_macs / macs if macs else math.nan,
            "clock": ledger.clock,
            "device": ledger.device,
            "command": command,
        }


def draws_for(spec: StudySpec, n: int) -> int:
    """Bootstrap draws for n networks: as the spec says, else 10,000, or 1,000 where networks are many."""
    return spec.draws or (10_000 if n <= MANY else 1_000)


def noise_ceiling(valid: Errors, judged: Errors, arena: Arena, spec: StudySpec) -> tuple[Interval, str]:
    """How well full training ranks as a proxy of itself, and in which sense.

    Args:
        valid: What a search sees of full training, shape (n, seeds) [%].
        judged: What the judge sees of it, likewise.
        arena: Where they come from.
        spec: How many draws.
    """
    rng = np.random.default_rng([spec.seed0, len(spec.proxies)])
    one = valid.shape[1] == 1
    if arena.judge == OTHER_SEEDS:
        kind, other = "full validation, other seeds", valid
    elif arena.simulated:
        kind, other = "full validation, the table's test mean", judged
    else:
        kind, other = "full validation, one training" if one else "full validation, other seeds' test", judged
    if one:
        return bootstrap(valid[:, 0], judged[:, 0], measures=("tau",), draws=draws_for(spec, len(valid)), rng=rng)[
            "tau"
        ], kind
    return ceiling(valid, other, draws=draws_for(spec, len(valid)), rng=rng), kind


def score_rows(study: Study) -> Iterator[Row]:
    """One line an answer: what the figures and further analyses start from."""
    arena = study.arena

    def row(proxy: str, answer: Evaluation, judge_error: float) -> Row:
        trial, metrics = answer.trial, answer.metrics
        return {
            "space": arena.space.name,
            "dataset": arena.dataset,
            "architecture": arena.space.text(trial.arch),
            "proxy": proxy,
            "seed": trial.seed,
            "val_error": metrics.get("val_error", math.nan),
            "test_error": judge_error if arena.judge == "test" else math.nan,
            "device_s": answer.cost.device_s,
            "params": metrics.get("params", math.nan),
            "macs": metrics.get("macs", math.nan),
            "failure": answer.failure,
            "judge_error": judge_error,
        }

    for proxy, answers in study.proxies.items():
        yield from (row(str(proxy), answer, math.nan) for answer in answers)
    for seen, judged in zip(study.full, study.judged, strict=True):
        yield from (row("full", s, arena.judge_error(j)) for s, j in zip(seen, judged, strict=True))


def mean_costs(answers: Sequence[Evaluation]) -> tuple[float, float]:
    """Mean device seconds and mean multiply-adds of the answers that cost anything."""
    costs = [answer.cost for answer in answers if answer.cost.device_s != 0]
    if not costs:
        return 0.0, 0.0
    return float(np.mean([cost.device_s for cost in costs])), float(np.mean([cost.macs for cost in costs]))
