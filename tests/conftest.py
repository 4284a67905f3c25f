"""Lets tests import what they share from beside them (`from analytic import Analytic`), and drawn examples repeat."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("kendall", deadline=None, derandomize=True, database=None)
settings.load_profile("kendall")
