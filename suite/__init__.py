"""Kendall: neural architecture search on one harness, with proxies and costs measured."""

__version__ = "0.1.0"
