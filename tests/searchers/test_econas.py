"""EcoNAS: what its card says must hold, in the card's order, its base, its variants and its departures."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse, quality, seconds_an_epoch

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
    """Far larger than a search, as the paper's."""

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
    from suite.data.images import load
    from suite.evaluators.live import LiveEvaluator

    proxy, digits = Proxy(epochs=60, channels=2, resolution=8, samples=0.05, cells=1), load("digits")

    def live(folder: str) -> LiveEvaluator:
        return LiveEvaluator(SPACE, digits, recipe={"batch_size": 64}, device="cpu", checkpoints=tmp_path / folder)

    def told(curve: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        return [{name: value for name, value in entry.items() if name != "device_s"} for entry in curve]

    searcher, in_stages = econas(1, SPACE, proxy, initial=1, children=(1, 0, 0), promoted=(1, 1)), live("stages")
    answers: list[Evaluation] = []
    while max((answer.trial.epochs for answer in answers), default=0) < 60:  # two cycles
        asked = in_stages.evaluate(searcher.ask()[::-1])
        searcher.tell(asked)
        answers += asked
    stages = [answer for answer in answers if answer.trial.whole == answers[0].trial.whole]
    assert [stage.trial.epochs for stage in stages] == [20, 40, 60]
    (whole,) = live("through").evaluate([stages[0].trial.whole])
    assert stages[-1].metrics == whole.metrics
    assert told(stages[-1].curve)[40:] == told(whole.curve)[40:]
    assert len({entry["train_loss"] for entry in whole.curve}) == 60
    assert sum(stage.cost.macs for stage in stages) == whole.cost.macs


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
    idle = 0
    for cycle in range(-1, 60):
        (trials,) = cycles(searcher, evaluator, 0)
        used = {parent for parent, _ in space.mutations} | {trial.arch for trial in trials if trial.epochs > 20}
        space.mutations.clear()
        idle = max([idle, *(cycle - trained[arch] for arch in used)])
        for trial in trials:
            trained[trial.arch] = max(cycle, 0)  # the first networks and the first children are of cycle 0
            stages[trial.arch] += 1
            assert trial.epochs == 20 * stages[trial.arch]
    assert max(stages.values()) == 3
    assert idle == life - 1


@pytest.mark.parametrize("space", [LARGE, *SPACES.values()], ids=lambda space: space.name)
def test_5_a_child_differs_from_its_parent_in_one_slot_and_leaves_it_alone(space):
    searcher, parent = econas(space=space), Network(space.sample(np.random.default_rng(1)), 0, [50.0])
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
    parents = {child: parent for parent, child in space.mutations}
    assert len(children) > 400
    for child in children:
        assert sum(a != b for a, b in zip(parents[child], child, strict=True)) == 1


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
    """The card's task: the error is the quality's plus noise / sqrt(epochs), drawn anew at each stage."""

    name = "noisy"

    def __init__(self, error: Callable[[Architecture], float], noise: float, seed: int) -> None:
        self.error, self.noise, self.rng = error, noise, np.random.default_rng((seed, 7))
        self.trained: dict[Architecture, int] = {}

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        return [self.answer(trial) for trial in trials]

    def answer(self, trial: Trial) -> Evaluation:
        error = self.error(trial.arch) + self.noise / math.sqrt(trial.epochs) * self.rng.standard_normal()
        paid = trial.epochs - self.trained.get(trial.arch, 0)
        self.trained[trial.arch] = trial.epochs
        return Evaluation(trial, {"val_error": error}, Cost(float(paid), "table:epochs"))


def unrelated() -> tuple[SearchSpace, Callable[[Architecture], float]]:
    """Qualities of standard deviation 10 that know nothing of their neighbours: there is nothing to climb."""
    errors = 50 + 10 * np.random.default_rng(5).standard_normal(SPACE.size)
    return SPACE, lambda arch: float(errors[SPACE.index(arch)])


def climbable() -> tuple[SearchSpace, Callable[[Architecture], float]]:
    """Every decision adds its own share: a hill without local optima."""
    shares = np.random.default_rng(5).standard_normal((32, 8))
    return LARGE, lambda arch: 50 + float(sum(shares[i, option] for i, option in enumerate(arch)))


def found(searcher: EcoNAS, task: Noisy, epochs: int) -> float:
    *_, last = run(searcher, task, budget=Budget(device_s=epochs))
    assert last.best is not None
    assert epochs - 60 < last.device_s <= epochs
    return task.error(last.best.trial.arch)


def hierarchical_and_flat(
    task: tuple[SearchSpace, Callable[[Architecture], float]], noise: float, *, seeds: int, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """True errors of the winners."""
    space, error = task
    ours = [found(econas(seed, space), Noisy(error, noise, seed), epochs) for seed in range(seeds)]
    base = [found(econas(s, space, FLAT, hierarchy=False), Noisy(error, noise, s), epochs) for s in range(seeds)]
    return np.array(ours), np.array(base)


def test_8_where_noise_hides_quality_the_hierarchy_beats_flat_search_at_equal_epochs():
    ours, base = hierarchical_and_flat(unrelated(), 60.0, seeds=200, epochs=8 * 560)
    assert ours.mean() < base.mean() - 3 * math.sqrt((ours.var(ddof=1) + base.var(ddof=1)) / 200)


# The kill switch: without its special parts it is its base


def test_flat_it_asks_what_the_authors_main_single_asks():
    """Their loop by hand: 16 random networks, then 16 children a cycle of one group, which dies by age."""
    ours = cycles(econas(proxy=FLAT, hierarchy=False, repeats=True), Analytic(LARGE), 100)
    rng, evaluator = np.random.default_rng(0), Analytic(LARGE)
    networks: list[tuple[Architecture, float, int]] = []
    by_hand: list[list[Architecture]] = []
    for cycle in range(-1, 100):
        living = [network for network in networks if cycle - network[2] < 10]
        archs = []
        for _ in range(16):
            if cycle < 0:
                archs.append(LARGE.sample(rng))
                continue
            contenders = rng.choice(len(living), len(living) // 4 + 1)
            archs.append(LARGE.mutate(min((living[i] for i in contenders), key=lambda n: n[1])[0], rng))
        answers = evaluator.evaluate([Trial(arch, FLAT) for arch in archs])
        networks += [(a.trial.arch, a.metrics["val_error"], max(cycle, 0)) for a in answers]
        by_hand.append(archs)
    assert [[trial.arch for trial in cycle] for cycle in ours] == by_hand
    assert {trial.epochs for cycle in ours for trial in cycle} == {35}


def test_flat_with_one_child_a_cycle_and_ten_networks_it_is_regularized_evolution():
    ours = econas(
        space=SPACE, proxy=PROXY, hierarchy=False, initial=10, children=(1,), promoted=(), life=10**9, group_size=10,
        repeats=True, cycles=0,
    )  # fmt: skip
    base = RegularizedEvolution(SPACE, PROXY, np.random.default_rng(0), population_size=10, sample_size=3)
    assert converse(ours, Analytic(SPACE), 300) == converse(base, Analytic(SPACE), 300)


def test_an_evaluator_with_the_last_stage_only_gets_the_flat_search_and_the_note_says_so():
    offered = econas(stages=(60,))
    flat = econas(hierarchy=False)
    assert cycles(offered, Analytic(LARGE), 20) == cycles(flat, Analytic(LARGE), 20)
    assert (offered.note, flat.note) == ("one stage, 60 epochs: flat evolution", "")


# Variants and departures


@pytest.mark.parametrize(
    ("proxy_epochs", "options", "expected"),
    [
        (60, {}, (20, 40, 60)),
        (90, {}, (30, 60, 90)),
        (20, {}, (7, 14, 20)),
        (2, {}, (1, 2)),
        (1, {}, (1,)),
        (60, {"stages": (10, 20, 30, 40, 50, 60)}, (20, 40, 60)),
        (60, {"stages": (1, 15, 60)}, (15, 60)),
        (60, {"stages": (1, 60)}, (60,)),
        (200, {"stage_epochs": (7, 14, 20)}, (7, 14, 20)),
        (60, {"hierarchy": False}, (60,)),
        (60, {"hierarchy": False, "stage_epochs": [20]}, (20,)),
    ],
)
def test_stages_are_thirds_of_the_run_or_the_nearest_there_are(proxy_epochs, options, expected):
    assert econas(proxy=Proxy(proxy_epochs, 4, 8), **options).stage_epochs == expected


def test_with_two_stages_the_last_group_has_the_children_of_the_missing_one():
    searcher = econas(stages=(15, 60))
    counts = [Counter(trial.epochs for trial in cycle) for cycle in cycles(searcher, Analytic(LARGE), 3)]
    assert counts == [{15: 16}, {15: 6, 60: 8}, {15: 16, 60: 8}, {15: 16, 60: 8}]
    assert searcher.note == "stages of 15, 60 epochs only"


def test_stages_of_a_longer_schedule_are_called_curve_replay():
    searcher = econas(proxy=Proxy(200, 4, 8), stage_epochs=(7, 14, 20))
    assert searcher.note == "curve replay: stages of a 200-epoch schedule"


def test_it_recommends_the_best_after_3e_of_all_that_got_there_also_of_the_dead():
    searcher, evaluator = econas(life=2), Analytic(LARGE)
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=1000))
    longest = [answer for answer in evaluator.answers if answer.trial.epochs == 60]
    assert last.best == min(longest, key=lambda answer: answer.metrics["val_error"])


def test_fitness_is_the_best_of_all_stages_and_ranks_inside_a_group_only():
    searcher = econas()
    once, better_before = Network((0,), 0, [30.0]), Network((1,), 0, [10.0, 50.0])
    worse, twice = Network((2,), 0, [20.0, 15.0]), Network((3,), 0, [40.0])
    searcher.networks = [once, better_before, worse, twice]
    groups = [searcher.group(stage) for stage in (1, 2, 3)]
    assert groups == [[once, twice], [better_before, worse], []]
    promoted = [(trial.arch, trial.epochs) for trial in searcher.continued(groups)]
    assert promoted == [((0,), 40), ((3,), 40), ((1,), 60), ((2,), 60)]


def test_the_order_of_answers_inside_a_cycle_changes_nothing():
    forwards, backwards, evaluator = econas(), econas(), Analytic(LARGE)
    for _ in range(10):
        trials = forwards.ask()
        assert backwards.ask() == trials
        answers = evaluator.evaluate(trials)
        forwards.tell(answers)
        for answer in answers[::-1]:
            assert backwards.ask() == []
            backwards.tell([answer])


def test_a_network_is_drawn_once_unless_repeats_are_wanted():
    def first_stages(**options: object) -> list[Architecture]:
        asked = cycles(econas(space=SPACE, **options), Analytic(SPACE), 40)
        return [trial.arch for cycle in asked for trial in cycle if trial.epochs == 20]

    once, again = first_stages(), first_stages(repeats=True)
    assert len(once) == len(set(once))
    assert len(again) > len(set(again)) + 50


def test_a_network_whose_training_failed_is_neither_parent_nor_promoted():
    space = Parents()
    evaluator = Analytic(space, error=lambda arch: math.inf if arch[0] % 2 else quality(arch))
    for cycle in cycles(econas(space=space), evaluator, 30):
        assert all(trial.arch[0] % 2 == 0 for trial in cycle if trial.epochs > 20)
    assert all(parent[0] % 2 == 0 for parent, _ in space.mutations)


def test_it_begins_anew_where_no_network_is_left():
    searcher = econas()
    for _ in range(3):
        trials = searcher.ask()
        assert [trial.epochs for trial in trials] == [20] * 16
        searcher.tell(Analytic(LARGE, error=lambda arch: math.inf).evaluate(trials))


def test_it_ends_after_its_cycles_and_the_note_says_so():
    searcher = econas(cycles=5)
    assert len(cycles(searcher, Analytic(LARGE), 100)) == 6
    assert searcher.ask() == []
    assert searcher.note == "ended after 5 cycles"
    assert len(cycles(econas(cycles=0), Analytic(LARGE), 110)) == 111


def test_a_smaller_search_as_the_card_has_it_for_nas_bench_201():
    small = {"initial": 8, "promoted": [4, 2], "children": [3, 3, 2], "cycles": 20}
    asked = cycles(econas(space=SPACE, proxy=Proxy(20, 4, 8), **small), Analytic(SPACE), 100)
    counts = [Counter(trial.epochs for trial in cycle) for cycle in asked]
    assert counts[:3] == [{7: 8}, {7: 3, 14: 4}, {7: 6, 14: 4, 20: 2}]
    assert len(asked) == 21


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"initial": 0}, "initial must be a whole number of at least 1, not 0"),
        ({"children": 16}, "children must be a list of whole numbers of at least 0, not 16"),
        ({"children": (0, 0, 0)}, r"children must name one number a group, not all 0, and promoted one less, not \[0"),
        ({"promoted": (8,)}, r"promoted one less, not \[6, 5, 5\] and \[8\]"),
        ({"promoted": (8, -1)}, r"promoted must be a list of whole numbers of at least 0, not \(8, -1\)"),
        (
            {"stage_epochs": (20, 40, 90)},
            r"stage_epochs must rise to at most 60 and be 1 to 3 numbers, not \[20, 40, 9",
        ),
        ({"stage_epochs": (40, 20)}, r"stage_epochs must rise to at most 60 and be 1 to 3 numbers, not \[40, 20\]"),
        ({"stage_epochs": (20, 60), "stages": (1, 60)}, r"stage_epochs \[20, 60\] are not all among the stages there"),
        ({"hierarchy": 1}, "hierarchy must be true or false, not 1"),
        ({"life": 0}, "life must be a whole number of at least 1, not 0"),
    ],
)
def test_a_wrong_option_is_refused(options, complaint):
    with pytest.raises(BadInput, match=complaint):
        econas(**options)


@pytest.mark.parametrize("epochs", range(1, 40))
def test_stages_rise_and_end_with_the_run(epochs):
    stages = staged(epochs, 3, None, None)
    assert list(stages) == sorted(set(stages))
    assert stages[-1] == epochs


def main() -> None:
    """Print the table of docs/methods/econas.md."""
    print("quality, noise: hierarchical, flat, standard error of the difference")
    for noise in (0.0, 20.0, 60.0):
        for task in (unrelated, climbable):
            ours, base = hierarchical_and_flat(task(), noise, seeds=200, epochs=12 * 560)
            error = math.sqrt((ours.var(ddof=1) + base.var(ddof=1)) / 200)
            print(f"{task.__name__}, {noise:g}: {ours.mean():.2f}, {base.mean():.2f}, {error:.2f}", flush=True)


if __name__ == "__main__":
    main()
