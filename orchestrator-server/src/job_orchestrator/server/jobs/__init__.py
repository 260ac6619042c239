"""Use cases about jobs, without HTTP and without SQL."""
