"""Decisions: which job runs next, and on which client."""
