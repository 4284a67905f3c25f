"""Regularized evolution: what its card says must hold, in the card's order, and its departures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse, quality

from searchers.random_search import RandomSearch
from searchers.regularized_evolution import RegularizedEvolution
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.types import Architecture, Cost, Evaluation, Proxy, Searcher, Trial

SPACE = SPACES["nas_bench_201"]
SHARED = Path(__file__).resolve().parents[3].parent / "shared"


def evolution(seed: int = 0, space: SearchSpace = SPACE, **options: object) -> RegularizedEvolution:
    return RegularizedEvolution(space, PROXY, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


class Bits(SearchSpace):
    """The paper's toy: strings of bits, the error is the share of zeros."""

    name = "bits"
    full = PROXY
    paper = "Real et al., AAAI 2019, toy of the official notebook"

    def __init__(self, length: int) -> None:
        self.decisions = (2,) * length

    def text(self, arch: Architecture) -> str:
        return "".join(map(str, arch))

    def parse(self, text: str) -> Architecture:
        return tuple(map(int, text))


def true_score(arch: Architecture) -> float:
    return sum(arch) / len(arch)


def noisy(space: SearchSpace, noise: float, seed: int) -> Analytic:
    """Each training of the same bits comes out differently."""
    rng = np.random.default_rng((seed, 1))
    return Analytic(space, error=lambda arch: 1 - true_score(arch) + noise * rng.standard_normal())


@pytest.mark.parametrize("workers", [1, 4])
def test_1_the_population_is_the_most_recently_completed(workers):
    searcher, evaluator = evolution(population_size=10, sample_size=3), Analytic(SPACE)
    told: list[Evaluation] = []
    tell = searcher.tell
    searcher.tell = lambda answers: (told.extend(answers), tell(answers))[1]  # type: ignore[method-assign]
    for _ in run(searcher, evaluator, budget=Budget(evaluations=100), workers=workers):
        assert list(searcher.population) == told[-10:]
    assert len(told) == 100


def test_1_a_full_population_needs_workers_minus_one_more_random_draws():
    searcher, space = evolution(population_size=10, sample_size=3), SPACES["nas_bench_201"]
    draws = Counter[str]()
    sample, mutate = space.sample, space.mutate

    class Counting(type(space)):  # type: ignore[misc]
        def sample(self, rng):
            draws["random"] += 1
            return sample(rng)

        def mutate(self, arch, rng):
            draws["mutant"] += 1
            return mutate(arch, rng)

    searcher.space = Counting()
    for _ in run(searcher, Analytic(space), budget=Budget(evaluations=100), workers=4):
        pass
    assert draws == {"random": 10 + 4 - 1, "mutant": 100 - 13}


def test_2_everyone_lives_for_p_further_completions_and_the_best_is_not_spared():
    searcher, evaluator = evolution(population_size=5, sample_size=5), Analytic(SPACE)
    lives: Counter[int] = Counter()
    for _ in range(60):
        converse(searcher, evaluator, 1)
        lives.update(id(answer) for answer in searcher.population)
    best = min(evaluator.answers[:-5], key=lambda answer: answer.metrics["val_error"])
    assert [lives[id(answer)] for answer in evaluator.answers[:-5]] == [5] * 55
    assert lives[id(best)] == 5


def test_3_five_per_cent_of_children_equal_their_parent_and_the_others_differ_in_one_place():
    searcher = evolution(population_size=1, sample_size=1, p_identity=0.05)  # the last one is the parent
    archs = [trial.arch for trial in converse(searcher, Analytic(SPACE), 4001)]
    differences = Counter(sum(a != b for a, b in zip(parent, child, strict=True)) for parent, child in pairwise(archs))
    assert set(differences) == {0, 1}
    assert differences[0] / 4000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_4_the_toy_of_a_hundred_bits_is_climbed():
    space = Bits(100)
    curves = []
    for seed in range(3):
        searcher = evolution(seed, space, population_size=100, sample_size=10)
        steps = run(searcher, noisy(space, 0.01, seed), budget=Budget(evaluations=1000))
        curves.append([true_score(step.best.trial.arch) for step in steps if step.best])
        draws = [true_score(space.sample(np.random.default_rng((seed, i)))) for i in range(1000)]
        assert max(draws) < 0.75
        assert curves[-1][-1] > 0.8
    mean = np.mean(curves, axis=0)[99::100]
    assert (np.diff(mean) > 0).all()


def filled(searcher: RegularizedEvolution) -> list[Architecture]:
    """Its population, best first, after random draws that all differ."""
    archs = [SPACE.at(1000 * i) for i in range(searcher.population_size)]
    searcher.tell(Analytic(SPACE).evaluate([Trial(arch, PROXY) for arch in archs]))
    assert len({quality(arch) for arch in archs}) == len(archs)
    return sorted(archs, key=quality)


def test_5_one_contender_is_no_selection():
    searcher = evolution(population_size=10, sample_size=1, p_identity=1.0)  # children show who the parent was
    archs = filled(searcher)
    parents = Counter(searcher.ask()[0].arch for _ in range(5000))
    chi_square = sum((parents[arch] - 500) ** 2 / 500 for arch in archs)
    assert chi_square < 27.9  # 99.9 % of chi-square with 9 degrees of freedom


def test_5_all_contenders_without_replacement_are_greedy():
    searcher = evolution(population_size=10, sample_size=10, replacement=False, p_identity=1.0)
    best = filled(searcher)[0]
    assert {searcher.ask()[0].arch for _ in range(200)} == {best}


def test_5_contenders_are_drawn_with_replacement():
    searcher = evolution(population_size=10, sample_size=10, p_identity=1.0)
    best = filled(searcher)[0]
    share = sum(searcher.ask()[0].arch == best for _ in range(5000)) / 5000
    wins = 1 - (1 - 1 / 10) ** 10
    assert share == pytest.approx(wins, abs=4 * math.sqrt(wins * (1 - wins) / 5000))


class NonAging(RegularizedEvolution):
    """The paper's control: of the sampled, the worst dies."""

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for newcomer in evaluations:
            if len(self.population) == self.population_size:
                sampled = self.rng.choice(self.population_size, self.sample_size)
                worst = max(sampled, key=lambda i: self.population[i].metrics["val_error"])
                del self.population[int(worst)]
            self.population.append(newcomer)


def test_6_under_noise_aging_beats_killing_the_worst():
    space, wins, runs = Bits(40), 0, 12

    def final_score(kind: type[RegularizedEvolution], seed: int) -> float:
        searcher = kind(space, PROXY, np.random.default_rng(seed), population_size=20, sample_size=5)
        converse(searcher, noisy(space, 0.15, seed), 1200)
        return float(np.mean([true_score(answer.trial.arch) for answer in searcher.population]))

    for seed in range(runs):
        wins += final_score(RegularizedEvolution, seed) > final_score(NonAging, seed)
    assert sum(math.comb(runs, k) for k in range(wins, runs + 1)) / 2**runs < 0.01  # sign test


def test_7_same_seed_same_history_and_never_beyond_the_budget():
    def history() -> list[tuple[Trial, float]]:
        searcher, evaluator = evolution(population_size=10, sample_size=3), Analytic(SPACE)
        steps = list(run(searcher, evaluator, budget=Budget(device_s=3000)))
        assert steps[-1].device_s <= 3000
        assert steps[-1].device_s + steps[-1].over_budget_s > 3000
        assert steps[-1].evaluations == len(evaluator.answers) - 1
        return [(answer.trial, answer.cost.device_s) for answer in evaluator.answers]

    assert history() == history()


class NASBench201Table:
    """12-epoch validation errors and seconds of the published benchmark."""

    name = "nb201.parquet"

    def __init__(self) -> None:
        import pandas as pd

        columns = ["arch_str", "c10_valid_12", "c10_test_200", "c10_train_s_per_epoch"]
        frame = pd.read_parquet(SHARED / "data" / "nb201.parquet", columns=columns)
        archs = [SPACE.parse(text) for text in frame["arch_str"]]
        self.error = dict(zip(archs, (100.0 - frame["c10_valid_12"].astype(float)).tolist(), strict=True))
        # trained on half of the training images
        self.seconds = dict(zip(archs, (6.0 * frame["c10_train_s_per_epoch"].astype(float)).tolist(), strict=True))
        self.test_accuracy = dict(zip(archs, frame["c10_test_200"].astype(float).tolist(), strict=True))

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        return [
            Evaluation(t, {"val_error": self.error[t.arch]}, Cost(self.seconds[t.arch], "table:GTX 1080 Ti"))
            for t in trials
        ]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_8_on_nas_bench_201_it_is_better_than_random_search_at_the_same_budget():
    table, twelve = NASBench201Table(), Proxy(epochs=12, channels=16, resolution=32)

    def found(searcher: Searcher) -> float:
        *_, last = run(searcher, table, budget=Budget(device_s=12_000))
        assert last.best is not None
        return table.test_accuracy[last.best.trial.arch]

    def evolved(seed: int) -> float:
        rng = np.random.default_rng(seed)
        return found(RegularizedEvolution(SPACE, twelve, rng, population_size=10, sample_size=3))

    ours = np.array([evolved(seed) for seed in range(60)])
    random = np.array([found(RandomSearch(SPACE, twelve, np.random.default_rng(seed))) for seed in range(60)])
    difference = ours.mean() - random.mean()
    assert difference > 2 * math.sqrt((ours.var(ddof=1) + random.var(ddof=1)) / 60)


def test_no_draw_is_spent_on_what_is_switched_off():
    """Options at their defaults ask what the algorithm without them asks."""
    plain = converse(evolution(population_size=5, sample_size=2), Analytic(SPACE), 40)
    rng, population, by_hand = np.random.default_rng(0), [], []
    for _ in range(40):
        if len(population) < 5:
            arch = SPACE.sample(rng)
        else:
            contenders = [population[i] for i in rng.choice(5, 2)]
            arch = SPACE.mutate(min(contenders, key=quality), rng)
        population = [*population, arch][-5:]
        by_hand.append(arch)
    assert [trial.arch for trial in plain] == by_hand


def test_training_seeds_vary_when_asked_for():
    searcher = evolution(population_size=5, sample_size=2, training_seeds=3)
    seeds = Counter(trial.seed for trial in converse(searcher, Analytic(SPACE), 90))
    assert set(seeds) == {0, 1, 2}
    assert {trial.seed for trial in converse(evolution(), Analytic(SPACE), 50)} == {0}
