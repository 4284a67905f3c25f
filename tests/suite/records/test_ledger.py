"""Who spent what on what, and what never adds up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.records.ledger import PHASES, Ledger, MixedClocks, gpu_days, phase_of
from suite.types import Cost, KendallError, Proxy, Trial

FULL = Proxy(200, 16, 32)
SHORT = Proxy(12, 16, 32)
ARCH = (0, 0, 0, 0, 0, 0)
COSTS = st.builds(
    Cost,
    st.floats(0, 1e6),
    st.sampled_from(["CPU", "NVIDIA H200"]),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1e15),
)
ENTRIES = st.lists(st.tuples(st.sampled_from(PHASES), COSTS), max_size=12)


def ledger(*entries: tuple[str, Cost]) -> Ledger:
    made = Ledger()
    for phase, cost in entries:
        made.add(phase, cost)
    return made


@pytest.mark.parametrize(
    ("trial", "phase"),
    [
        (Trial(ARCH, FULL), "full training"),
        (Trial(ARCH, FULL, epochs=199), "proxy"),  # a stage of it is no full training
        (Trial(ARCH, SHORT), "proxy"),
        (Trial(ARCH, Proxy(200, 16, 32, samples=0.5)), "proxy"),
    ],
)
def test_only_the_whole_full_setting_is_full_training(trial, phase):
    assert phase_of(trial, FULL) == phase


def test_a_gpu_day_is_86400_device_seconds():
    assert gpu_days(86_400) == 1
    assert gpu_days(12_000) == pytest.approx(0.1388888889)


@given(ENTRIES)
def test_a_row_is_the_sum_of_a_phase_on_a_device(entries):
    rows = ledger(*entries).rows()
    assert len({(row["phase"], row["device"]) for row in rows}) == len(rows)
    assert [row["phase"] for row in rows] == sorted((row["phase"] for row in rows), key=PHASES.index)
    assert {(row["phase"], row["device"]) for row in rows} == {(phase, cost.device) for phase, cost in entries}
    for row in rows:
        costs = [cost for phase, cost in entries if (phase, cost.device) == (row["phase"], row["device"])]
        assert row["evaluations"] == len(costs)
        assert row["device_s"] == pytest.approx(sum(cost.device_s for cost in costs))
        assert row["gpu_days"] == pytest.approx(row["device_s"] / 86_400)
        assert row["macs"] == pytest.approx(sum(cost.macs for cost in costs))
        known = [cost.energy_j for cost in costs if cost.energy_j is not None]
        assert row["energy_j"] == (pytest.approx(sum(known)) if len(known) == len(costs) else None)


@given(ENTRIES, ENTRIES)
def test_two_ledgers_add_up_to_the_ledger_of_both(first, second):
    merged = ledger(*first)
    merged.merge(ledger(*second))
    for mine, both in zip(merged.rows(), ledger(*first, *second).rows(), strict=True):
        assert mine == {**both, **{k: pytest.approx(both[k]) for k in ("device_s", "gpu_days", "macs", "energy_j")}}


def test_merging_leaves_the_other_ledger_as_it_was():
    other = ledger(("proxy", Cost(1.0, "CPU")))
    merged = Ledger()
    merged.merge(other)
    merged.add("proxy", Cost(5.0, "CPU"))
    assert other.rows()[0]["device_s"] == 1


@pytest.mark.parametrize("join", ["add", "merge"])
def test_simulated_and_measured_seconds_never_meet(join):
    mixed = ledger(("proxy", Cost(1.0, "table:GTX 1080 Ti")))
    if join == "add":
        mixed.add("search", Cost(1.0, "CPU"))
    else:
        mixed.merge(ledger(("proxy", Cost(1.0, "CPU"))))
    for asked in ("device", "clock"):
        with pytest.raises(MixedClocks, match=r"do not add up: CPU, table:GTX 1080 Ti"):
            getattr(mixed, asked)
    assert {row["clock"] for row in mixed.rows()} == {"simulated", "measured"}  # apart, they can be told
    assert issubclass(MixedClocks, KendallError)


def test_several_devices_of_one_clock_are_named_together_and_keep_their_own_rows():
    both = ledger(("proxy", Cost(1.0, "NVIDIA H200")), ("proxy", Cost(2.0, "CPU")))
    assert (both.device, both.clock) == ("CPU + NVIDIA H200", "measured")
    assert [(row["device"], row["device_s"]) for row in both.rows()] == [("CPU", 2), ("NVIDIA H200", 1)]


def test_the_clock_of_a_table_is_simulated_and_an_empty_ledger_has_none():
    assert ledger(("proxy", Cost(1.0, "table:x"))).clock == "simulated"
    assert (Ledger().clock, Ledger().device, Ledger().rows()) == ("", "", [])


def test_unknown_seconds_stay_unknown_in_the_sum():
    total = ledger(("proxy", Cost(1.0, "CPU")), ("proxy", Cost(math.nan, "CPU"))).rows()[0]
    assert math.isnan(total["device_s"])
    assert total["evaluations"] == 2


def test_an_unknown_phase_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="no phase 'training'; there are search, proxy, full training, predicted, pred"
    ):
        Ledger().add("training", Cost(1.0, "CPU"))


@pytest.mark.parametrize("beside", ["measuring", "judging"])
def test_seconds_that_no_search_is_charged_are_told_apart_and_mix_with_none(beside):
    both = ledger(("proxy", Cost(5.0, "table:GTX 1080 Ti")), (beside, Cost(1.0, "CPU")))
    assert (both.device, both.clock) == ("table:GTX 1080 Ti", "simulated")
    assert [(row["phase"], row["clock"]) for row in both.rows()] == [("proxy", "simulated"), (beside, "measured")]
