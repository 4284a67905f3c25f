"""The plan of a study, its trainings, their order and their cost: known before it starts.

A run is one training schedule. Every stage that is asked of it is read off its curve, so it is trained once, to its
end; the same number of epochs as a schedule of its own is another run, and another proxy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from suite.problem import Problem
from suite.proxies import Levels, levels, parse, theoretical_acceleration
from suite.spec.parts import StudyProxyPart
from suite.spec.study import StudySpec
from suite.types import Architecture, BadInput, Proxy, Unsupported, nearest

BASELINES = ("params", "macs", "random")
"""Rankings that need neither images nor training."""
MOST = 30_000
"""Networks of a study: the shared draws count in 16 bits."""
PROBES = 5
"""Networks that the cost is estimated on."""


@dataclass
class Schedule:
    """One schedule, and where it is read."""

    proxy: Proxy
    stages: list[int] = field(default_factory=list)
    """Epochs at which it is read, ascending, below its end."""


@dataclass(frozen=True)
class Plan:
    """The work of a study on one problem."""

    runs: tuple[Schedule, ...]
    """The training schedules, cheapest first by theory."""
    proxy_seeds: tuple[int, ...]
    full_seeds: tuple[int, ...]
    scores: tuple[str, ...]
    """Names of the zero-cost scores that are computed here."""
    baselines: tuple[str, ...]
    networks: int

    def seeds(self, run: Schedule, full: Proxy) -> tuple[int, ...]:
        """A proxy that is the full setting has seeds of its own: no training is compared with itself."""
        if run.proxy != full:
            return self.proxy_seeds
        return tuple(seed + len(self.full_seeds) for seed in self.proxy_seeds)

    @property
    def trainings(self) -> int:
        """Number of trainings that the study makes from scratch."""
        return self.networks * (len(self.runs) * len(self.proxy_seeds) + len(self.full_seeds))


def runs(spec: StudySpec, problem: Problem) -> tuple[Schedule, ...]:
    """The schedules that a study's proxies need, each once, cheapest first.

    Raises:
        BadInput: A proxy is there twice, or costs more than full training; a stage is beyond every schedule.
        Unsupported: The space, data or table have no such proxy or stage.
    """
    found: dict[Proxy, Schedule] = {}
    for part in spec.proxies:
        proxies = expanded(part, problem, known_levels(spec, problem))
        if part.stages and max(part.stages) > max(proxy.epochs for proxy in proxies):
            raise BadInput(
                f"proxies: stage {max(part.stages)} is beyond every schedule, {max(p.epochs for p in proxies)}"
            )
        for proxy in proxies:
            if proxy in found:
                raise BadInput(f"proxies: {proxy} is there twice; give it once")
            problem.check(proxy)
            run = found[proxy] = Schedule(proxy, sorted({s for s in part.stages or () if s < proxy.epochs}))
            there = problem.stages(proxy)
            for stage in run.stages:
                if there is not None and stage not in there:
                    raise Unsupported(f"{problem.name}: {proxy} was not read at {stage}; there are {shortened(there)}")
            ratio = relative_cost(proxy, problem)
            if ratio > 1.001:
                raise BadInput(
                    f"proxies: {proxy} costs {ratio:.3g} times the full setting ({problem.full}); a proxy has to be "
                    "cheaper: reduce it, or write a larger [full]"
                )
    return tuple(sorted(found.values(), key=lambda run: relative_cost(run.proxy, problem)))


def expanded(part: StudyProxyPart, problem: Problem, table: Levels) -> list[Proxy]:
    """Every combination of a part's values."""
    space, full = problem.space, problem.space.full
    depths: list[int | None] = [*part.cells] if part.cells else [None]
    if part.econas is not None:
        proxies = [parse(text, space, side=problem.side, table=table) for text in part.econas]
        return [
            space.canonical(replace(proxy, cells=cells, task=part.task or "")) for proxy in proxies for cells in depths
        ]
    factors = (
        part.epochs or [full.epochs], part.channels or [full.channels], part.resolution or [problem.side], part.samples,
        depths,
    )  # fmt: skip
    return [space.canonical(Proxy(*values, task=part.task or "")) for values in itertools.product(*factors)]


def known_levels(spec: StudySpec, problem: Problem) -> Levels:
    """Levels of EcoNAS's notation: the space's, or the spec's own."""
    table = levels(problem.space, problem.side)
    own = spec.levels
    if own is None:
        return table
    return Levels(own.channels or table.channels, own.resolution or table.resolution, own.samples or table.samples)


def relative_cost(proxy: Proxy, problem: Problem) -> float:
    """Theoretical compute of a proxy's training, that of full training being 1; a task's further inputs not counted."""
    full = problem.full
    depth = (proxy.cells or problem.space.cells or 1) / (full.cells or problem.space.cells or 1)
    alike = Proxy(proxy.epochs, proxy.channels, proxy.resolution, proxy.samples, full.cells)
    return depth / theoretical_acceleration(alike, full)


def name_of(proxy: Proxy, stage: int) -> str:
    """The name of a stage in results: "e12 c8 r16 s1", "3 of e12 c8 r16 s1"."""
    return str(proxy) if stage == proxy.epochs else f"{stage} of {proxy}"


def full_seeds(spec: StudySpec, problem: Problem, archs: Sequence[Architecture]) -> range:
    """Seeds of the full trainings: as many as the spec asks for and, on a table, as every network has runs."""
    there = [runs for arch in archs if (runs := problem.full_runs(arch)) is not None]
    return range(spec.seed0, spec.seed0 + min([spec.full_seeds, *there]))


def proxy_seeds(spec: StudySpec, problem: Problem) -> range:
    """Seeds of the proxies' trainings; a table of a single run of a proxy answers the same under all."""
    return range(spec.seed0, spec.seed0 + (1 if problem.simulated else spec.proxy_seeds))


def scores(spec: StudySpec, problem: Problem) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(zero-cost scores, baselines) of a study.

    Raises:
        BadInput: There is no such score.
        Unsupported: A score needs images, and the problem is a table.
    """
    wanted = BASELINES if spec.scores is None else tuple(dict.fromkeys(spec.scores))
    baselines = tuple(name for name in wanted if name in BASELINES)
    others = tuple(name for name in wanted if name not in BASELINES)
    if others:
        from suite.training.zero_cost import SCORES

        for name in others:
            if name not in SCORES:
                raise BadInput(f"scores: no score {name!r}: {nearest(name, [*BASELINES, *SCORES])}")
        if problem.training is None:
            raise Unsupported(
                f"scores: {others[0]} looks at images, and {problem.name} has none; remove it, or give published "
                "scores as score_file"
            )
    return others, baselines


def check(spec: StudySpec, problem: Problem) -> None:
    """Raises BadInput or Unsupported for what would fail later: proxies that cannot be trained, or one twice."""
    problem.check(problem.full)
    _check_reference(spec, runs(spec, problem), *scores(spec, problem))
    quick = spec.architectures.quick
    if quick is not None and quick not in ("params", "macs"):
        from suite.training.zero_cost import SCORES

        if quick not in SCORES:
            raise BadInput(f"architectures: no quick score {quick!r}: {nearest(quick, ['params', 'macs', *SCORES])}")
        if problem.training is None:
            raise Unsupported(f"architectures: {quick} looks at images, and a table has none; use params or macs")


def _check_reference(
    spec: StudySpec, trained: Sequence[Schedule], scored: Sequence[str], baselines: Sequence[str]
) -> None:
    """Names of published scores are in their file, and are looked at when it is read."""
    ends = [name_of(run.proxy, stage) for run in trained for stage in (*run.stages, run.proxy.epochs)]
    known = [*ends, *scored, *baselines, *(f"TSE {end}" for end in ends if spec.tse)]
    name = spec.reference
    if name is not None and name not in known and not (spec.score_file and name.endswith("(published)")):
        raise BadInput(f"reference: no proxy {name!r} in this study: {nearest(name, known)}")


def plan(spec: StudySpec, problem: Problem, archs: Sequence[Architecture]) -> Plan:
    """The work of a study on one problem, checked."""
    if len(archs) > MOST:
        raise BadInput(
            f"architectures: a study takes at most {MOST:,} networks, not {len(archs):,}; draw some with count"
        )
    return Plan(
        runs(spec, problem), tuple(proxy_seeds(spec, problem)), tuple(full_seeds(spec, problem, archs)),
        *scores(spec, problem), len(archs),
    )  # fmt: skip


def held(problems: Sequence[Problem]) -> list[Architecture] | None:
    """The networks that all tables hold; None: all of the space."""
    found = None
    for problem in problems:
        table = None if problem.published is None or problem.training is not None else problem.published.table
        if table is not None and table.places is not None:
            mine = [problem.space.at(int(place)) for place in table.places]
            shared = set(mine)
            found = mine if found is None else [arch for arch in found if arch in shared]
    return found


def answers_due(spec: StudySpec, problem: Problem, archs: Sequence[Architecture]) -> int:
    """Answers of a whole study on one problem that are waited for; columns of a table count one each."""
    todo = plan(spec, problem, archs)
    if problem.simulated:
        return len(todo.runs) + len(todo.full_seeds)
    return todo.trainings + len(todo.scores) * len(archs)


def shortened(stages: Sequence[int]) -> str:
    """A list of epochs as people read it."""
    return f"{stages[0]} to {stages[-1]}" if len(stages) > 8 else ", ".join(map(str, stages))


@dataclass(frozen=True)
class Price:
    """The estimated cost of a study on one problem, as far as it can be known before."""

    trainings: int
    device_s: float
    """Estimated device seconds; nan if unknown."""
    macs: float
    """Estimated multiply-adds; nan if unknown."""
    how: str
    """Where the seconds are from."""

    def __str__(self) -> str:
        seconds = "" if math.isnan(self.device_s) else f", about {duration(self.device_s)} of device time ({self.how})"
        macs = "" if math.isnan(self.macs) else f", {self.macs:.3g} multiply-adds"
        return f"{self.trainings:,} trainings{seconds}{macs}"


def duration(seconds: float) -> str:
    """Seconds in a unit that people read.

    >>> duration(45), duration(600), duration(7200), duration(400_000)
    ('45 s', '10 min', '2.0 h', '4.6 days')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
