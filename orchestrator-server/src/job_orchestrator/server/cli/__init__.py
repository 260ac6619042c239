"""The command jo-server."""
