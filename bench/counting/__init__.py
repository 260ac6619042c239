"""Counts what a job costs, from outside: nothing in the services knows of it."""
