"""Records about clients: which have registered, and what they have not confirmed yet."""
