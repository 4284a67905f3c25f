"""Seconds of a shared device: whatever the candidates do, their charges add up to the time that the device worked."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.types import BadInput
from suite.workers.device_clock import PLACES, SharedClock


class Fake:
    """A clock, or a counter of energy, that a test moves."""

    def __init__(self):
        self.value = 100.0

    def __call__(self):
        return self.value


@pytest.fixture
def shares(tmp_path):
    return lambda **options: SharedClock(tmp_path / "clock", **options)


events = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 500), st.integers(0, 4), st.sampled_from(["begin", "end", "die"])),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(events)
def test_charges_add_up_to_the_time_in_which_any_was_at_work(tmp_path_factory, events):
    """By brute force: seconds and joules pass, and belong to the union if anybody is at work then."""
    now, counter = Fake(), Fake()
    shares = SharedClock(tmp_path_factory.mktemp("law") / "clock", now=now, energy=counter)
    working, union_s, union_j, own = set(), 0.0, 0.0, dict.fromkeys(range(5), 0.0)
    charged_s = charged_j = 0.0
    for seconds, joules, place, what in events:
        now.value += seconds
        counter.value += joules
        if working:
            union_s, union_j = union_s + seconds, union_j + joules
        for one in working:
            own[one] += seconds / len(working)
        if what == "begin" and place not in working:
            shares.begin(place)
            working.add(place)
        elif what == "end":
            shares.end(place)
            working.discard(place)
        elif what == "die":
            s, j = shares.charged(place)
            assert s == pytest.approx(own[place], abs=1e-9)
            charged_s, charged_j, own[place] = charged_s + s, charged_j + j, 0.0
            shares.fresh(place)
            working.discard(place)
    for place in range(5):
        s, j = shares.charged(place)
        charged_s, charged_j = charged_s + s, charged_j + j
    assert charged_s == pytest.approx(union_s, abs=1e-8)
    assert charged_j == pytest.approx(union_j, abs=1e-8)


def test_alone_a_candidate_pays_all_of_its_seconds(shares):
    now = Fake()
    clock = shares(now=now)
    now.value += 7  # nobody is at work
    began = clock.seconds()
    with clock.at_work(3):
        now.value += 5
    assert clock.seconds() - began == 5
    assert clock.charged(3) == (5, 0)


def test_a_clock_that_steps_back_takes_nothing_back(shares):
    now = Fake()
    clock = shares(now=now)
    with clock.at_work(0):
        now.value += 3
        clock.seconds()
        now.value -= 2
        clock.seconds()
        now.value += 1
    assert clock.charged(0)[0] == 4


def candidate(path: Path, place: int, pauses: list[float], pipe) -> None:
    """Works and rests in turn, and says when it worked."""
    shares, spans = SharedClock(path), []
    for number, pause in enumerate(pauses):
        if number % 2:
            time.sleep(pause)
            continue
        with shares.at_work(place):
            began = time.monotonic()
            pipe.send(("began", began))
            time.sleep(pause)
            spans.append((began, time.monotonic()))
    pipe.send(("done", spans))


def union(spans: list[tuple[float, float]]) -> float:
    """Length of what the spans cover."""
    covered, end = 0.0, -1.0
    for low, high in sorted(spans):
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    return covered


def test_of_real_processes_one_of_which_is_killed_at_work(tmp_path):
    context, path = multiprocessing.get_context("forkserver"), tmp_path / "clock"
    shares = SharedClock(path)
    plans = [[0.3, 0.1, 0.2], [0.1, 0.3, 0.3], [60.0]]
    pipes, processes = [], []
    for place, pauses in enumerate(plans):
        ours, theirs = context.Pipe()
        process = context.Process(target=candidate, args=(path, place, pauses, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    _, began = pipes[2].recv()
    time.sleep(0.3)
    os.kill(processes[2].pid, signal.SIGKILL)
    processes[2].join()
    dead_s, _ = shares.charged(2)
    spans = [(began, time.monotonic())]
    for pipe in pipes[:2]:
        while (message := pipe.recv())[0] != "done":
            pass
        spans += message[1]
    for process in processes[:2]:
        process.join()
    assert dead_s + shares.charged(0)[0] + shares.charged(1)[0] == pytest.approx(union(spans), abs=0.05)


def test_a_place_for_its_file_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        SharedClock(tmp_path / "none" / "clock")
    assert PLACES >= 8
