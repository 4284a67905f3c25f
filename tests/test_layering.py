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
    "suite.pareto": 1,
    "suite.statistics": 1,
    "suite.records": 1,
    "suite.proxies": 2,
    "suite.data": 2,
    "suite.networks": 3,
    "suite.tasks": 4,
    "suite.training": 6,
    "suite.workers": 7,
    "suite.tables": 8,
    "suite.resources": 9,
    "suite.evaluators": 9,
    "suite.search": 10,
    "suite.spec": 12,
    "suite.problem": 13,
    "suite.bench": 13,
    "suite.comparison": 14,
    "suite.study": 14,
    "suite.report": 15,
    "suite.commands": 16,
    "suite.cli": 17,
}
"""Every package of the suite, in the order in which they may import; searchers stand between search and spec."""
SEARCHERS = 11
SURROGATES = 5
PLANNED: set[str] = set()
FOR_SEARCHERS = {"suite.types", "suite.spaces", "suite.pareto", "suite.networks", "surrogates"}
BUILDS_ON = {"searchers.fnas": ["searchers.mnas"]}
"""Methods whose papers are about another method, which they import; others share pieces in searchers/parts only."""
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
    return {"searchers": SEARCHERS, "surrogates": SURROGATES}.get(name.split(".")[0]) or LAYERS[part(name)]


def test_there_is_something_to_check():
    assert ROOT / "suite" / "types.py" in FILES
    assert "suite.types" in set(imports(ROOT / "suite" / "search.py"))
    assert set(imports(ROOT / "suite" / "types.py")) == set()


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_come_from_below_only(path):
    here = layer(module(path))
    assert {name for name in imports(path) if layer(name) > here} == set()


def test_every_package_has_its_layer_and_the_root_is_small():
    packages = {f"suite.{path.name}" for path in (ROOT / "suite").iterdir() if (path / "__init__.py").exists()}
    modules = {f"suite.{path.stem}" for path in (ROOT / "suite").glob("*.py") if path.stem != "__init__"}
    assert packages | modules | {"suite"} >= set(LAYERS) - PLANNED
    assert packages | modules <= set(LAYERS)
    assert len(modules) <= 9


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("searchers.")], ids=module)
def test_a_searcher_imports_neither_answers_nor_another_searcher(path):
    for name in imports(path):
        own = name.startswith("searchers.parts") or name in BUILDS_ON.get(module(path), ())
        assert own or part(name) in FOR_SEARCHERS or name.split(".")[0] in FOR_SEARCHERS, name


def test_the_registry_imports_searchers_and_what_they_may():
    for name in imports(ROOT / "searchers" / "__init__.py"):
        assert name.startswith("searchers.") or part(name) in FOR_SEARCHERS


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("surrogates")], ids=module)
def test_surrogates_know_no_evaluators_and_no_searchers(path):
    for name in imports(path):
        assert name.startswith("surrogates") or layer(name) < SURROGATES or part(name) == "suite.tables", name
