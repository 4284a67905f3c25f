"""What README and docs/ show is true: code runs, commands parse, specs load, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import ROOT
from typer.main import get_command

from searchers import SEARCHERS, options
from searchers.parts.options import checked_options
from suite.cli import app
from suite.spec.predictors import PredictorsSpec
from suite.spec.reading import load
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.types import KendallError

PATTERNS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "results/**/README.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


# Code


def test_the_twenty_lines_of_the_readme_run_and_are_twenty(capsys):
    tour, searcher = blocks(ROOT / "README.md", "python")
    assert len([line for line in tour.splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {}
    exec(compile(tour, "README.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 100
    assert said[-1].endswith("judged by validation, other seeds")
    assert names["judged"].metrics["val_error"] < 10
    exec(compile(searcher, "README.md", "exec"), names)  # the class of "Add a searcher", in the tour's loop
    one = names["RandomSearch"](names["space"], names["space"].full, names["np"].random.default_rng(0))
    budget = names["Budget"](evaluations=5)
    assert [now.evaluations for now in names["run"](one, names["evaluator"], budget=budget)] == [1, 2, 3, 4, 5]
    same = SEARCHERS["random_search"](names["space"], names["space"].full, names["np"].random.default_rng(0))
    again = names["RandomSearch"](names["space"], names["space"].full, names["np"].random.default_rng(0))
    assert [again.ask() for _ in range(5)] == [same.ask() for _ in range(5)]


@pytest.mark.parametrize("name", ["tables", "training", "workers"])
def test_the_code_of_a_page_runs(name):
    names: dict[str, Any] = {}
    for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
        exec(compile(code, f"docs/{name}.md", "exec"), names)
    assert 0 < names["answer"].metrics["val_error"] < 100


@pytest.mark.parametrize("name", ["gradient-searches", "supernets"])
def test_the_code_of_the_pages_on_supernets_runs(name, capsys):
    names: dict[str, Any] = {}
    for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
        exec(compile(code, f"docs/{name}.md", "exec"), names)
    if name == "gradient-searches":
        assert names["growing"].learner.supernet.cells == 6
    else:
        names["space"].check(names["arch"])


def test_the_code_of_the_page_on_spaces_runs():
    codes = blocks(ROOT / "docs" / "spaces.md", "python")
    assert len(codes) == 2
    for code in codes:
        exec(compile(code, "docs/spaces.md", "exec"), {})


# Commands


def shown(page: Path) -> list[str]:
    """Commands in code blocks, and those in running text."""
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(code for language, code in FENCE.findall(text) if language in ("", "sh", "bash", "console"))
    indented = "\n".join(re.findall(r"^(?:    |\t)(.*)$", FENCE.sub("", text), re.MULTILINE))
    lines = [line.removeprefix("$ ") for line in (fenced + "\n" + indented).splitlines()]
    spans = re.findall(r"(?<!`)`(kendall[^`\n]*)`", FENCE.sub("", text))
    return [re.sub(r"\s+#.*", "", line) for line in [*lines, *spans] if re.match(r"kendall(\s|$)", line)]


COMMANDS = sorted({(page, line) for page in PAGES for line in shown(page)})


def parse(words: list[str]) -> dict[str, Any]:
    """The arguments of a command line as the command would take them; nothing is done.

    Raises:
        Exception: It is none; `format_message` says why.
    """
    command: Any = get_command(app)
    name, parameters, context = "kendall", {}, None
    while True:
        context = command.make_context(name, list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return {**parameters, **context.params, "command": name}
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_every_command_that_is_shown_is_one(page, line):
    words = shlex.split(line)[1:]
    if not words or words[-1] in ("--help", "-h"):
        return
    try:
        given = parse(words)
    except Exception as error:
        why = error.format_message() if hasattr(error, "format_message") else repr(error)
        spoken_of = len(words) <= 2 and "Missing argument" in why  # `kendall run`, as a name
        assert spoken_of, f"{page.name}: {line}: {why}"
        return
    spec = given.get("spec")
    if spec is not None and (ROOT / spec).exists():
        kind = {"run": RunSpec, "study": StudySpec, "predictors": PredictorsSpec}[given["command"]]
        load(kind, ROOT / spec, given["settings"] or [])


def test_a_command_with_a_mistake_would_be_found():
    for line in ("kendall rum x.toml", "kendall run x.toml --sett a=b", "kendall table convert", "kendall list --jsn"):
        with pytest.raises(Exception, match=r"\w|^$") as error:
            parse(shlex.split(line)[1:])
        assert re.match("No such|Missing", error.value.format_message()), line


def test_the_readme_shows_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command: Any = get_command(app)
    for name, sub in command.commands.items():
        for words in [f"{name} {inner}" for inner in getattr(sub, "commands", {})] or [name]:
            assert f"`kendall {words}" in text, words


# Specs


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, text) for page in PAGES for text in blocks(page, "toml") if "datasets" in text],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_every_spec_that_is_shown_loads(page, text, tmp_path):
    (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
    content = tomllib.loads(text)
    kind = RunSpec if "searchers" in content else PredictorsSpec if "predictors" in content else StudySpec
    load(kind, tmp_path / "shown.toml")


# Links


def links(page: Path) -> list[str]:
    text = re.sub(r"(?<!`)`[^`\n]+`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return sorted({link for link in found if not re.match(r"[a-z]+:", link)})


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "link"),
    [(page, link) for page in PAGES for link in links(page)],
    ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else value,
)
def test_every_relative_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(target)


def test_every_page_can_be_reached_from_the_readme():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or not page.is_file() or page.suffix != ".md":
            continue
        reached.add(page)
        left += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    for page in ROOT.glob("docs/*.md"):
        assert page in reached, page.name


# What docs/results.md promises


def test_every_file_of_a_folder_is_documented():
    from suite.records.folder import ENVIRONMENT, RESULTS, SPEC

    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for name in (*RESULTS, ENVIRONMENT, SPEC, "report.html"):
        assert f"`{name}`" in text, name


def test_mistakes_in_a_shown_spec_would_be_found(tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\nsede = 3\n')
    with pytest.raises(KendallError):
        load(RunSpec, tmp_path / "x.toml")


SPECS = sorted([*ROOT.glob("results/*/spec.toml"), *ROOT.glob("suite/demo/*.toml")])


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_specs_of_results_and_demo_load_and_their_searchers_have_the_options_that_they_name(path):
    kind = RunSpec if "searchers" in tomllib.loads(path.read_text(encoding="utf-8")) else StudySpec
    spec = load(kind, path)
    for part in spec.searchers if isinstance(spec, RunSpec) else ():
        method, known = SEARCHERS[part.name], options(part.name)
        assert set(part.options) <= set(known), part.row
        assert checked_options(method, part.name, part.options).keys() == part.options.keys()
