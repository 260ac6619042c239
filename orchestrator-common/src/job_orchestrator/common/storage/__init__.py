"""Durable files, small files, files received in forms, and the lock of the data folder."""
