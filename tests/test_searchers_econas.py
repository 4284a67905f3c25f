"""EcoNAS: what its card says must hold, in the card's order, its base, its variants and its departures."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from analytic import PROXY, Analytic, converse, quality, seconds_an_epoch

from searchers.econas import EcoNAS, Network, staged
from searchers.regularized_evolution import RegularizedEvolution
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.types import Architecture, BadInput, Cost, Evaluation, Proxy, Trial

SPACE = SPACES["nas_bench_201"]
SIXTY = Proxy(epochs=60, channels=4, resolution=8)
FLAT = Proxy(epochs=35, channels=4, resolution=8)
"""What `main_single` trains its networks under, at equal cost."""


class Large(SearchSpace):
    """So large that no architecture is drawn twice, as the paper's."""

    name = "large"
    decisions = (8,) * 32
    full = SIXTY
    paper = "none"

    def text(self, arch: Architecture) -> str:
        return "".join(map(str, arch))

    def parse(self, text: str) -> Architecture:
        return tuple(map(int, text))


LARGE = Large()


def econas(seed: int = 0, space: SearchSpace = LARGE, proxy: Proxy = SIXTY, **options: object) -> EcoNAS:
    return EcoNAS(space, proxy, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def cycles(searcher: EcoNAS, evaluator: Analytic, count: int) -> list[list[Trial]]:
    """The random networks at the beginning, then so many cycles; fewer if it ends."""
    asked: list[list[Trial]] = []
    while len(asked) <= count and (trials := searcher.ask()):
        asked.append(trials)
        searcher.tell(evaluator.evaluate(trials))
    return asked


def new_epochs(trials: Sequence[Trial]) -> int:
    """Epochs that a cycle pays for: every stage goes on from the one before."""
    return 20 * len(trials)


def test_2_three_resumed_stages_equal_one_run_bit_for_bit_and_cost_as_much(tmp_path):
    torch = pytest.importorskip("torch")
    from suite.evaluators.live import LiveEvaluator
    from suite.training.data import load

    torch.set_num_threads(1)
    proxy = Proxy(epochs=60, channels=2, resolution=8, samples=0.05, cells=1)
    digits = load("digits")

    def live(folder: str) -> LiveEvaluator:
        return LiveEvaluator(SPACE, digits, recipe={"batch_size": 64}, device="cpu", checkpoints=tmp_path / folder)

    searcher = econas(space=SPACE, proxy=proxy, initial=1, children=(1, 0, 0), promoted=(1, 1), life=2)
    arch = searcher.ask()[0].arch
    stages = [Trial(arch, proxy, epochs) for epochs in searcher.stage_epochs]
    assert [trial.epochs for trial in stages] == [20, 40, 60]
    staged_run, through = live("staged"), live("through")
    answers = [staged_run.evaluate([trial])[0] for trial in stages]
    (whole,) = through.evaluate([Trial(arch, proxy)])
    assert answers[-1].metrics == whole.metrics
    assert [len(answer.curve) for answer in answers] == [20, 40, 60]
    assert [entry["loss"] for entry in answers[-1].curve] == [entry["loss"] for entry in whole.curve]
    ours, theirs = (
        evaluator.trainer.checkpoints.load(evaluator.trainer.key(stages[-1])) for evaluator in (staged_run, through)
    )
    for name, weights in theirs["network"].items():
        assert torch.equal(ours["network"][name], weights), name
    assert sum(answer.cost.macs for answer in answers) == whole.cost.macs


def test_3_children_and_promotions_of_every_cycle():
    first, *later = cycles(econas(), Analytic(LARGE), 100)
    assert [trial.epochs for trial in first] == [20] * 16
    counts = [Counter(trial.epochs for trial in cycle) for cycle in later]
    assert counts[0] == {20: 6, 40: 8}
    assert counts[1] == {20: 11, 40: 8, 60: 4}
    assert counts[2:] == [{20: 16, 40: 8, 60: 4}] * 98


def test_3_the_whole_search_is_2797_jobs_on_1601_networks():
    asked = [trial for cycle in cycles(econas(), Analytic(LARGE), 1000) for trial in cycle]
    assert len(asked) == 2797
    assert len({trial.arch for trial in asked}) == 1601
    assert new_epochs(asked) == 55_940


class Parents(Large):
    """Remembers every mutation."""

    def __init__(self) -> None:
        self.mutations: list[tuple[Architecture, Architecture]] = []

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        child = super().mutate(arch, rng)
        self.mutations.append((arch, child))
        return child


@pytest.mark.parametrize("life", [2, 10])
def test_4_at_most_three_stages_and_nobody_is_of_use_ten_cycles_after_its_last_training(life):
    space = Parents()
    searcher, evaluator = econas(space=space, life=life), Analytic(space)
    trained: dict[Architecture, int] = {}
    stages: Counter[Architecture] = Counter()
    for cycle, trials in enumerate(cycles(searcher, evaluator, 0) + [[]] * 60, start=-1):
        trials = trials or searcher.ask()
        parents = {parent for parent, _ in space.mutations}
        space.mutations.clear()
        for arch in parents | {trial.arch for trial in trials if trial.epochs > 20}:
            assert cycle - trained[arch] < life
        for trial in trials:
            trained[trial.arch] = max(cycle, 0)
            stages[trial.arch] += 1
            assert trial.epochs == 20 * stages[trial.arch]
        if cycle >= 0:
            searcher.tell(evaluator.evaluate(trials))
    assert max(stages.values()) == 3


def test_5_a_child_differs_from_its_parent_in_one_slot_and_leaves_it_alone():
    searcher, parent = econas(), Network(LARGE.sample(np.random.default_rng(1)), 0, [50.0])
    before = copy.deepcopy(parent.arch)
    for _ in range(1000):
        child = searcher.child([parent])
        assert child is not None
        assert sum(a != b for a, b in zip(parent.arch, child, strict=True)) == 1
    assert parent.arch == before


def test_5_each_child_of_a_search_has_a_parent_one_slot_away():
    space = Parents()
    asked = cycles(econas(space=space), Analytic(space), 30)
    children = [trial.arch for cycle in asked[1:] for trial in cycle if trial.epochs == 20]
    assert [child for _, child in space.mutations] == children


def test_6_a_steady_cycle_costs_560_epochs_with_and_without_the_hierarchy():
    hierarchical = cycles(econas(), Analytic(LARGE), 30)
    flat = cycles(econas(proxy=FLAT, hierarchy=False), Analytic(LARGE), 30)
    assert {new_epochs(cycle) for cycle in hierarchical[3:]} == {560}
    assert {sum(trial.epochs for trial in cycle) for cycle in flat[1:]} == {560}


def test_6_stages_pay_their_new_epochs_only():
    searcher, evaluator = econas(), Analytic(LARGE)
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=300))
    longest: dict[Architecture, int] = {}
    for answer in evaluator.answers:
        longest[answer.trial.arch] = answer.trial.epochs
    assert last.device_s == pytest.approx(sum(seconds_an_epoch(arch) * epochs for arch, epochs in longest.items()))


@pytest.mark.parametrize("n", [1, 3, 4, 16, 41])
def test_7_a_tournament_picks_the_best_as_often_as_its_formula_says(n):
    searcher, draws = econas(space=(space := Parents())), 3000
    group = [Network(LARGE.sample(np.random.default_rng(i)), 0, [float(n - i)]) for i in range(n)]  # the last is best
    for _ in range(draws):
        searcher.child(group)
    best = sum(parent == group[-1].arch for parent, _ in space.mutations)
    wins = 1 - (1 - 1 / n) ** (n // 4 + 1)
    if wins == 1:
        assert best == draws
        return
    chi_square = (best - draws * wins) ** 2 / (draws * wins) + (best - draws * wins) ** 2 / (draws * (1 - wins))
    assert chi_square < 10.8  # 99.9 % of chi-square with 1 degree of freedom


class Noisy:
    """The card's task: accuracy is quality + noise / sqrt(epochs), drawn anew at each stage."""

    name = "noisy"

    def __init__(self, noise: float, seed: int) -> None:
        self.noise, self.rng = noise, np.random.default_rng((seed, 7))
        self.epochs = 0
        self.trained: dict[Architecture, int] = {}

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        return [self.answer(trial) for trial in trials]

    def answer(self, trial: Trial) -> Evaluation:
        error = shortfall(trial.arch) + self.noise / math.sqrt(trial.epochs) * self.rng.standard_normal()
        before = self.trained.get(trial.arch, 0)
        paid = trial.epochs - (before if before < trial.epochs else 0)
        self.trained[trial.arch] = trial.epochs
        self.epochs += paid
        return Evaluation(trial, {"val_error": error}, Cost(float(paid), "table:epochs"))


def shortfall(arch: Architecture) -> float:
    """Points below a perfect network: each decision that is not 0 costs one."""
    return float(len(arch) - arch.count(0))


def found(searcher: EcoNAS, task: Noisy, epochs: int) -> float:
    *_, last = run(searcher, task, budget=Budget(device_s=epochs))
    assert last.best is not None
    assert epochs - 60 <= last.device_s <= epochs
    return shortfall(last.best.trial.arch)


def hierarchical_and_flat(seeds: int, epochs: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    ours = [found(econas(seed), Noisy(noise, seed), epochs) for seed in range(seeds)]
    base = [found(econas(seed, proxy=FLAT, hierarchy=False), Noisy(noise, seed), epochs) for seed in range(seeds)]
    return np.array(ours), np.array(base)


def test_8_the_hierarchy_beats_flat_search_at_equal_epochs():
    ours, base = hierarchical_and_flat(seeds=200, epochs=12 * 560, noise=20.0)
    assert ours.mean() < base.mean() - 2 * math.sqrt((ours.var(ddof=1) + base.var(ddof=1)) / 200)
