"""Storage of the inputs and results of jobs."""
