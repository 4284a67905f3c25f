"""Imports run one way: types <- spaces <- networks <- training <- evaluators, tables <- search and the rest <- cli.

All imports count, also those inside functions and those for type checking.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "suite": 0,
    "suite.types": 0,
    "suite.machine_code": 1,
    "suite.spaces": 1,
    "suite.datasets": 1,
    "suite.pareto": 1,
    "suite.proxies": 1,
    "suite.journal": 1,
    "suite.stores": 1,
    "suite.networks": 2,
    "suite.training": 3,
    "suite.tables": 4,
    "suite.evaluators": 4,
    "suite.cli": 6,
}
REST = 5
"""search, ledger, study, leaderboard, report ..."""
FOR_SEARCHERS = {"suite.types", "suite.spaces", "suite.pareto", "suite.networks", "surrogates"}
FILES = sorted(path for package in ("suite", "searchers", "surrogates") for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, `from x import y` as x.y where that is a module."""
    here = module(path).split(".")
    package = here if path.stem == "__init__" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("suite", "searchers", "surrogates"))


def is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def part(name: str) -> str:
    """suite.tables.nats -> suite.tables"""
    return ".".join(name.split(".")[:2])


def layer(name: str) -> int:
    return LAYERS.get(part(name), REST)


def test_there_is_something_to_check():
    assert ROOT / "suite" / "types.py" in FILES
    assert "suite.types" in set(imports(ROOT / "suite" / "search.py"))
    assert set(imports(ROOT / "suite" / "types.py")) == set()


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("suite")], ids=module)
def test_the_suite_imports_from_below_only(path):
    here = layer(module(path))
    below = {name for name in imports(path) if name.startswith("suite")}
    assert {name for name in below if layer(name) > here} == set()
    if here < REST:
        assert {name for name in imports(path) if not name.startswith("suite")} <= {"surrogates"}


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("searchers.")], ids=module)
def test_a_searcher_imports_neither_answers_nor_another_searcher(path):
    for name in imports(path):
        own = name.startswith("searchers._")  # shared pieces, no methods
        assert own or part(name) in FOR_SEARCHERS or name.split(".")[0] in FOR_SEARCHERS, name


def test_the_registry_imports_searchers_and_what_they_may():
    for name in imports(ROOT / "searchers" / "__init__.py"):
        assert name.startswith("searchers.") or part(name) in FOR_SEARCHERS


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("surrogates")], ids=module)
def test_surrogates_know_no_evaluators_and_no_searchers(path):
    for name in imports(path):
        assert name.startswith("surrogates") or layer(name) <= 1 or part(name) == "suite.tables", name
