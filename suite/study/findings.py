"""Findings of a study: every file beside consistency.csv, and the sentences that answer a user.

Each question is asked for every data set. One that these data cannot answer is answered by the reason.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from suite.records.folder import Row
from suite.spec.study import StudySpec
from suite.statistics.bootstrap import Interval
from suite.statistics.questions import claims, factors, power, strategy, transfer
from suite.statistics.questions.differences import holm, p_value
from suite.statistics.questions.grid import FULL, Grid
from suite.statistics.questions.taus import column
from suite.statistics.sweeps import TAU
from suite.study.answers import SCHEDULE, STAGE, ZERO_COST, Ranking, Study, mean_cost
from suite.study.rows import CONSISTENCY, SCORES, MeasuredGroup, consistency_rows, measure, score_frame
from suite.types import BadInput, Proxy, nearest

if TYPE_CHECKING:
    import pandas as pd

COMPARISONS = (
    "space", "dataset", "a", "b", "tau_a", "tau_b", "gain", "gain_low", "gain_high", "p", "p_holm", "better", "n",
    "draws",
)  # fmt: skip
FACTORS = (
    "space", "dataset", "family", "cost", "factor", "slope", "slope_low", "slope_high", "p", "exponent", "loss",
    "loss_low", "loss_high", "r_squared", "n", "proxies",
)  # fmt: skip
CLAIMS = (
    "space", "dataset", "family", "claim", "statement", "verdict", "value", "low", "high", "measured", "pairs", "n",
)  # fmt: skip
POWER = ("space", "dataset", "a", "b", "difference", "networks", "networks_for_0_05", "n")
FRONT = (
    "space", "dataset", "proxy", "kind", "device_s", "tau", "tau_low", "tau_high", "front", "beaten_by",
)  # fmt: skip
RECOMMENDATIONS = (
    "space", "dataset", "reach", "proxy", "econas", "tau", "tau_low", "device_s", "speedup_device", "speedup_macs",
)  # fmt: skip
STRATEGIES = (
    "space", "dataset", "over", "budget", "budget_s", "strategy", "cost_s", "regret", "regret_low", "regret_high",
    "flat", "flat_regret", "flat_low", "flat_high", "saved", "saved_low", "saved_high", "pool", "chosen_again", "n",
)  # fmt: skip
TRANSFER = (
    "space", "here", "there", "rank", "rank_low", "rank_high", "linear", "linear_low", "linear_high", "reachable",
    "slope", "intercept", "off_by", "proxies",
)  # fmt: skip
MATRIX = ("space", "judged", "source", "proxy", "tau", "low", "high")
ANSWERS = ("space", "dataset", "question", "answer")

MATTERS = 0.05
"""A difference of taus that power is planned for."""
REACH = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BUDGETS = (1.0, 3.0, 10.0)
SIMULATED_UP_TO = 400
"""Networks that strategies are simulated on; of more so many are drawn."""
MOST_STAGES = 4


class Findings:
    """Collects what follows from each data set, then what follows from all of them."""

    def __init__(self, spec: StudySpec, command: str) -> None:
        self.spec, self.command = spec, command
        self.rows: dict[str, list[Row]] = {name: [] for name in ("consistency.csv", *(entry[0] for entry in TABLES))}
        self.scores: list[pd.DataFrame] = []
        self.grids: list[Grid] = []

    def add(self, study: Study) -> None:
        """All that one data set says."""
        measured = measure(study, self.spec)
        consistency = list(consistency_rows(study, self.spec, self.command, measured))
        self.rows["consistency.csv"] += consistency
        self.scores.append(score_frame(study))
        DataSetFindings(study, self.spec, measured, consistency, self.rows).ask()
        ranked = {one.name: one.errors[0] for one in study.rankings if rankable(one)}
        if ranked and rankable(study.full):
            archs = tuple(map(study.problem.space.text, study.archs))
            truth = study.truth.mean(axis=0)
            self.grids.append(
                Grid(study.problem.space.name, study.problem.dataset, archs, ranked, truth, study.truth.T, {})
            )

    def tables(self) -> Iterator[tuple[str, Sequence[str], list[Row]]]:
        """(file, columns, rows); a file that has no rows is left out."""
        self.across()
        for name, columns in (*TABLES, ("consistency.csv", CONSISTENCY)):
            if self.rows[name]:
                yield name, columns, self.rows[name]

    def written_scores(self) -> str:
        """The rows of `scores.csv` for this study."""
        import pandas as pd

        whole = pd.concat(self.scores, ignore_index=True)
        return whole.to_csv(index=False, columns=list(SCORES), float_format="%.10g", lineterminator="\n")

    def across(self) -> None:
        """Does reliability here predict reliability there?"""
        if len(self.spec.datasets) < 2:
            return
        import pandas as pd

        question = "does a proxy's reliability on one data set predict it on another?"
        space = self.spec.search_space().name
        frame = pd.DataFrame(self.rows["consistency.csv"])
        ends = ["tau", "tau_low", "tau_high"]
        usable = frame[frame[ends].abs().lt(1).all(axis=1) & frame["kind"].ne("baseline")]
        usable = usable.assign(alike=usable["econas"].where(usable["econas"].ne(""), usable["proxy"]))
        rng = np.random.default_rng([self.spec.seed0, 11])
        for here, there in itertools.combinations(self.spec.datasets, 2):
            try:
                found = transfer.transfer(usable, here, there, match=("alike",), rng=rng)
            except BadInput as error:
                self.answer(f"{here}, {there}", question, f"cannot be said: {error}")
                continue
            self.rows["transfer.csv"].append({
                "space": space, "here": here, "there": there, **ends_of("rank", found.rank),
                **ends_of("linear", found.linear), "reachable": found.reachable, "slope": found.slope,
                "intercept": found.intercept, "off_by": found.off_by, "proxies": len(found.proxies),
            })  # fmt: skip
            self.answer(f"{here}, {there}", question, str(found))
        try:
            for row in transfer.matrix(self.grids).to_dict("records"):
                self.rows["transfer_matrix.csv"].append({"space": space, **{str(k): v for k, v in row.items()}})
        except BadInput as error:
            self.answer(", ".join(self.spec.datasets), "can a proxy be chosen elsewhere?", f"cannot be said: {error}")

    def answer(self, dataset: str, question: str, said: str) -> None:
        """A sentence for the report."""
        self.rows["answers.csv"].append(
            {"space": self.spec.search_space().name, "dataset": dataset, "question": question, "answer": said}
        )


TABLES: tuple[tuple[str, Sequence[str]], ...] = (
    ("comparisons.csv", COMPARISONS), ("factors.csv", FACTORS), ("claims.csv", CLAIMS), ("power.csv", POWER),
    ("front.csv", FRONT), ("recommendations.csv", RECOMMENDATIONS), ("strategies.csv", STRATEGIES),
    ("transfer.csv", TRANSFER), ("transfer_matrix.csv", MATRIX), ("answers.csv", ANSWERS),
)  # fmt: skip


class DataSetFindings:
    """The questions on one data set."""

    def __init__(
        self, study: Study, spec: StudySpec, measured: Sequence[MeasuredGroup], consistency: Sequence[Row],
        rows: Mapping[str, list[Row]],
    ) -> None:  # fmt: skip
        self.study, self.spec, self.out = study, spec, rows
        self.place = {"space": study.problem.space.name, "dataset": study.problem.dataset}
        self.by_name = {str(row["proxy"]): row for row in consistency}
        whole = [one for one in measured if len(one.rows) == len(study.archs)]
        self.measured = whole[0] if whole else None
        self.truth = study.truth.mean(axis=0)
        self.rankings = tuple(one for one in (self.measured.rankings if self.measured else ()) if rankable(one))
        self.errors: dict[str, npt.ArrayLike] = {one.name: one.errors[0] for one in self.rankings}

    def ask(self) -> None:
        """Everything; what cannot be answered says why."""
        questions: tuple[tuple[str, Callable[[], None]], ...] = (
            ("which of two proxies is better?", self.comparisons),
            ("which factor should be cut first?", self.factors),
            ("do EcoNAS's claims hold here?", self.claims),
            ("how many networks tell two proxies apart?", self.power),
            ("which proxy is the cheapest that will do?", self.front),
            ("which stages and survivors?", self.strategies),
        )
        for question, answered in questions:
            try:
                if not rankable(self.study.full) or self.measured is None:
                    raise BadInput("full training ranks nothing here, or no proxy ranks all networks")
                answered()
            except BadInput as error:
                self.answer(question, f"cannot be said: {error}")

    def answer(self, question: str, said: str) -> None:
        """A sentence for the report."""
        self.out["answers.csv"].append({**self.place, "question": question, "answer": said})

    def add(self, name: str, **row: object) -> None:
        """A line of a file."""
        self.out[name].append({**self.place, **row})

    def comparisons(self) -> None:
        """Paired differences from the shared draws, Holm over all of them."""
        assert self.measured is not None
        draws = self.measured.draws
        assert draws is not None
        numbers = {one.name: i for i, one in enumerate(self.measured.rankings) if one.name in self.errors}
        if len(numbers) < 2:
            raise BadInput(f"a comparison needs at least 2 proxies, not {len(numbers)}")
        reference = self.spec.reference
        if reference is not None and reference not in numbers:
            raise BadInput(f"no proxy {reference!r} to compare with; {nearest(reference, numbers)}")
        pairs = list(itertools.combinations(numbers, 2)) if reference is None else [
            (name, reference) for name in numbers if name != reference
        ]  # fmt: skip
        gains = [draws.difference(numbers[a], numbers[b]) for a, b in pairs]
        p = [p_value(gain) for gain in gains]
        adjusted = holm(p)
        found = 0
        for (a, b), gain, single, family in zip(pairs, gains, p, adjusted, strict=True):
            better = "" if family >= 1 - gain.level else a if gain.value > 0 else b
            found += bool(better)
            self.add(
                "comparisons.csv", a=a, b=b, tau_a=draws.values[numbers[a], TAU], tau_b=draws.values[numbers[b], TAU],
                **ends_of("gain", gain), p=single, p_holm=family, better=better, n=gain.n, draws=gain.draws,
            )  # fmt: skip
        best = max(numbers, key=lambda name: draws.values[numbers[name], TAU])
        rivals = [
            b if a == best else a for (a, b), family in zip(pairs, adjusted, strict=True)
            if best in (a, b) and family >= 0.05
        ]  # fmt: skip
        told = (
            f"{found} of {len(pairs)} differences are found (Holm, 5 % over all of them). The highest tau is {best}'s"
        )
        more = f"; {listed(rivals)} cannot be told from it" if rivals else ", higher than all it was compared with"
        self.answer("which of two proxies is better?", f"{told}{more}.")

    def families(self) -> Iterator[tuple[str, dict[str, npt.ArrayLike], dict[str, Proxy], dict[str, float]]]:
        """Proxies whose epochs mean the same: schedules of their own, and stages of longer ones.

        Yields:
            Name, errors, settings (of a stage with as many epochs as it was trained), seconds.
        """
        kinds = {"schedules": (SCHEDULE,), "stages": (STAGE, SCHEDULE)}
        staged = {one.proxy for one in self.rankings if one.kind == STAGE}
        uncertain = [one for one in self.rankings if abs(number(self.by_name[one.name]["tau"])) < 1 - 1e-9]
        for family, kind in kinds.items():
            mine = [one for one in uncertain if one.kind in kind and (family == "schedules" or one.proxy in staged)]
            distinct: dict[Proxy, Ranking] = {}
            for one in mine:
                assert one.as_proxy is not None
                distinct.setdefault(one.as_proxy, one)
            named = {one.name: proxy for proxy, one in distinct.items()}
            if len(named) >= 2:
                paid = {one.name: mean_cost(one.device_s) for one in distinct.values()}
                yield family, {name: self.errors[name] for name in named}, named, paid

    def factors(self) -> None:
        """The factorial model, by theoretical cost and by measured seconds."""
        said = []
        reason = "no proxies that differ in one factor at least"
        for family, errors, settings, seconds in self.families():
            for basis, costs in (("theoretical", None), ("seconds", seconds)):
                try:
                    found = factors.effects(errors, self.truth, settings, costs=costs)
                except BadInput as error:
                    reason = str(error)
                    continue
                for effect in found.effects:
                    self.add(
                        "factors.csv", family=family, cost=basis, factor=effect.factor, p=effect.p,
                        **ends_of("slope", effect.slope), exponent=effect.exponent, **ends_of("loss", effect.loss),
                        r_squared=found.r_squared, n=found.n, proxies=found.proxies,
                    )  # fmt: skip
                said.append(f"By {basis} cost ({family}): {found.answer()}.")
        if not said:
            raise BadInput(reason)
        self.answer("which factor should be cut first?", " ".join(said))

    def claims(self) -> None:
        """EcoNAS's claims with their verdicts."""
        said = []
        draws = 1000 if len(self.truth) <= 2000 else 200
        for family, errors, settings, _ in self.families():
            rng = np.random.default_rng([self.spec.seed0, 5])
            for claim in claims.claims(errors, self.truth, settings, rng=rng, draws=draws):
                self.add(
                    "claims.csv", family=family, claim=claim.name, statement=claim.statement, verdict=claim.verdict,
                    value=claim.value, low=claim.low, high=claim.high, measured=claim.measured,
                    pairs="; ".join(f"{a} / {b}" for a, b in claim.pairs), n=claim.n,
                )  # fmt: skip
                said.append(f"{claim} ({family}).")
        if not said:
            raise BadInput("fewer than two proxies are trainings")
        self.answer("do EcoNAS's claims hold here?", " ".join(said))

    def power(self) -> None:
        """Networks that neighbours in the order of tau would take."""
        taus = {name: number(self.by_name[name]["tau"]) for name in self.errors}
        order = sorted(taus, key=lambda name: -taus[name])
        if len(order) < 2:
            raise BadInput("there is one proxy only")
        needed = []
        for a, b in itertools.pairwise(order):
            try:
                found = power.pilot(self.errors[a], self.errors[b], self.truth)
                small = power.networks_needed(found, difference=MATTERS)
            except BadInput:
                continue  # they rank alike
            try:
                own = float(power.networks_needed(found))
            except BadInput:
                own = math.inf
            needed.append(small)
            self.add(
                "power.csv", a=a, b=b, difference=found.difference, networks=own, networks_for_0_05=small, n=found.n
            )
        if not needed:
            raise BadInput("all neighbours in the order of tau rank alike")
        low, high, middle = min(needed), max(needed), int(np.median(needed))
        self.answer(
            "how many networks tell two proxies apart?",
            f"To find a difference of {MATTERS} in tau with a chance of 80 % takes {middle:,} networks for the median "
            f"pair of neighbours ({low:,} to {high:,}); this study has {len(self.truth):,}.",
        )

    def front(self) -> None:
        """Reliability against seconds, and the cheapest that reaches a tau."""
        import pandas as pd

        full_s = mean_cost(self.study.full.device_s)
        paid = {one.name: mean_cost(one.device_s) for one in self.rankings}
        able = [one for one in self.rankings if 0 < paid[one.name] <= full_s]
        if not able:
            raise BadInput("no proxy has a cost in seconds, up to that of full training")
        rows = [self.by_name[one.name] for one in able]
        errors = {one.name: self.errors[one.name] for one in able}
        flags = strategy.front([paid[one.name] for one in able], [number(row["tau"]) for row in rows])
        beaten = strategy.separable_front(errors, self.truth, {**paid, FULL: full_s})
        for one, row, flag in zip(able, rows, flags, strict=True):
            self.add(
                "front.csv", proxy=one.name, kind=one.kind, device_s=paid[one.name],
                **{end: row[end] for end in ("tau", "tau_low", "tau_high")}, front=int(flag),
                beaten_by=beaten[one.name],
            )  # fmt: skip
        frame = pd.DataFrame(rows)
        frame = frame[frame[["tau", "tau_low", "tau_high"]].notna().all(axis=1)]
        said = []
        for reach in self.spec.reach or REACH:
            name = strategy.cheapest(frame, reach)
            row = self.by_name[name] if name else {}
            self.add(
                "recommendations.csv", reach=reach, proxy=name or "none", **{key: row.get(key) for key in (
                    "econas", "tau", "tau_low", "device_s", "speedup_device", "speedup_macs")},
            )  # fmt: skip
            if name:
                said.append(f"for tau of at least {reach:g} {name} ({number(row['speedup_device']):.3g} times cheaper)")
        none = "no proxy is known to reach any of the taus asked for"
        self.answer(
            "which proxy is the cheapest that will do?",
            f"With lower ends that hold for all proxies at once: {'; '.join(said) or none}. {int(sum(flags))} of "
            f"{len(able)} are on the front of tau against seconds; {sum(not b for b in beaten.values())} are not known "
            "to be beaten by one that costs no more.",
        )

    def strategies(self) -> None:
        """Stages and survivors for some budgets, simulated on the recorded answers."""
        full_s = mean_cost(self.study.full.device_s)
        if not full_s:
            raise BadInput("full training has no cost in seconds")
        rows = np.arange(len(self.truth))
        if len(rows) > SIMULATED_UP_TO:
            rows = np.random.default_rng([self.spec.seed0, 3]).choice(rows, SIMULATED_UP_TO, replace=False)
        said, reason = [], "no two stages that rise in cost"
        for over, stages in self.sequences(full_s):
            seconds = np.array([cost for _, cost in stages])
            curves = np.column_stack([np.asarray(self.errors[name])[rows] for name, _ in stages])
            names = [name for name, _ in stages]
            for budget in self.spec.budgets or BUDGETS:
                try:
                    advice = strategy.recommend(
                        curves, self.truth[rows], seconds, budget * full_s, keep=(1 / 2, 1 / 4), splits=20, draws=40,
                        rng=np.random.default_rng([self.spec.seed0, 13]),
                    )  # fmt: skip
                except BadInput as error:
                    reason = str(error)
                    continue
                worded = in_words(advice.strategy, names)
                again = advice.chosen.get(str(advice.strategy), 0) / sum(advice.chosen.values())
                self.add(
                    "strategies.csv", over=over, budget=budget, budget_s=budget * full_s, strategy=worded,
                    cost_s=advice.cost, **ends_of("regret", advice.regret), flat=in_words(advice.flat, names),
                    flat_regret=advice.flat_regret.value, flat_low=advice.flat_regret.low,
                    flat_high=advice.flat_regret.high, **ends_of("saved", advice.saved), pool=advice.pool,
                    chosen_again=again, n=len(rows),
                )  # fmt: skip
                told = "better than" if advice.saved.low > 0 else "not told apart from"
                said.append(
                    f"For {budget:g} full trainings ({over}): {worded}, expected regret {advice.regret.value:.2f} "
                    f"points, {told} the best flat choice ({advice.flat_regret.value:.2f})."
                )
        if not said:
            raise BadInput(reason)
        self.answer("which stages and survivors?", " ".join(said))

    def sequences(self, full_s: float) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Stages that can follow one another, with their cumulative seconds: of the best run, and proxies in turn."""
        by_run: dict[Proxy, list[Ranking]] = {}
        for one in self.rankings:
            if one.proxy is not None and one.kind in (STAGE, SCHEDULE):
                by_run.setdefault(one.proxy, []).append(one)

        def tau(one: Ranking) -> float:
            return number(self.by_name[one.name]["tau"])

        staged = [of_run for of_run in by_run.values() if len(of_run) > 1]
        if staged:
            best = max(staged, key=lambda of_run: max(map(tau, of_run)))
            chosen = [best[round(i)] for i in np.linspace(0, len(best) - 1, min(MOST_STAGES, len(best)))]
            stages = [(one.name, mean_cost(one.device_s)) for one in chosen]
            if rising([cost for _, cost in stages]):
                yield f"stages of {best[0].proxy}", stages
        once = (SCHEDULE, ZERO_COST)  # stages of one run would be paid twice
        paid = [one for one in self.rankings if one.kind in once and 0 < mean_cost(one.device_s) <= full_s]
        if len(paid) > 1:
            flags = strategy.front([mean_cost(one.device_s) for one in paid], [tau(one) for one in paid])
            front = sorted(itertools.compress(paid, flags), key=lambda one: mean_cost(one.device_s))
            chosen = [front[round(i)] for i in np.linspace(0, len(front) - 1, min(MOST_STAGES, len(front)))]
            if len(chosen) > 1:
                sums = np.cumsum([mean_cost(one.device_s) for one in chosen]).tolist()
                yield "proxies in turn", [(one.name, cost) for one, cost in zip(chosen, sums, strict=True)]


def rankable(one: Ranking) -> bool:
    """Whether a ranking puts at least 3 networks, all it was asked for, into an order."""
    try:
        column(one.name, one.errors[0])
    except BadInput:
        return False
    return True


def rising(costs: Sequence[float]) -> bool:
    """Whether each stage costs more than the one before it."""
    return costs[0] > 0 and all(a < b for a, b in itertools.pairwise(costs))


def in_words(chosen: strategy.Strategy, names: Sequence[str]) -> str:
    """A strategy with the names of its stages."""
    return ", then ".join(
        f"{many} at {names[stage]}" for stage, many in zip(chosen.stages, chosen.survivors, strict=True)
    )


def listed(names: Sequence[str], limit: int = 4) -> str:
    """Several names joined into part of a sentence."""
    shown = list(names) if len(names) <= limit else [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def ends_of(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three columns."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def number(value: object) -> float:
    """A cell as a number."""
    return float(value) if isinstance(value, int | float) else math.nan
