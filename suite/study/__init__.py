"""The proxy study: how far each cheap ranking can be trusted, by how much, and at what price.

    networks   which networks: drawn, in strata, all, from a file
    plan       which trainings, in which order, at what cost
    answers    the trainings and scores themselves
    rows       consistency.csv and scores.csv
    findings   what follows: comparisons, factors, claims, power, front, strategies, transfer

docs/studies.md shows how to use it.
"""

from __future__ import annotations

from suite.study.answers import Ranking, Study, conduct, price, quick_score
from suite.study.findings import Findings
from suite.study.networks import architectures
from suite.study.plan import Plan, answers_due, check, full_seeds, held
from suite.study.rows import CONSISTENCY, SCORES, consistency_rows, measure, score_frame

__all__ = [
    "CONSISTENCY", "SCORES", "Findings", "Plan", "Ranking", "Study", "answers_due", "architectures", "check", "conduct",
    "consistency_rows", "full_seeds", "held", "measure", "price", "quick_score", "score_frame",
]  # fmt: skip
