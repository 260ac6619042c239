"""The command ``jo``: submit jobs, see them, fetch their results, from a terminal or a script."""
