"""jo-client: runs the payloads that jo-server sends, and returns their results."""

__version__ = "0.1.0"
