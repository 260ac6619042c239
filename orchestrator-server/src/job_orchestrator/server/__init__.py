"""jo-server: queues jobs, keeps quotas, hands jobs to jo-clients and serves their results."""

__version__ = "0.1.0"
