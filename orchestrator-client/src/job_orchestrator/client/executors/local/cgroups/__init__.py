"""One cgroup for each payload."""
