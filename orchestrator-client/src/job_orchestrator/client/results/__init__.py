"""Packing of results."""
