"""The benchmarks: every figure beside what the machine itself can do at best, in the same run."""
