"""What numba compiles: a machine that cannot keep or load it is told so, and computes what it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOUBLED = """
import resource, sys
from suite.machine_code import compiled

def doubled(x):
    return 2 * x

if "full" in sys.argv:  # no byte of a file can be written
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(compiled(doubled)(21))
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script, with numba's cache in the folder."""
    script = folder / "script.py"
    script.write_text(DOUBLED)
    here = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(script), *words], env=here, capture_output=True, text=True, check=False)


def test_a_full_disk_under_the_cache_costs_nothing_but_the_cache(tmp_path):
    pytest.importorskip("resource")
    full = run(tmp_path, "full")
    assert (full.stdout, full.returncode) == ("42\n", 0), full.stderr
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.nbc"))


def test_a_damaged_cache_is_named_with_what_would_work(tmp_path):
    assert run(tmp_path).stdout == "42\n"
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(index.read_bytes()[:40])
    damaged = run(tmp_path)
    assert damaged.returncode == 1
    last = damaged.stderr.strip().splitlines()[-1]
    assert last.startswith("suite.types.BadInput: machine code: doubled can be neither compiled nor loaded here")
    assert last.endswith("NUMBA_CACHE_DIR")


def test_an_error_of_the_function_itself_stays_what_it_is():
    from suite.machine_code import compiled

    def third(x, i):
        if i > 2:
            raise IndexError("no such place")
        return x[i]

    call = compiled(third)
    assert call((1, 2, 3), 2) == 3
    with pytest.raises(IndexError, match="no such place"):
        call((1, 2, 3), 3)
