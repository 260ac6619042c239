"""Payloads: intake, store, execution, output, retention."""
