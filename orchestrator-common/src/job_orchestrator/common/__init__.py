"""Code that jo-server and jo-client share. It imports neither of them."""

__version__ = "0.1.0"
