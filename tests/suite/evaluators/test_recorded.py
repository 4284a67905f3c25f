"""The log and its replay: what a kill leaves is gone on from, what anything else did is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.harness import toy_table
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.evaluators.recorded import Recorded
from suite.evaluators.table import TableEvaluator
from suite.records.log import Log, number_in, number_out
from suite.spaces import SPACES
from suite.tables import open_table
from suite.types import BadInput, Cost, Evaluation, Proxy, Trial

SPACE = SPACES["nas_bench_macro"]
PROXY = Proxy(50, 32, 32)
TRIALS = [Trial(SPACE.at(i), PROXY) for i in range(5)]


class Counting:
    """Each answer is another one: the number of answers given before it."""

    name = "counting"

    def __init__(self, device: str = "table:x") -> None:
        self.asked: list[Trial] = []
        self.device = device

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        answers = []
        for trial in trials:
            answers.append(Evaluation(trial, {"val_error": float(len(self.asked))}, Cost(1.0, self.device)))
            self.asked.append(trial)
        return answers


def recorded(log: Log, evaluator: object = None, *, dataset: str = "toys", run: str = "r", phase: str = "search"):
    return Recorded(evaluator or Counting(), log, dataset=dataset, run=run, phase=phase)


def errors(answers: Sequence[Evaluation]) -> list[float]:
    return [answer.metrics["val_error"] for answer in answers]


def written(folder: Path, trials: Sequence[Trial] = TRIALS) -> Path:
    path = folder / "trials.jsonl"
    with Log(path, SPACE) as log:
        recorded(log).evaluate(trials)
    return path


def test_the_nth_asking_gets_the_nth_answer_of_the_log(tmp_path):
    a, b = TRIALS[:2]
    path = written(tmp_path, [a, b, a, a])
    with Log(path, SPACE) as log:
        again = recorded(log)
        assert errors(again.evaluate([a])) == [0]
        assert errors(again.evaluate([a, b])) == [2, 1]
        assert errors(again.evaluate([a, a])) == [3, 0]  # the log is at its end: a new evaluator begins at 0


def test_what_is_in_the_log_is_not_asked_again_and_what_is_new_is_appended(tmp_path):
    path = written(tmp_path, TRIALS[:3])
    before = path.read_bytes()
    evaluator = Counting()
    with Log(path, SPACE) as log:
        recorded(log, evaluator).evaluate(TRIALS)
    assert evaluator.asked == TRIALS[3:]
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes().splitlines()) == len(TRIALS)


def test_answers_stand_at_their_trials_places_whether_recorded_or_new(tmp_path):
    path = written(tmp_path, [TRIALS[1], TRIALS[3]])
    with Log(path, SPACE) as log:
        answers = recorded(log).evaluate(TRIALS)
    assert [answer.trial for answer in answers] == TRIALS
    assert errors(answers) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("other", [{"run": "r2"}, {"dataset": "toys2"}, {"phase": "judging"}])
def test_searches_data_sets_and_phases_have_their_own_answers(tmp_path, other):
    path = written(tmp_path)
    evaluator = Counting()
    with Log(path, SPACE) as log:
        recorded(log, evaluator, **other).evaluate(TRIALS)
    assert evaluator.asked == TRIALS


def test_an_answer_that_cost_real_seconds_is_on_disk_before_anyone_hears_of_it(tmp_path):
    path = tmp_path / "trials.jsonl"
    with Log(path, SPACE) as log:
        for count, (_, answer) in enumerate(recorded(log, Counting("some CPU")).stream(TRIALS), start=1):
            assert len(path.read_bytes().splitlines()) >= count
            assert not answer.cost.simulated


def test_the_evaluator_hears_of_recorded_answers_so_that_later_stages_cost_the_rest(tmp_path):
    table = open_table(toy_table())
    half, whole = (Trial(SPACE.at(3), PROXY, epochs) for epochs in (5, 50))

    def ask(trials: Sequence[Trial]) -> list[float]:
        with Log(tmp_path / "trials.jsonl", SPACE) as log:
            answers = recorded(log, TableEvaluator(table, "toys")).evaluate(trials)
        return [answer.cost.device_s for answer in answers]

    (first,) = ask([half])
    assert ask([half, whole]) == [first, pytest.approx(9 * first)]


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(FLOATS)
def test_numbers_survive_strict_json(value):
    text = json.dumps(number_out(value), allow_nan=False)
    back = number_in(json.loads(text))
    assert back == value or (math.isnan(back) and math.isnan(value))


@settings(max_examples=40)
@given(
    metrics=st.dictionaries(st.sampled_from(["val_error", "params", "macs"]), FLOATS, min_size=1),
    seconds=FLOATS,
    macs=FLOATS,
    energy=st.none() | st.floats(0, 1e9),
    failure=st.text(),
    curve=st.lists(st.dictionaries(st.text(), FLOATS), max_size=2),
    index=st.integers(0, SPACE.size - 1),
    proxy=st.builds(Proxy, st.integers(1, 999), st.integers(1, 99), st.integers(1, 99), st.floats(1e-9, 1), st.none()),
    seed=st.integers(0, 2**64),
    origin=st.sampled_from(["", "pool", "0123abcd"]),
    run=st.text(),
)
def test_any_answer_comes_back_from_the_log_as_it_was(
    tmp_path_factory, metrics, seconds, macs, energy, failure, curve, index, proxy, seed, origin, run
):
    path = tmp_path_factory.mktemp("log") / "trials.jsonl"
    trial = Trial(SPACE.at(index), proxy, 0, seed, origin)
    answer = Evaluation(trial, metrics, Cost(seconds, "table:ü", energy, macs), failure, curve)
    with Log(path, SPACE) as log:
        log.append("toys", run, "search", answer)
    with Log(path, SPACE) as log:
        ((_, back),) = log.known[f"search toys {run}"][trial]
    assert repr(back) == repr(answer)  # as text, since nan is not equal to itself


@settings(max_examples=40)
@given(st.data())
def test_a_log_cut_anywhere_is_gone_on_from_and_ends_the_same(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("log"))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    torn = cut > 0 and whole[cut - 1 : cut] != b"\n"
    kept = whole[:cut].count(b"\n")
    evaluator = Counting()
    evaluator.asked += [TRIALS[0]] * kept  # so that its next answer is the one that was lost
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Log(path, SPACE) as log:
            recorded(log, evaluator).evaluate(TRIALS)
    assert [f"{path}:{kept + 1}: the last line was torn" in str(w.message) for w in said] == [True] * torn
    assert path.read_bytes() == whole


DAMAGE = {
    "empty": b"",
    "not JSON": b'{"run":',
    "a number": b"3",
    "a list": b"[]",
    "not text": b"\xff\xfe\x00",
    "nested without end": b"[" * 10_000,
}
BROKEN = {
    "arch": [5, "99999999", None],
    "proxy": [3, {}, {"epochs": 1}, {"epochs": 0, "channels": 1, "resolution": 1}],
    "epochs": [51, "x"],
    "metrics": [[1], 3, {"val_error": "x"}, {"val_error": [1]}],
    "cost": [3, {}],
    "curve": [[3], 3],
    "space": ["nas_bench_201", None],
    "seed": [[0]],
    "run": [],
}


@settings(max_examples=40)
@given(number=st.integers(1, 5), damage=st.sampled_from(sorted(DAMAGE)))
def test_any_other_damage_is_refused_naming_file_and_line(tmp_path_factory, number, damage):
    path = written(tmp_path_factory.mktemp("log"))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = DAMAGE[damage] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(BadInput, match=rf"trials.jsonl:{number}: not a line of this log: .*; repair or move it$"):
        Log(path, SPACE)
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BROKEN.items() for value in values])
def test_a_line_with_a_wrong_value_is_refused(tmp_path, key, value):
    path = written(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = json.dumps({**json.loads(lines[2]), key: value}) + "\n"
    path.write_text("".join(lines))
    with pytest.raises(BadInput, match=r"trials.jsonl:3: not a line of this log"):
        Log(path, SPACE)


@pytest.mark.parametrize("key", ["arch", "cost", "curve", "dataset", "failure", "metrics", "phase", "run", "space"])
def test_a_line_without_a_key_is_refused(tmp_path, key):
    path = written(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    del row[key]
    path.write_text(json.dumps(row) + "\n" + "".join(lines[1:]))
    with pytest.raises(BadInput, match=rf"trials.jsonl:1: not a line of this log: KeyError: '{key}'"):
        Log(path, SPACE)


def test_two_cannot_write_one_log(tmp_path):
    path = tmp_path / "trials.jsonl"
    with Log(path, SPACE), pytest.raises(BadInput, match="another process is writing it"):
        Log(path, SPACE)
    with Log(path, SPACE):
        pass


def test_a_dead_process_holds_no_log(tmp_path):
    path = tmp_path / "trials.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from suite.evaluators.recorded import Log; from suite.spaces import SPACES\n"
        "log = Log(Path(sys.argv[1]), SPACES['nas_bench_macro']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    with Log(path, SPACE):
        pass


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere/trials.jsonl: cannot be written: No such file"):
        Log(tmp_path / "nowhere" / "trials.jsonl", SPACE)
    with pytest.raises(BadInput, match="cannot be written: Is a directory"):
        Log(tmp_path, SPACE)


def test_a_log_of_before_there_were_origins_is_read(tmp_path):
    path = tmp_path / "trials.jsonl"
    trial = Trial(SPACE.at(0), Proxy(2, 4, 8), origin="pool")
    answer = Evaluation(trial, {"val_error": 1.0}, Cost(1.0, "table:test"))
    with Log(path, SPACE) as log:
        log.append("digits", "a", "search", answer)
    text = path.read_text(encoding="utf-8")
    assert '"origin":"pool"' in text
    path.write_text(text.replace('"origin":"pool"', '"inherit":true'), encoding="utf-8")
    with Log(path, SPACE) as log:
        assert log.answers("digits", "a", "search") == [answer]
