"""API tokens: their file, and the tokens that are valid now."""
