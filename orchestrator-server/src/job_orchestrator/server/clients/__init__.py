"""The compute clients: registry and transport."""
