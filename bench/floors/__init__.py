"""Floors: the least that the machine needs for the same work, without the services."""
