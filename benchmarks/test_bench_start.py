"""How long the command takes to say what there is: CPU time of a fresh process, the least of five.

Run: pytest benchmarks/test_bench_start.py -s --benchmark-disable
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def cpu_s():
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("word", "goal_s"), [("--help", 0.3), ("list", 0.5)])
def test_start(capsys, word, goal_s):
    seconds = []
    for _ in range(5):
        before = cpu_s()
        subprocess.run([sys.executable, "-m", "suite.cli", word], cwd=ROOT, check=True, capture_output=True)
        seconds.append(cpu_s() - before)
    with capsys.disabled():
        print(f"\nkendall {word}: {min(seconds):.2f} s, goal {goal_s} s [load {os.getloadavg()[0]:.1f}]")
