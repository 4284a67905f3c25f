"""Every measure of many proxies on the same bootstrap draws: what a study of a large grid takes.

`suite.statistics.bootstrap.bootstrap` draws anew for each proxy. Here a block of draws, 32 side by side, is drawn once
and all proxies are ranked on it, so that differences of proxies come from the same draws, and a run of the Fenwick tree
gives tau-b, the weighted tau and Spearman together. Measures and intervals are those of `suite.statistics.measures`;
tests hold the two together draw by draw.

Seeds are drawn too, where there are several: they are shared by all networks (a seed decides which images, in which
order), so another seed moves all networks at once, and a bootstrap over networks alone does not see it. Blocks of draws
take turns with what can be drawn from the seeds, each as often as it is likely. What each network's own noise under a
seed adds is then counted twice, as by any bootstrap of crossed factors; the intervals of the correlations take it off
again (`of_seeds`), those of the other measures and of differences are the wider for it.

Source: bootstrap of crossed factors: Owen, "The Pigeonhole Bootstrap", Annals of Applied Statistics 1(2), 2007.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.machine_code import compiled
from suite.statistics.bootstrap import (
    EXCESS_UP_TO,
    Interval,
    excess_of,
    fisher_limits,
    multiplicities,
    percentile_limits,
    variance_of,
)
from suite.statistics.measures import MEASURES, ON_FISHERS_SCALE
from suite.statistics.paired import difference
from suite.statistics.ranking import Pair, linear_kernel

Floats: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[Any]

LANES = 64
"""Number of draws that are ranked side by side."""
BUCKET = 128
"""True ranks looked at together."""
NAMES = tuple(MEASURES)
"""Order of the measures in all arrays."""
TAU, TAU_A, TAU_C, WEIGHTED, SPEARMAN, OVERLAP, BEST, TOP, REGRET = range(len(NAMES))
FRACTION, K, K_REGRET = 0.1, 10, 1
MOST_LABELS = 32
"""Draws of the seeds that are looked at for what they add to a variance."""
MOST_NETWORKS = 30_000
"""Weights and their sums fit 16 bits up to here."""
_compiled = functools.cache(functools.partial(compiled, fastmath={"contract"}))


@dataclass(frozen=True)
class Draws:
    """Measures of the sample and of its draws."""

    values: Floats  # (proxies, measures)
    replicates: Floats  # (proxies, measures, draws)
    variances: Floats  # (proxies, measures): over networks, and what seeds add beyond the noise of single networks
    excess: Floats  # (proxies, 3): of tau, tau_a, tau_c, see `suite.statistics.measures`
    errors: tuple[Floats, ...]  # of each proxy (seeds, n)
    truth: Floats  # (seeds, n)
    level: float
    kernels: dict[int, Floats] = field(default_factory=dict, repr=False)  # made when first asked for

    @property
    def n(self) -> int:
        """Number of networks in the sample."""
        return int(self.truth.shape[1])

    @property
    def count(self) -> int:
        """Number of bootstrap draws made."""
        return int(self.replicates.shape[2])

    def interval(self, proxy: int, measure: str) -> Interval:
        """As `suite.statistics.bootstrap.bootstrap` makes it, from these draws."""
        m = NAMES.index(measure)
        value, n = float(self.values[proxy, m]), self.n
        if m <= TAU_C:
            variance, excess = float(self.variances[proxy, m]), float(self.excess[proxy, m])
            ends = fisher_limits(value, variance, self.ranks, self.level, excess)
        elif measure in ON_FISHERS_SCALE:
            ends = fisher_limits(value, float(self.variances[proxy, m]), self.ranks, self.level)
        else:
            ends = percentile_limits(value, self.replicates[proxy, m], n, self.level)
        return Interval(value, *ends, self.level, self.count, n)

    def difference(self, a: int, b: int) -> Interval:
        """By how much proxy a ranks better than proxy b, in tau-b: as `measures.compare`, from these draws."""
        value = float(self.values[a, TAU] - self.values[b, TAU])
        drawn = self.replicates[a, TAU] - self.replicates[b, TAU]
        excess = 0.0
        if self.n <= EXCESS_UP_TO:
            excess = excess_of(self.n, [lambda: self.linear(a) - self.linear(b)])
        return difference(value, drawn, self.ranks, self.level, excess)

    @functools.cached_property
    def ranks(self) -> npt.NDArray[np.intp]:
        """Rank of each network by truth, equal ones together, shape (n,)."""
        return np.unique(self.truth.mean(axis=0), return_inverse=True)[1]

    def linear(self, proxy: int) -> Floats:
        """Each ordered pair's share of tau-b, to first order, mean over the proxy's seeds, shape (n, n)."""
        if proxy not in self.kernels:
            truth = self.truth.mean(axis=0)
            kernels = [linear_kernel(Pair(errors, truth), "b")() for errors in self.errors[proxy]]
            self.kernels[proxy] = np.asarray(np.mean(kernels, axis=0))
        return self.kernels[proxy]


def resample(
    errors: Sequence[npt.ArrayLike], truth: npt.ArrayLike, *, draws: int = 10_000, rng: np.random.Generator,
    level: float = 0.95, threads: int | None = None,
) -> Draws:  # fmt: skip
    """All measures of all proxies, on the same draws of networks and of seeds.

    A measure of a proxy with several seeds is the mean over them; a draw takes as many seeds, with replacement. The
    truth is the mean over its seeds, in a draw over as many seeds drawn with replacement. All proxies of as many seeds
    take the same ones.

    Args:
        errors: Of each proxy, shape (n,) or (seeds, n) [%]; inf for a failed training.
        truth: After full training, shape (n,) or (seeds, n) [%]; inf for a failed training.
        draws: At least 2.
        rng: Source of the draws; the same state gives the same draws whatever the number of threads.
        level: Nominal coverage of the intervals, in (0, 1).
        threads: That share the blocks of draws; None: as many as there are cores.

    Raises:
        ValueError: Shapes differ, n < 2, a NaN, draws or level out of range.

    >>> truth = np.arange(50.0)
    >>> found = resample([truth + 9 * np.sin(truth)], truth, draws=1000, rng=np.random.default_rng(0))
    >>> tau = found.interval(0, "tau")
    >>> print(f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]")
    0.73 [0.70, 0.77]
    """
    columns = tuple(np.atleast_2d(np.asarray(column, float)) for column in errors)
    runs = np.atleast_2d(np.asarray(truth, float))
    n = runs.shape[1]
    for place, column in enumerate((*columns, runs)):
        name = f"proxy {place}" if place < len(columns) else "truth"
        if column.ndim != 2 or column.shape[1] != n:
            raise ValueError(f"{name} must have shape (seeds, {n}), not {column.shape}")
        if np.isnan(column).any():
            raise ValueError(f"{name} has {int(np.isnan(column).sum())} NaN; a failed training is inf")
    if n < 2:
        raise ValueError(f"a ranking needs at least n = 2 architectures, not n = {n}")
    if draws < 2 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 2 and level in (0, 1), not {draws} and {level}")
    if n > MOST_NETWORKS:
        raise ValueError(f"at most {MOST_NETWORKS:,} architectures, not {n:,}")
    whole = runs.mean(axis=0)

    def ranked(errors: Floats) -> tuple[_Truth, list[list[_Ranks]]]:
        """Every seed of every proxy beside these true errors."""
        best_first = _Truth.of(errors)
        return best_first, [[_Ranks.of(x, best_first) for x in column] for column in columns]

    judge, rankings_of_all = ranked(whole)
    sample = _Weighted.of(np.ones((n, LANES), np.int16), judge)  # also compiles, once, before there are threads
    values = np.array([seeds_mean([measured(ranks, sample)[:, 0] for ranks in of_one]) for of_one in rankings_of_all])
    excess = np.array([
        [_excess_of(column, whole, variant) for variant in "bac"] if 4 <= n <= EXCESS_UP_TO else [0.0] * 3
        for column in columns
    ])  # fmt: skip
    blocks = -(-draws // LANES)
    seeds = rng.integers(2**63, size=blocks).tolist()
    labels = list(drawn_labels(blocks, runs.shape[0], sorted({len(column) for column in columns}), rng))
    replicates = np.empty((len(columns), len(NAMES), blocks * LANES))
    seeded = runs.shape[0] > 1 or max(map(len, columns), default=1) > 1
    steady = np.empty_like(replicates) if seeded else replicates  # the same networks, all seeds
    drawn = {of_truth for of_truth, _ in labels}  # every ranking that is needed, once
    by_truth = {of_truth: ranked(runs[list(of_truth)].mean(axis=0)) for of_truth in sorted(drawn)}

    def block(number: int) -> None:
        of_truth, of_proxy = labels[number]
        best_first, rankings = by_truth[of_truth]
        weighted = _Weighted.of(
            multiplicities(n, LANES, np.random.Generator(np.random.SFC64(seeds[number]))), best_first
        )
        for place, of_one in enumerate(rankings):
            chosen = of_proxy[len(of_one)]
            found = [measured(of_one[seed], weighted) for seed in sorted(set(chosen))]
            shares = [chosen.count(seed) for seed in sorted(set(chosen))]
            replicates[place, :, number * LANES : (number + 1) * LANES] = seeds_mean(found, shares)
        if seeded:
            weighted = _Weighted.of(weighted.w, judge)
            for place, of_one in enumerate(rankings_of_all):
                found = [measured(ranks, weighted) for ranks in of_one]
                steady[place, :, number * LANES : (number + 1) * LANES] = seeds_mean(found)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        list(pool.map(block, range(blocks)))
    variances = np.apply_along_axis(variance_of, 2, steady[:, :, :draws])
    if seeded:
        variances = variances + of_seeds(columns, runs, labels[:MOST_LABELS], sample.w, rng)
    return Draws(values, replicates[:, :, :draws], variances, excess, columns, runs, level)


def of_seeds(
    columns: Sequence[Floats], runs: Floats, labels: Sequence[tuple[tuple[int, ...], dict[int, tuple[int, ...]]]],
    whole: Array, rng: np.random.Generator,
) -> Floats:  # fmt: skip
    """The variance that seeds add to each measure beyond the noise of single networks, shape (proxies, measures).

    A network's own noise under a seed is already in the draws of networks; drawing seeds counts it again. Only what is
    common to networks, which moves a measure under a seed more than noise would, has to come on top. So: the variance
    between what can be drawn from the seeds, less the same after seeds were shuffled within each network, afresh for
    everything drawn.
    """
    found = np.empty((2, len(labels), len(columns), len(NAMES)))
    for number, (of_truth, of_proxy) in enumerate(labels):
        for shuffled in (0, 1):
            judges, seen = (runs, columns) if not shuffled else (
                rng.permuted(runs, axis=0), [rng.permuted(column, axis=0) for column in columns]
            )  # fmt: skip
            best_first = _Truth.of(judges[list(of_truth)].mean(axis=0))
            weighted = _Weighted.of(whole, best_first)
            for place, column in enumerate(seen):
                chosen = of_proxy[len(column)]
                taus = [measured(_Ranks.of(column[seed], best_first), weighted)[:, 0] for seed in sorted(set(chosen))]
                found[shuffled, number, place] = seeds_mean(taus, [chosen.count(seed) for seed in sorted(set(chosen))])
    real, noise = (np.apply_along_axis(variance_of, 0, one) for one in found)
    more: Floats = np.nan_to_num(np.maximum(real - noise, 0.0))
    return more


def seeds_mean(found: Sequence[Floats], shares: Sequence[int] | None = None) -> Floats:
    """Mean over the seeds, weighted by how often each was drawn."""
    if len(found) == 1:
        return found[0]
    return np.asarray(np.average(np.stack(found), axis=0, weights=shares))


def drawn_labels(
    blocks: int, of_truth: int, of_proxies: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[tuple[int, ...], dict[int, tuple[int, ...]]]]:
    """For each block of draws the seeds of the truth, and those of proxies that have so many."""
    for number, turn in enumerate(
        zip(*(balanced(blocks, count, rng) for count in (of_truth, *of_proxies)), strict=True)
    ):
        assert number < blocks
        yield turn[0], dict(zip(of_proxies, turn[1:], strict=True))


def balanced(blocks: int, seeds: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draws of `seeds` seeds with replacement, one a block, each as often as it is likely, in random order."""
    if seeds == 1:
        return [(0,)] * blocks
    if seeds > 6:  # too many to enumerate
        return [tuple(sorted(rng.integers(0, seeds, seeds).tolist())) for _ in range(blocks)]
    kinds = list(itertools.combinations_with_replacement(range(seeds), seeds))
    ways = [math.factorial(seeds) / math.prod(math.factorial(kind.count(s)) for s in range(seeds)) for kind in kinds]
    ends = np.cumsum(ways) / np.sum(ways)
    places = (np.arange(blocks) + rng.random()) / blocks
    chosen = np.minimum(np.searchsorted(ends, places), len(kinds) - 1)
    return [kinds[i] for i in rng.permutation(chosen)]


def _excess_of(column: Floats, truth: Floats, variant: str) -> float:
    return excess_of(
        len(truth), [lambda: np.asarray(np.mean([linear_kernel(Pair(x, truth), variant)() for x in column], 0))]
    )


@dataclass(frozen=True)
class _Truth:
    """True errors, ranked once for all proxies."""

    ranks: Array  # (n,): rank of each architecture, 0 the best
    levels: Floats  # (distinct,): error [%], best first

    @classmethod
    def of(cls, errors: Floats) -> _Truth:
        levels, ranks = np.unique(errors, return_inverse=True)
        return cls(ranks.astype(np.int32), levels)


@dataclass(frozen=True)
class _Weighted:
    """Draws of architectures, and what they are under one truth: the same for all proxies."""

    w: Array  # (n, LANES): how often each draw holds each architecture
    at: Array  # (distinct truths, LANES): weight of each true rank
    before: Array  # (distinct truths, LANES): weight of the better ones
    tied: Floats  # (LANES,): sum of squares of `at`
    squares: Floats  # (LANES,): sum of squares of `w`
    best: Array  # (LANES,): best true rank that is drawn
    ranked: Floats  # (LANES,): sum of (twice the mean rank's distance to the middle) squared
    weight: Floats  # (LANES,): sum over true ranks of their 1 / rank times their weight

    @classmethod
    def of(cls, w: Array, truth: _Truth) -> _Weighted:
        shape = (len(truth.levels), LANES)
        found = cls(w, np.zeros(shape, np.int16), np.zeros(shape, np.int16), np.zeros(LANES), np.zeros(LANES),
                    np.full(LANES, len(truth.levels) - 1), np.zeros(LANES), np.zeros(LANES))  # fmt: skip
        _compiled(_weigh)(w, truth.ranks, harmonic(len(w)), found.at, found.before, found.tied, found.squares,
                          found.best, found.ranked, found.weight)  # fmt: skip
        return found


@dataclass(frozen=True)
class _Ranks:
    """One proxy and one truth on the same architectures, ranked for all draws.

    Architectures that are equal under both are one cell: no measure tells them apart. Cells stand from best to worst
    under the proxy, equals from best to worst by truth; groups are cells that are equal under the proxy. Buckets hold
    BUCKET true ranks each; what is asked of a tree over all ranks is asked of one over buckets and of one inside a
    bucket, both small enough for a core's first cache.
    """

    truth: _Truth
    cells: Array  # (n,): the cell of each architecture
    ends: Array  # (groups,): behind each group's last cell
    ranks: Array  # (cells,): rank by truth
    order: Array  # (cells,): by bucket, then from best to worst under the proxy
    runs: Array  # (runs + 1,): where in `order` the bucket or the group changes
    single: bool  # every architecture is a cell

    @classmethod
    def of(cls, errors: Floats, truth: _Truth) -> _Ranks:
        x, m = np.unique(errors, return_inverse=True)[1], len(truth.levels)
        pairs, cells = np.unique(x * m + truth.ranks, return_inverse=True)
        group, rank = pairs // m, pairs % m
        ends = np.append(np.flatnonzero(np.diff(group)) + 1, len(pairs))
        bucket = rank // BUCKET
        order = np.argsort(bucket, kind="stable")
        changes = (np.diff(bucket[order]) != 0) | (np.diff(group[order]) != 0)
        runs = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(pairs)]])
        cell, end, by_truth, by_bucket, starts = (np.asarray(a, np.int32) for a in (cells, ends, rank, order, runs))
        return cls(truth, cell, end, by_truth, by_bucket, starts, single=len(pairs) == len(x))


def measured(ranks: _Ranks, weighted: _Weighted) -> Floats:
    """All measures of each draw, shape (measures, LANES); nan where a draw cannot be ranked."""
    n, m, count, groups = len(ranks.cells), len(ranks.truth.levels), len(ranks.ranks), len(ranks.ends)
    found = np.full((len(NAMES), LANES), np.nan)
    if groups < 2 or m < 2:
        return found
    at = np.empty((count, LANES), np.int16)
    _compiled(_gather)(weighted.w, ranks.cells, ranks.single, at)
    ahead, below = np.empty((count, LANES), np.int16), np.empty((count, LANES), np.int16)
    tied = groups < count
    inside, here = (np.empty((count if tied else 1, LANES), np.int16) for _ in range(2))
    sums = np.zeros((9, LANES))
    ladder = harmonic(n)
    _compiled(_across)(at, ranks.ends, ranks.ranks, tied, ladder, ahead, inside, here, below, sums, -(-m // BUCKET))
    _compiled(_within)(at, ranks.order, ranks.runs, ranks.ranks, tied, ahead, inside, here, below, weighted.at,
                       weighted.before, ladder, n, sums)  # fmt: skip
    every = float(n) ** 2
    in_x, in_y = every - sums[0], every - weighted.tied
    with np.errstate(divide="ignore", invalid="ignore"):
        found[TAU] = sums[1] / np.sqrt(in_x * in_y)
        found[TAU_A] = sums[1] / (every - weighted.squares)
        distinct = min(groups, m)
        found[TAU_C] = found[TAU_A] * ((n - 1) / n * distinct / max(distinct - 1, 1))
        whole = float(n) * ladder[n]  # of 1 / rank, which sum up to the same in each draw, times all
        by_proxy = sums[4] / np.sqrt((whole - sums[2]) * (whole - sums[5]))
        by_truth = sums[6] / np.sqrt((whole - sums[7]) * (whole - weighted.weight))
        found[WEIGHTED] = (by_proxy + by_truth) / 2
        found[SPEARMAN] = sums[8] / np.sqrt(sums[3] * weighted.ranked)
    seats = math.ceil(round(FRACTION * n, 9))
    overlap = np.zeros(LANES)
    _compiled(_overlap)(at, ranks.ends, ranks.ranks, weighted.at, weighted.before, seats, overlap)
    found[OVERLAP] = overlap / seats
    best = np.empty((2, LANES), np.int64)
    _compiled(_best)(at, ranks.ends, ranks.ranks, K, K_REGRET, m, best)
    found[BEST] = weighted.before[best[0], np.arange(LANES)] + 1.0
    with np.errstate(invalid="ignore"):  # inf - inf: every training failed
        found[REGRET] = ranks.truth.levels[best[1]] - ranks.truth.levels[weighted.best]
    found[TOP] = _in_top(ranks, at, weighted, math.floor(round(FRACTION * n, 9)))
    found[:, (in_x <= 0) | (in_y <= 0)] = np.nan
    return found


def _in_top(ranks: _Ranks, at: Array, weighted: _Weighted, seats: int) -> Floats:
    """tau-b among the truly best, those of a tie astride the border with equal shares."""
    if seats < 2:
        return np.full(LANES, np.nan)
    levels = int(np.count_nonzero((weighted.before < seats).any(axis=1)))
    rows = np.flatnonzero(ranks.ranks < levels).astype(np.int32)
    groups = np.searchsorted(ranks.ends, rows, side="right")
    ends = np.append(np.flatnonzero(np.diff(groups)) + 1, len(rows)).astype(np.int32)
    sums = np.zeros((4, LANES))
    tree, by_truth = np.zeros((levels + 1, LANES), np.float32), np.zeros((levels, LANES), np.float32)
    _compiled(_top_sweep)(at, rows, ends, ranks.ranks, weighted.at, weighted.before, seats, tree, by_truth, sums)
    every = sums[3] ** 2
    in_x, in_y = (np.where(every - tied > 1e-6 * every, every - tied, 0.0) for tied in (sums[1], sums[2]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(in_x * in_y > 0, sums[0] / np.sqrt(in_x * in_y), np.nan)


@functools.lru_cache(maxsize=4)
def harmonic(n: int) -> npt.NDArray[np.float32]:
    """Sums of 1 / rank up to each rank, shape (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))]).astype(np.float32)


def _weigh(
    w: Array, ranks: Array, harmonic: Array, at: Array, before: Array, tied: Array, squares: Array, best: Array,
    ranked: Array, weight: Array,
) -> None:  # fmt: skip
    lanes = at.shape[1]  # not a constant: else loops are unrolled instead of made vector instructions
    for i in range(len(ranks)):
        rank = ranks[i]
        for d in range(lanes):
            at[rank, d] += w[i, d]
        for d in range(lanes):
            squares[d] += np.int32(w[i, d]) * np.int32(w[i, d])
    through = np.zeros(LANES, np.int16)
    for rank in range(len(at)):
        for d in range(lanes):
            before[rank, d] = through[d]
            through[d] += at[rank, d]
        for d in range(lanes):
            tied[d] += np.int32(at[rank, d]) * np.int32(at[rank, d])
        for d in range(lanes):
            if at[rank, d] > 0 and rank < best[d]:
                best[d] = rank
        for d in range(lanes):
            middle = np.float64(2 * np.int32(before[rank, d]) + np.int32(at[rank, d]) - len(w))
            ranked[d] += at[rank, d] * middle * middle
        for d in range(lanes):
            first = np.int32(before[rank, d])
            weight[d] += np.float32(at[rank, d]) * (harmonic[first + at[rank, d]] - harmonic[first])


def _gather(w: Array, cells: Array, single: bool, at: Array) -> None:
    """Add up the weight of each cell under every draw."""
    lanes = at.shape[1]
    if single:
        for i in range(len(cells)):
            cell = cells[i]
            for d in range(lanes):
                at[cell, d] = w[i, d]
    else:
        at[:] = 0
        for i in range(len(cells)):
            cell = cells[i]
            for d in range(lanes):
                at[cell, d] += w[i, d]


def _across(
    at: Array, ends: Array, ranks: Array, tied: bool, harmonic: Array, ahead: Array, inside: Array, here: Array,
    below: Array, sums: Array, buckets: int,
) -> None:  # fmt: skip
    """From best to worst under the proxy: who is ahead, and of these who lies in a better bucket by truth.

    Sums: 0 squared ties under the proxy, 2 their 1 / rank times weight, 3 their squared distances to the middle rank.
    """
    lanes = at.shape[1]
    tree = np.zeros((buckets + 1, lanes), np.int16)
    through, n = np.zeros(lanes, np.int16), 0
    for i in range(len(at)):
        n += at[i, 0]
    group, so_far = np.zeros(lanes, np.int16), np.zeros(lanes, np.int16)
    start = 0
    for end in ends:
        for d in range(lanes):
            group[d] = at[start, d]
        for i in range(start + 1, end):
            for d in range(lanes):
                group[d] += at[i, d]
        for i in range(start, end):
            node = ranks[i] // BUCKET
            for d in range(lanes):
                ahead[i, d] = through[d]
            for d in range(lanes):
                below[i, d] = 0
            while node > 0:
                for d in range(lanes):
                    below[i, d] += tree[node, d]
                node &= node - 1
        if tied:
            so_far[:] = 0
        for i in range(start, end):
            node = ranks[i] // BUCKET + 1
            while node <= buckets:
                for d in range(lanes):
                    tree[node, d] += at[i, d]
                node += node & -node
            if tied:
                for d in range(lanes):
                    here[i, d] = group[d]
                for d in range(lanes):
                    inside[i, d] = so_far[d]
                for d in range(lanes):
                    so_far[d] += at[i, d]
        for d in range(lanes):
            sums[0, d] += np.int32(group[d]) * np.int32(group[d])
        for d in range(lanes):
            first = np.int32(through[d])
            sums[2, d] += np.float32(group[d]) * (harmonic[first + group[d]] - harmonic[first])
        for d in range(lanes):
            middle = np.float32(2 * np.int32(through[d]) + np.int32(group[d]) - n)
            sums[3, d] += np.float32(group[d]) * middle * middle
        for d in range(lanes):
            through[d] += group[d]
        start = end


def _within(
    at: Array, order: Array, runs: Array, ranks: Array, tied: bool, ahead: Array, inside: Array, here: Array,
    below: Array, by_truth: Array, before: Array, harmonic: Array, n: int, sums: Array,
) -> None:  # fmt: skip
    """Bucket by bucket: who lies below inside it, and all that follows.

    Sums: 1 agreement; 4, 5 agreement and ties by truth times 1 / rank under the proxy; 6, 7 agreement and ties under
    the proxy times 1 / rank by truth; 8 product of the distances to the middle rank.
    """
    lanes = at.shape[1]
    tree, seen = np.zeros((BUCKET + 1, lanes), np.int16), np.zeros((BUCKET, lanes), np.int16)
    pairs, net = np.zeros(lanes, np.int32), np.zeros(lanes, np.int32)
    v, u = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    a, b, c = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    e, f = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    group, first = np.zeros(lanes, np.int16), np.zeros(lanes, np.int16)
    current = -1
    for run in range(len(runs) - 1):
        bucket = ranks[order[runs[run]]] // BUCKET
        if bucket != current:
            current = bucket
            tree[:] = 0
            seen[:] = 0
            for d in range(lanes):
                sums[1, d] += pairs[d]
                pairs[d] = 0
            for k, part in enumerate((a, b, c, e, f)):
                for d in range(lanes):
                    sums[4 + k, d] += part[d]
                    part[d] = 0
        for place in range(runs[run], runs[run + 1]):
            i = order[place]
            rank = ranks[i]
            local = rank - bucket * BUCKET
            node = local
            while node > 0:
                for d in range(lanes):
                    below[i, d] += tree[node, d]
                node &= node - 1
            if tied:
                for d in range(lanes):
                    group[d] = here[i, d]
                for d in range(lanes):
                    first[d] = inside[i, d]
            else:
                for d in range(lanes):
                    group[d] = at[i, d]
            for d in range(lanes):  # short loops, one result each: these become vector instructions
                net[d] = 4 * np.int32(below[i, d]) + np.int32(at[i, d]) - np.int32(group[d]) + n
            for d in range(lanes):
                net[d] += 2 * (np.int32(seen[local, d]) + np.int32(first[d]) - np.int32(ahead[i, d]))
            for d in range(lanes):
                net[d] -= 2 * np.int32(before[rank, d]) + np.int32(by_truth[rank, d])
            for d in range(lanes):
                pairs[d] += np.int32(at[i, d]) * net[d]
            for d in range(lanes):
                rung = np.int32(ahead[i, d]) + np.int32(first[d])
                v[d] = harmonic[rung + np.int32(at[i, d])] - harmonic[rung]
            for d in range(lanes):
                rung = np.int32(before[rank, d]) + np.int32(seen[local, d])
                u[d] = harmonic[rung + np.int32(at[i, d])] - harmonic[rung]
            for d in range(lanes):
                a[d] += v[d] * np.float32(net[d])
            for d in range(lanes):
                b[d] += v[d] * np.float32(by_truth[rank, d])
            for d in range(lanes):
                c[d] += u[d] * np.float32(net[d])
            for d in range(lanes):
                e[d] += u[d] * np.float32(group[d])
            for d in range(lanes):
                x = np.float32(2 * np.int32(ahead[i, d]) + np.int32(group[d]) - n)
                y = np.float32(2 * np.int32(before[rank, d]) + np.int32(by_truth[rank, d]) - n)
                f[d] += np.float32(at[i, d]) * x * y
            for d in range(lanes):
                seen[local, d] += at[i, d]
        for place in range(runs[run], runs[run + 1]):
            i = order[place]
            node = ranks[i] - bucket * BUCKET + 1
            while node <= BUCKET:
                for d in range(lanes):
                    tree[node, d] += at[i, d]
                node += node & -node
    for d in range(lanes):
        sums[1, d] += pairs[d]
    for k, part in enumerate((a, b, c, e, f)):
        for d in range(lanes):
            sums[4 + k, d] += part[d]


def _top_sweep(
    at: Array, rows: Array, ends: Array, ranks: Array, by_truth: Array, before: Array, seats: int, tree: Array,
    held: Array, sums: Array,
) -> None:  # fmt: skip
    """Agreement, sums of squared ties under the proxy and by truth, and total weight, of those with a seat."""
    lanes = at.shape[1]
    size = len(tree)
    group, below = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    w = np.zeros(LANES, np.float32)
    start = 0
    for end in ends:
        for d in range(lanes):
            group[d] = 0
        for place in range(start, end):
            i = rows[place]
            rank = ranks[i]
            node = rank
            for d in range(lanes):
                below[d] = 0
            while node > 0:
                for d in range(lanes):
                    below[d] += tree[node, d]
                node &= node - 1
            for d in range(lanes):
                free = max(min(seats - before[rank, d], by_truth[rank, d]), 0)
                w[d] = at[i, d] * np.float32(free) / max(by_truth[rank, d], 1)
            for d in range(lanes):
                sums[0, d] += w[d] * (4 * below[d] - w[d])  # pairs are ordered, and count twice; less equal under both
                sums[3, d] += w[d]
                group[d] += w[d]
                held[rank, d] += w[d]
        for place in range(start, end):
            i = rows[place]
            rank = ranks[i]
            node = rank + 1
            for d in range(lanes):
                free = max(min(seats - before[rank, d], by_truth[rank, d]), 0)
                w[d] = at[i, d] * np.float32(free) / max(by_truth[rank, d], 1)
            while node < size:
                for d in range(lanes):
                    tree[node, d] += w[d]
                node += node & -node
        for d in range(lanes):
            sums[1, d] += group[d] * group[d]
        start = end
    for rank in range(size - 1):
        for d in range(lanes):
            sums[2, d] += held[rank, d] * held[rank, d]
    for d in range(lanes):
        sums[0, d] += sums[1, d] + sums[2, d] - sums[3, d] * sums[3, d]


def _overlap(at: Array, ends: Array, ranks: Array, by_truth: Array, before: Array, seats: int, found: Array) -> None:
    """Sum over those in both tops of weight times both chances of a seat."""
    lanes = at.shape[1]
    ahead, group = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    start, least = 0, 0
    for end in ends:
        if least >= seats:
            break
        group[:] = 0
        for i in range(start, end):
            for d in range(lanes):
                group[d] += at[i, d]
        for i in range(start, end):
            rank = ranks[i]
            for d in range(lanes):
                x = np.float32(max(min(seats - ahead[d], group[d]), 0)) / max(group[d], 1)
                free = max(min(seats - before[rank, d], by_truth[rank, d]), 0)
                found[d] += at[i, d] * x * np.float32(free) / max(by_truth[rank, d], 1)
        least = seats
        for d in range(lanes):
            ahead[d] += group[d]
            least = min(least, ahead[d])
        start = end


def _best(at: Array, ends: Array, ranks: Array, k: int, k_regret: int, m: int, best: Array) -> None:
    """Rank by truth of the best among the proxy's top k and top k_regret; equals under the proxy: the worst first."""
    lanes = at.shape[1]
    taken = np.zeros(LANES, np.int64)
    best[:] = m - 1
    start = 0
    for end in ends:
        if taken.min() >= max(k, k_regret):
            break
        for i in range(end - 1, start - 1, -1):
            for d in range(lanes):
                if at[i, d] > 0:
                    if taken[d] < k and ranks[i] < best[0, d]:
                        best[0, d] = ranks[i]
                    if taken[d] < k_regret and ranks[i] < best[1, d]:
                        best[1, d] = ranks[i]
                    taken[d] += at[i, d]
        start = end
