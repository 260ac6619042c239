"""Metrics, health and the summary at start."""
