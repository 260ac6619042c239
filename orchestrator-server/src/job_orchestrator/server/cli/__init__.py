"""The command ``jo-server`` and its subcommands."""
