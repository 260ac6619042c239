"""Submission of jobs: the form, and the row with its files."""
