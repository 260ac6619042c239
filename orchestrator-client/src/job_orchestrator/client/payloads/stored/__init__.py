"""What is kept of payloads: their table, their ids, and the records that survive a restart."""
