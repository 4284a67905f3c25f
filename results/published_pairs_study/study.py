"""Accel-NASBench's two recipes and NAS-Bench-NLP's curves as proxy studies; see README.md beside this file."""

import sys
from pathlib import Path

from suite.records.environment import environment
from suite.report import write_report
from suite.study.published import write
from suite.tables.base import sha256_of
from suite.tables.pairs import PAIRS, read

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
out = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent)
command = "python results/published_pairs_study/study.py ../shared/data"
data = {name: sha256_of(folder / file) for name, (file, _) in PAIRS.items()}
where = environment(command=command, device="seconds as published", data=data)
write([read(name, folder) for name in PAIRS], out, command=command, environment=where)
sys.stdout.write(f"{write_report(out)}\n")
