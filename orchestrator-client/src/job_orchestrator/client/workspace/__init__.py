"""The folders of payloads on disk."""
