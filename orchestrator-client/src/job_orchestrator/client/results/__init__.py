"""Packing of results into a ZIP."""
