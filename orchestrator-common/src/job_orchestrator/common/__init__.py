"""What jo-server and jo-client share. Nothing in here knows either of them."""

__version__ = "0.1.0"
