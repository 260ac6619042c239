"""The check of scripts before they run."""
