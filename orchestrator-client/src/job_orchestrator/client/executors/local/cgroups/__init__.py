"""Cgroups: one for each payload, to find, limit and kill its processes."""
