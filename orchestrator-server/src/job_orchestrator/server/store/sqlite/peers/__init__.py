"""Records about those outside: clients that have registered, users, what is not confirmed yet."""
