"""The process that starts scripts directly in their cgroup."""
