"""Logging: configuration, formatters and context fields."""
