"""Counters of the cost of a job, from outside of the services."""
