"""Floors: the least time that the machine needs for the same work without the services."""
