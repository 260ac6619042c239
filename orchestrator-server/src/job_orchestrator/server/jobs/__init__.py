"""Use cases of a job: submit, query, follow, terminate, fetch results."""
