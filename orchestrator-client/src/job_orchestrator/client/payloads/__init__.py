"""Payloads: intake, store, execution, retention."""
