"""Metrics that need no training: by formula, from tables, measured here."""
