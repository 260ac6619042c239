"""JSON bodies on the wire: one struct for each, used by jo-server, jo-client and the SDK."""
