"""Pieces that several searchers share; no method of its own."""
