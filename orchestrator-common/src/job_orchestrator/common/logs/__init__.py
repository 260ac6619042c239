"""Log format and log context."""
