"""Floors: the least that the machine needs for the same work, with nothing of ours in between."""
