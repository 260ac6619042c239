"""jo-client: runs the payloads that jo-server hands it, and gives their results back."""

__version__ = "0.1.0"
