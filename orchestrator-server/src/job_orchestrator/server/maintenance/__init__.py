"""Retention, backup and integrity check."""
