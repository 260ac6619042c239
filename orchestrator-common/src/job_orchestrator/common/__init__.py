"""Code that jo-server and jo-client share. It depends on neither of them."""

__version__ = "0.1.0"
