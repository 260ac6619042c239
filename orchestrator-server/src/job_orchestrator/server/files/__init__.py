"""Storage of input files and results."""
