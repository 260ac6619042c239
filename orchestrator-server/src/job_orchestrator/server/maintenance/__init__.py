"""Retention, backup and integrity of database and files."""
