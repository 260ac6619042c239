"""The queue in the database: who waits, and what each user has used."""
