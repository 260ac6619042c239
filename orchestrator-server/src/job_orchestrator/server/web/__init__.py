"""Routes of jo-server: they parse the request, call a use case, and answer."""
