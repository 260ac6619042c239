"""Callbacks (webhooks): notification of a job's owner, by HTTP, that the job has ended."""
