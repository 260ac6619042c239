"""The check of run.sh before it is started."""
