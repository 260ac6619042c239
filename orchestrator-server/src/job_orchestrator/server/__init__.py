"""jo-server: queues jobs, dispatches them to jo-clients within quotas, and serves their results."""

__version__ = "0.1.0"
