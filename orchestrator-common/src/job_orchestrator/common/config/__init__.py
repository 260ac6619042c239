"""Settings: declarations, kinds of values, environment variables and command-line flags."""
