"""Runs payloads through a batch system: one executor, and one scheduler for each system."""
