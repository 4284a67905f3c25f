"""Rank agreement, its intervals, and the questions that a study answers."""
