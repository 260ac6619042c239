"""Metrics, health check and start-up summary of jo-client."""
