"""Durable files, small files, and the lock of the data folder."""
