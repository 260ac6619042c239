"""Durable files and folders."""
