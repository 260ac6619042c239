"""Fork server: a process that starts scripts directly in their cgroups."""
