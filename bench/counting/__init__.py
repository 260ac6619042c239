"""Counters for requests, commits, statements and system calls, from outside the services."""
