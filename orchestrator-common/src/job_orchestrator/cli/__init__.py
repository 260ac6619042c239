"""The command ``jo``: submit jobs, list them, download their results, from terminal or script."""
