"""Settings of jo-server and of its services."""
