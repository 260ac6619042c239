"""Settings of jo-server."""
