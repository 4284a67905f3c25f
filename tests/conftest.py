"""Lets tests import what they share from beside them: `from analytic import Analytic`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
