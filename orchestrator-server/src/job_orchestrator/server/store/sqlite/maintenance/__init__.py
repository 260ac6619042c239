"""Access to the database by commands that run in a process of their own, which does not serve."""
