"""Benchmarks: each figure with the floor of the machine, measured in the same run."""
