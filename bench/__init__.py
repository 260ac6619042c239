"""Benchmarks. Each figure is compared with a floor: the best that this machine achieves alone.

Floors are measured in the same run (see ``bench.floors``).
"""
