"""Sending jobs to clients and collecting their results."""
