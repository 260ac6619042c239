"""Records of payloads: their table, their ids, and what survives a restart."""
