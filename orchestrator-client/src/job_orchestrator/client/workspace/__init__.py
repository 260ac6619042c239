"""Folders of the payloads: layout, ownership, removal."""
