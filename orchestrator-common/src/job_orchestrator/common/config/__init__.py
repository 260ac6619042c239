"""Reading settings from the environment and from flags."""
