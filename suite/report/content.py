"""The content of a report: rows grouped into comparable tables, ranked, and summed up in a sentence.

A table holds one space, data set, judge, clock and device: errors of different judges and seconds of different
clocks or devices are never compared. Results of different folders stay apart too, as their budgets may differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from suite.records.ledger import CHARGED, PHASES, gpu_days
from suite.report import words
from suite.report.reading import ResultsFolder, Row
from suite.types import JSON, SIMULATED

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; nan where not known."""

    mean: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there is an interval; with one seed there is none."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals share a point; yes if one is not known, as nothing tells the two apart then."""
        return not (self.bounded and other.bounded) or (self.low <= other.high and other.low <= self.high)


def lowest(estimates: Sequence[Estimate]) -> tuple[int | None, list[int]]:
    """The lowest mean, and which others cannot be told from it: their interval overlaps its own.

    Means that are not finite take no part.

    >>> lowest([Estimate(6.5, 6.4, 6.6), Estimate(6.1, 6.0, 6.2), Estimate(6.2, 6.1, 6.3)])
    (1, [2])
    """
    known = [i for i, estimate in enumerate(estimates) if math.isfinite(estimate.mean)]
    if not known:
        return None, []
    best = min(known, key=lambda i: estimates[i].mean)
    return best, [i for i in known if i != best and estimates[i].overlaps(estimates[best])]


@dataclass(frozen=True)
class Axis:
    """A common horizontal axis for the small dot-and-whisker drawings of a table."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the width."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)

    @classmethod
    def over(cls, values: Iterable[float], *, wanted: int = 6) -> Axis:
        """The axis that shows all the finite values, with round ticks.

        >>> Axis.over([6.0, 6.9]).ticks
        (6.0, 6.2, 6.4, 6.6, 6.8)
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        margin = 0.05 * (high - low) or max(0.05 * abs(high), 0.05)
        low, high = low - margin, high + margin
        raw = (high - low) / wanted
        scale = 10.0 ** math.floor(math.log10(raw))
        step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= 0.999 * raw)
        ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
        return cls(low, high, tuple(round(i * step, 12) for i in ticks), max(0, -math.floor(math.log10(step) + 1e-9)))


@dataclass(frozen=True)
class BoardKey:
    """The key under which seconds and errors are comparable: one folder, space, data set, clock and device."""

    source: str
    space: str
    dataset: str
    clock: str
    device: str

    @property
    def seconds(self) -> str:
        """The heading of its cost columns and axes."""
        return words.seconds_of(self.clock, self.device)


@dataclass(frozen=True)
class Leaderboard:
    """The searchers that one judge ranked, lowest error first."""

    place: BoardKey
    evaluator: str
    judge: str
    rows: list[Row]
    tied: frozenset[str]
    """The best and those that cannot be told from it; empty if it stands alone, or there is nothing to compare."""
    separated: bool
    """Whether the best's interval overlaps no other's."""
    headline: str
    axis: Axis
    winners: list[Row] = field(default_factory=list)
    figure: str = ""

    @property
    def best(self) -> Row | None:
        """The lowest error, if any is known."""
        return self.rows[0] if self.rows and math.isfinite(self.rows[0]["judge_error_mean"]) else None

    @property
    def seeds(self) -> str:
        """The number of seeds behind its rows."""
        seeds = sorted({row["seeds"] for row in self.rows if math.isfinite(row["seeds"])})
        if not seeds:
            return "seeds not recorded"
        many = words.count(seeds[0]) + (f"–{words.count(seeds[-1])}" if len(seeds) > 1 else "")
        return f"{many} seed" if seeds[-1] == 1 else f"{many} seeds"

    @property
    def commands(self) -> list[str]:
        """The commands that made its rows, each once."""
        return list(dict.fromkeys(row["command"] for row in self.rows if row["command"]))


@dataclass(frozen=True)
class Curves:
    """Judge error of the incumbent against device seconds."""

    place: BoardKey
    lines: Mapping[str, list[Row]]
    """By searcher, lowest final error first; from the moment at which every seed has an incumbent."""
    left_out: list[str]
    """Searchers whose clock the folder leaves open."""
    figure: str = ""

    @property
    def banded(self) -> list[str]:
        """Searchers whose interval is drawn: all, or where their bands would hide one another the five best."""
        return list(self.lines) if len(self.lines) <= 8 else list(self.lines)[:5]


@dataclass(frozen=True)
class LedgerTable:
    """The cost of each searcher on each data set, by phase."""

    place: BoardKey
    """The key that all its rows share; the data set is left open."""
    phases: tuple[str, ...]
    rows: list[Row]
    """searcher, dataset, one entry a phase [device s], charged_s, evaluations, gpu_days, macs, energy_j."""

    @property
    def datasets(self) -> list[str]:
        """The data sets of its rows, in their order."""
        return _seen(row["dataset"] for row in self.rows)

    def known(self, column: str) -> bool:
        """Whether any row has a value there."""
        return any(math.isfinite(row[column]) for row in self.rows)


@dataclass(frozen=True)
class StudyTable:
    """The ranked proxies of one study, highest tau first."""

    place: BoardKey
    judge: str
    rows: list[Row]
    digits: int
    headline: str
    axis: Axis
    tied: frozenset[str]
    figure: str = ""
    answers: list[Row] = field(default_factory=list)
    """Pairs of a question and its answer."""
    claims: list[Row] = field(default_factory=list)
    factors: list[Row] = field(default_factory=list)
    recommendations: list[Row] = field(default_factory=list)
    strategies: list[Row] = field(default_factory=list)
    factor_figure: str = ""
    heat_figure: str = ""

    @property
    def possible(self) -> str:
        """The meaning of "of a possible" in this study."""
        said = dict.fromkeys(row.get("possible") or row["ceiling"] for row in self.rows)
        return "; ".join(word for word in said if word)

    def known(self, column: str) -> bool:
        """Whether any row has a value there."""
        return any(math.isfinite(row.get(column, math.nan)) for row in self.rows)

    @property
    def ceiling(self) -> Row | None:
        """The row whose ceiling holds for all, or None where the ceilings differ or none was measured."""
        ceilings = {(row["ceiling_tau"], row["ceiling_low"], row["ceiling_high"]) for row in self.rows}
        return self.rows[0] if len(ceilings) == 1 and math.isfinite(self.rows[0]["ceiling_tau"]) else None

    @property
    def ceilings(self) -> list[str]:
        """The kinds of ceiling, e.g. "full, other seeds"."""
        return list(dict.fromkeys(row["ceiling"] for row in self.rows if row["ceiling"]))

    @property
    def full_device_s(self) -> float:
        """Device seconds of one full training, mean over the networks; nan where rows differ."""
        seconds = {row["full_device_s"] for row in self.rows}
        return float(seconds.pop()) if len(seconds) == 1 else math.nan

    @property
    def n(self) -> str:
        """The number of architectures behind its rows."""
        many = sorted({row["n"] for row in self.rows if math.isfinite(row["n"])})
        if not many:
            return "number of architectures not recorded"
        return words.count(many[0]) + (f"–{words.count(many[-1])}" if len(many) > 1 else "") + " architectures"

    @property
    def commands(self) -> list[str]:
        """The commands that made its rows, each once."""
        return list(dict.fromkeys(row["command"] for row in self.rows if row["command"]))


@dataclass(frozen=True)
class Panel:
    """One proxy's errors beside those of full training, a pair an architecture."""

    proxy: str
    pairs: list[tuple[float, float]]
    failed: int
    tau: float


@dataclass(frozen=True)
class Scatter:
    """Small multiples, one panel a proxy."""

    source: str
    space: str
    dataset: str
    error: str
    """Label of the vertical axis: the measured error."""
    panels: list[Panel]
    figure: str = ""
    left_out: int = 0
    """Names of the proxies that have no panel."""


@dataclass(frozen=True)
class Failure:
    """Trainings that failed for one reason."""

    source: str
    space: str
    dataset: str
    proxy: str
    reason: str
    count: float
    of: float
    """Answers that were asked for; nan if not known."""


@dataclass(frozen=True)
class Provenance:
    """Where one folder's numbers come from."""

    source: str
    facts: list[tuple[str, str]]
    packages: list[tuple[str, str]]
    data: list[tuple[str, str]]
    spec: str
    commands: list[str]


@dataclass(frozen=True)
class Content:
    """Everything that a report says."""

    subtitle: str
    leaderboards: list[Leaderboard]
    curves: list[Curves]
    ledgers: list[LedgerTable]
    studies: list[StudyTable]
    scatters: list[Scatter]
    failures: list[Failure]
    provenance: list[Provenance]
    searchers: list[str]
    """All of them, in a fixed order: each has one colour in all the figures."""
    transfers: list[Row] = field(default_factory=list)
    """Between data sets of a study."""


def arrange(sources: Sequence[ResultsFolder]) -> Content:
    """Groups, ranks and sums up what the folders hold."""
    rows = [row for source in sources for table in source.tables.values() for row in table]
    spaces, datasets = _seen(row["space"] for row in rows), _seen(row.get("dataset", "") for row in rows)
    searchers = _seen(
        row["searcher"]
        for source in sources
        for file in ("leaderboard.csv", "anytime.csv")
        for row in source.tables.get(file, ())
    )
    return Content(
        subtitle=" · ".join(part for part in (", ".join(spaces), ", ".join(datasets)) if part),
        leaderboards=[board for source in sources for board in leaderboards(_table(source, "leaderboard.csv"), source)],
        curves=[curves for source in sources for curves in _curves(source)],
        ledgers=[ledger for source in sources for ledger in _ledgers(source)],
        studies=[
            with_findings(study, source)
            for source in sources
            for study in studies(_table(source, "consistency.csv"), source.name)
        ],
        transfers=[{**row, "source": source.name} for source in sources for row in _table(source, "transfer.csv")],
        scatters=[scatter for source in sources for scatter in _scatters(source)],
        failures=[failure for source in sources for failure in _failures(source)],
        provenance=[_provenance(source) for source in sources],
        searchers=searchers,
    )


def _table(source: ResultsFolder, file: str) -> list[Row]:
    return list(source.tables.get(file, ()))


def _seen(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _groups(rows: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _clock(row: Row) -> str:
    """A device that is marked as a table's has simulated seconds, whether or not the row says so again."""
    return str(row["clock"]) or ("simulated" if row["device"].startswith(SIMULATED) else "")


def _place(source: str, row: Row) -> BoardKey:
    return BoardKey(source, row["space"], row["dataset"], _clock(row), row["device"])


def _last(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def leaderboards(rows: Sequence[Row], source: ResultsFolder | None = None) -> list[Leaderboard]:
    """One a space, data set, evaluator, judge, clock and device, in the order of the rows."""
    name = source.name if source else ""
    winners = _table(source, "winners.csv") if source else []
    boards = []
    for group in _groups(rows, lambda row: (_place(name, row), row["evaluator"], row["judge"])):
        ranked = [
            {**row, "remark": "; ".join(filter(None, (row.get("options", ""), row["note"])))}
            for row in sorted(group, key=lambda row: (_last(row["judge_error_mean"]), row["searcher"]))
        ]
        estimates = [_estimate(row, "judge_error_mean", "judge_error_low", "judge_error_high") for row in ranked]
        best, overlapping = lowest(estimates)
        others = [ranked[i]["searcher"] for i in overlapping]
        boards.append(
            Leaderboard(
                place=_place(name, group[0]),
                evaluator=group[0]["evaluator"],
                judge=group[0]["judge"],
                rows=ranked,
                tied=frozenset([ranked[0]["searcher"], *others] if others else []),
                separated=best is not None and not others and len(ranked) > 1,
                headline=_board_headline(ranked, estimates, others),
                axis=Axis.over(x for e in estimates for x in (e.mean, e.low, e.high)),
                winners=_winners(winners, group[0], [row["searcher"] for row in ranked]),
            )
        )
    return boards


def _estimate(row: Row, mean: str, low: str, high: str) -> Estimate:
    return Estimate(row[mean], row[low], row[high])


def _board_headline(ranked: list[Row], estimates: list[Estimate], others: list[str]) -> str:
    first, best = ranked[0]["searcher"], estimates[0]
    if not math.isfinite(best.mean):
        return "No judge error is known."
    error = f"{words.interval(best.mean, best.low, best.high)}\N{NO-BREAK SPACE}%"
    if len(ranked) == 1:
        return f"{first}: judge error {error}. There is no other searcher to compare it with."
    if not others:
        return f"{first} has the lowest judge error, {error}; its interval overlaps no other searcher's."
    if not best.bounded:
        return f"Not separable: {first} has the lowest judge error, {error}, but no interval, as from a single seed."
    return f"Not separable: {first} has the lowest judge error, {error}, but {_overlap_words(others)} its interval."


def _overlap_words(others: list[str]) -> str:
    return f"{words.listed(others)} {'overlaps' if len(others) == 1 else 'overlap'}"


def _winners(winners: list[Row], board: Row, order: list[str]) -> list[Row]:
    """The architecture that each searcher hands over most often."""
    keys = ("space", "dataset", "evaluator")
    found = []
    for searcher in order:
        mine = [row for row in winners if row["searcher"] == searcher and all(row[k] == board[k] for k in keys)]
        if not mine:
            continue
        (architecture, often), *_ = Counter(row["architecture"] for row in mine).most_common(1)
        one = next(row for row in mine if row["architecture"] == architecture)
        found.append({**one, "often": often, "of": len(mine), "distinct": len({row["architecture"] for row in mine})})
    return found


def _curves(source: ResultsFolder) -> list[Curves]:
    rows = _table(source, "anytime.csv")
    result = []
    for group in _groups(rows, lambda row: (row["space"], row["dataset"])):
        placed: dict[BoardKey, dict[str, list[Row]]] = {}
        left_out = []
        for mine in _groups(group, lambda row: (row["searcher"], row.get("clock"), row.get("device"))):
            clocks = _clocks(source, mine[0])
            if len(clocks) > 1:
                left_out.append(mine[0]["searcher"])
                continue
            most = max((row["seeds"] for row in mine if math.isfinite(row["seeds"])), default=math.nan)
            whole = [
                row
                for row in sorted(mine, key=lambda row: _last(row["device_s"]))
                if row["device_s"] > 0
                and math.isfinite(row["device_s"])
                and math.isfinite(row["judge_error_mean"])
                and not row["seeds"] < most
            ]
            if whole:
                clock, device = clocks.pop() if clocks else ("", "")
                place = BoardKey(source.name, mine[0]["space"], mine[0]["dataset"], clock, device)
                placed.setdefault(place, {})[mine[0]["searcher"]] = whole
        if left_out and not placed:
            placed[BoardKey(source.name, group[0]["space"], group[0]["dataset"], "", "")] = {}
        for i, (place, lines) in enumerate(placed.items()):
            order = sorted(lines, key=lambda name: (lines[name][-1]["judge_error_mean"], name))
            result.append(Curves(place, {name: lines[name] for name in order}, left_out if i == 0 else []))
    return result


def _clocks(source: ResultsFolder, row: Row) -> set[tuple[str, str]]:
    """Which clocks a searcher's seconds may be of; anytime.csv need not say, the leaderboard beside it does."""
    if row.get("device") or row.get("clock"):
        return {(_clock({"clock": "", "device": "", **row}), row.get("device", ""))}
    keys = ("searcher", "space", "dataset")
    for file in ("leaderboard.csv", "ledger.csv"):
        found = {
            (_clock(other), other["device"])
            for other in _table(source, file)
            if all(other[k] == row[k] for k in keys) and other.get("phase", "proxy") in CHARGED
        }
        if found:
            return found
    return set()


def _ledgers(source: ResultsFolder) -> list[LedgerTable]:
    ledgers = []
    for group in _groups(_table(source, "ledger.csv"), lambda row: replace(_place(source.name, row), dataset="")):
        named = {row["phase"] for row in group}
        phases = (
            *(p for p in PHASES if p in named),
            *_seen(row["phase"] for row in group if row["phase"] not in PHASES),
        )
        rows = []
        for mine in _groups(group, lambda row: (row["dataset"], row["searcher"])):
            charged = [row for row in mine if row["phase"] in CHARGED]
            rows.append(
                {
                    "searcher": mine[0]["searcher"],
                    "dataset": mine[0]["dataset"],
                    **{p: _sum(row["device_s"] for row in mine if row["phase"] == p) for p in phases},
                    "evaluations": _sum(row["evaluations"] for row in charged),
                    "charged_s": _sum(row["device_s"] for row in charged),
                    "gpu_days": gpu_days(_sum(row["device_s"] for row in charged)),
                    "macs": _sum(row["macs"] for row in charged),
                    "energy_j": _sum(row["energy_j"] for row in charged),
                }
            )
        ledgers.append(LedgerTable(replace(_place(source.name, group[0]), dataset=""), phases, rows))
    return ledgers


def _sum(values: Iterable[float]) -> float:
    """nan for no values; a part that is not known makes the sum not known."""
    parts = list(values)
    return math.fsum(parts) if parts and all(map(math.isfinite, parts)) else math.nan


def studies(rows: Sequence[Row], source: str = "") -> list[StudyTable]:
    """One a space, data set, judge, clock and device, in the order of the rows."""
    result = []
    for group in _groups(rows, lambda row: (_place(source, row), row["judge"])):
        ranked = sorted(
            ({**row, **best_possible(row)} for row in group), key=lambda row: (_last(-row["tau"]), row["proxy"])
        )
        estimates = [Estimate(-row["tau"], -row["tau_high"], -row["tau_low"]) for row in ranked]
        _, overlapping = lowest(estimates)
        widths = [row["tau_high"] - row["tau_low"] for row in ranked if math.isfinite(row["tau_high"] - row["tau_low"])]
        digits = 3 if widths and max(widths) < 0.05 else 2
        others = [ranked[i]["proxy"] for i in overlapping]
        shown = [row[c] for row in ranked for c in ("tau", "tau_low", "ceiling_low") if math.isfinite(row[c])]
        result.append(
            StudyTable(
                place=_place(source, group[0]),
                judge=group[0]["judge"],
                rows=ranked,
                digits=digits,
                headline=_study_headline(ranked[0], others, len(ranked), digits),
                axis=_tau_axis(min(shown, default=0.0)),
                tied=frozenset([ranked[0]["proxy"], *others] if others else []),
            )
        )
    return result


def with_findings(study: StudyTable, source: ResultsFolder) -> StudyTable:
    """The study with what else its folder says of its data set."""
    place = study.place

    def of(file: str) -> list[Row]:
        return [
            row
            for row in _table(source, file)
            if (row.get("space"), row.get("dataset")) == (place.space, place.dataset)
        ]

    return replace(
        study, answers=of("answers.csv"), claims=of("claims.csv"), factors=of("factors.csv"),
        recommendations=of("recommendations.csv"), strategies=of("strategies.csv"),
    )  # fmt: skip


def _tau_axis(low: float) -> Axis:
    floor = min(0.0, math.floor(5 * low) / 5)
    return Axis(floor, 1.0, tuple(0.5 * i for i in range(math.ceil(2 * floor), 3)), 1)


SHOWN = (
    "speedup_theory", "speedup_energy", "tau_top10_low", "tau_top10_high", "possible_tau", "possible_low",
    "possible_high",
)  # fmt: skip
"""Columns of consistency.csv that a table shows and a file may lack."""


def best_possible(row: Row) -> Row:
    """Columns that may be missing; a perfect proxy reaches the measured ceiling where nobody worked it out."""
    found: Row = {name: row.get(name, math.nan) for name in SHOWN}
    if not math.isfinite(found["possible_tau"]):
        found |= {f"possible_{end}": row[f"ceiling_{end}"] for end in ("tau", "low", "high")}
    return found


def _study_headline(best: Row, others: list[str], many: int, digits: int) -> str:
    if not math.isfinite(best["tau"]):
        return "No tau is known."
    tau = words.interval(best["tau"], best["tau_low"], best["tau_high"], digits)
    beside = words.beside(best["tau"], best["possible_tau"], digits)
    cost = f", {words.times(best['speedup_device'])} faster than full training" if best["speedup_device"] > 1 else ""
    start = f"{best['proxy']} ranks most like full training: tau {tau}{beside}{cost}."
    if many == 1:
        return start
    if not others:
        return f"{start} Its interval overlaps no other proxy's."
    return f"{start} Not separable by these intervals: {_overlap_words(others)} it."


PANELS = 24
"""Proxies that a figure shows one by one; of more some, evenly spread over their cost."""


def _scatters(source: ResultsFolder) -> list[Scatter]:
    taus = {(row["space"], row["dataset"], row["proxy"]): row["tau"] for row in _table(source, "consistency.csv")}
    judges = {(row["space"], row["dataset"]): row["judge"] for row in _table(source, "consistency.csv")}
    scatters = []
    for group in _groups(_table(source, "scores.csv"), lambda row: (row["space"], row["dataset"])):
        space, dataset = group[0]["space"], group[0]["dataset"]
        full = [row for row in group if row["proxy"] == "full"]
        column = "test_error" if any(math.isfinite(row["test_error"]) for row in full) else "val_error"
        truth = _means(full, column)
        panels = []
        for mine in _groups((row for row in group if row["proxy"] != "full"), lambda row: row["proxy"]):
            errors = _means(mine, "val_error")
            pairs = [(errors[a], truth[a]) for a in errors if a in truth]
            failed = sum(1 for row in mine if row["failure"])
            tau = taus.get((space, dataset, mine[0]["proxy"]), math.nan)
            if pairs:
                panels.append((_mean(row["device_s"] for row in mine), Panel(mine[0]["proxy"], pairs, failed, tau)))
        if panels:
            ordered = [panel for _, panel in sorted(panels, key=lambda p: _last(p[0]))]
            shown = [ordered[round(i * (len(ordered) - 1) / (PANELS - 1))] for i in range(PANELS)]
            left_out = max(len(ordered) - PANELS, 0)
            judge = judges.get((space, dataset), "test") if column == "test_error" else "validation"
            error = f"error of full training [%]\n{judge}"
            panes = shown if left_out else ordered
            scatters.append(Scatter(source.name, space, dataset, error, panes, left_out=left_out))
    return scatters


def _means(rows: Iterable[Row], column: str) -> dict[str, float]:
    """Mean over the seeds that trained, by architecture."""
    groups = _groups(rows, lambda row: row["architecture"])
    means = ((group[0]["architecture"], _mean(row[column] for row in group)) for group in groups)
    return {architecture: mean for architecture, mean in means if math.isfinite(mean)}


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _failures(source: ResultsFolder) -> list[Failure]:
    """Counted from scores.csv where there is one, else from the column `failed` of the study."""
    scores = _table(source, "scores.csv")
    failures = []
    for group in _groups(scores, lambda row: (row["space"], row["dataset"], row["proxy"])):
        row = group[0]
        for reason, many in Counter(r["failure"] for r in group if r["failure"]).most_common():
            failures.append(Failure(source.name, row["space"], row["dataset"], row["proxy"], reason, many, len(group)))
    if not scores:
        for row in _table(source, "consistency.csv"):
            if row["failed"] > 0:
                place, counts = (source.name, row["space"], row["dataset"], row["proxy"]), (row["failed"], row["n"])
                failures.append(Failure(*place, "reason not recorded", *counts))
    return failures


def _provenance(source: ResultsFolder) -> Provenance:
    environment = dict(source.environment)
    packages, data = environment.pop("packages", None) or {}, environment.pop("data", None) or {}
    command = environment.pop("command", "")
    rows = [row for file in ("leaderboard.csv", "consistency.csv") for row in _table(source, file)]
    return Provenance(
        source=source.name,
        facts=_pairs(environment),
        packages=_pairs(packages),
        data=_pairs(data),
        spec=source.spec.strip("\n"),
        commands=_seen([_plain(command), *(row["command"] for row in rows)]),
    )


def _pairs(values: JSON | object) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return [("", _plain(values))]
    return [(str(name).replace("_", " "), _plain(value)) for name, value in values.items() if value not in (None, "")]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " ".join(_plain(part) for part in value)
    return "" if value is None else str(value)
