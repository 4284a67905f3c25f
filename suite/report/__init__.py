"""The report: a folder of results becomes one HTML file, Markdown, LaTeX and figures. See docs/report.md."""

from __future__ import annotations

from suite.report.console import consistency_table, leaderboard_table
from suite.report.write import write_report

__all__ = ["consistency_table", "leaderboard_table", "write_report"]
