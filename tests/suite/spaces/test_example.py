"""The worked example of docs/adding-a-space.md, installed as another module from what the page says."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "adding-a-space.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def installed(tmp_path):
    """The environment of a process that can import the example, and the module that registers it."""
    (tmp_path / "stack.py").write_text(blocks()[0])
    (tmp_path / "registered.py").write_text(blocks()[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def test_it_passes_the_contract(installed):
    files = ["tests/suite/spaces/test_spaces.py", "tests/suite/spaces/test_restricted.py"]
    chosen = ["-p", "registered", "-p", "no:cacheprovider", "-n", "0", "-k", "stack", *files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen], cwd=ROOT, env=installed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout  # 5 if none was chosen
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10


def test_a_search_of_it_trains_and_answers(installed):
    code = blocks()[1] + blocks()[2]
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True)
    assert done.stderr == ""
    layers, error = done.stdout.split()
    assert re.fullmatch(r"(\dx\d-?){3}", layers)
    assert 0 < float(error) < 60


def count(counted, module, _, output):
    """Multiply-adds of a layer on one image: those of an output, times outputs."""
    counted.append(output[0].numel() * module.weight[0].numel())


def test_its_formulas_count_its_network(installed, tmp_path, monkeypatch):
    import torch

    from suite.types import Ends, Proxy

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stack", raising=False)
    stack = importlib.import_module("stack")
    space, proxy, ends = stack.Stack(), Proxy(1, 3, 8), Ends(2, 7)
    rng = np.random.default_rng(0)
    for arch in [space.sample(rng) for _ in range(5)]:
        network = stack.network(arch, proxy, ends=ends)
        counted: list[int] = []
        hook = partial(count, counted)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.register_forward_hook(hook)
        network(torch.rand(1, 2, 8, 8))
        assert space.params(arch, proxy, ends) == sum(weight.numel() for weight in network.parameters())
        assert space.macs(arch, proxy, ends) == sum(counted) + ends.outputs  # the classifier's biases count
