"""The job store: its contract (``base``) and its implementations."""
