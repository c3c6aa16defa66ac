"""Metrics, intervals and tests: pure functions of arrays and frames."""
