"""Reasons why queued jobs wait, and estimates of their starts."""
