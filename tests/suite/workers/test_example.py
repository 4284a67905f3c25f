"""The worked example of docs/workers.md: a kind of workers is one file and one line."""

from __future__ import annotations

import re

from helpers.harness import ROOT, live_content, rows, write_spec

from suite import commands
from suite.spec.reading import load
from suite.spec.run import RunSpec
from suite.types import Workers
from suite.workers import KINDS, base
from suite.workers import load as load_kind

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "workers.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_trains_what_serial_workers_train(tmp_path, monkeypatch):
    _, file, line = BLOCKS
    (tmp_path / "newest_first.py").write_text(file)
    monkeypatch.syspath_prepend(tmp_path)
    (name, where), *_ = re.findall(r'"(\w+)": "suite\.workers\.([\w.:]+)"', line)
    monkeypatch.setitem(KINDS, name, where)
    made = load_kind(name)(None, ())
    assert isinstance(made, Workers)
    assert isinstance(made, base.TrainingWorkers)

    def winners(kind: str) -> list[tuple[str, str]]:
        content = live_content(searchers=["random_search"], seeds=1, budget={"evaluations": 4}, workers=2)
        content["evaluator"]["workers_kind"] = kind
        spec = load(RunSpec, write_spec(tmp_path / f"{kind}.toml", content))
        out = commands.run(spec, tmp_path / kind, base=tmp_path, command="")
        return [(row["architecture"], row["judge_error"]) for row in rows(out / "winners.csv")]

    assert winners(name) == winners("serial")
