"""The worked example of docs/adding-a-searcher.md, installed as another package from what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding-a-searcher.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def installed(tmp_path):
    """The environment of a process in which the example is an installed package."""
    (group, entries), *_ = tomllib.loads(blocks("toml")[0])["project"]["entry-points"].items()
    info = tmp_path / "example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    (tmp_path / "simulated_annealing.py").write_text(blocks("python")[0])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def test_it_passes_the_contract(installed):
    chosen = ["-p", "no:cacheprovider", "-k", "simulated_annealing", "tests/contract/test_searchers.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen], cwd=ROOT, env=installed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout  # 5 if none was chosen


def test_trying_it_works_and_finds_the_best_cell(installed):
    done = subprocess.run([sys.executable, "-c", blocks("python")[1]], env=installed, capture_output=True, text=True)
    assert done.stderr == ""
    cell, error = done.stdout.split()
    assert cell.count("nor_conv_3x3") == 6 - float(error) >= 5


def test_the_searcher_of_the_readme_is_a_plug_in_as_printed(tmp_path):
    """Class with ask and tell, no attributes, no type hints: installed, listed and searched with."""
    printed = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    info = tmp_path / "readme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: readme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kendall.searchers]\nprinted = readme_searcher:RandomSearch\n")
    (tmp_path / "readme_searcher.py").write_text(printed[-1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    chosen = ["-p", "no:cacheprovider", "-k", "printed and nas_bench_201", "tests/contract/test_searchers.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    code = "import searchers; print(searchers.listed('printed'))"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "'family': 'other'" in said.stdout
