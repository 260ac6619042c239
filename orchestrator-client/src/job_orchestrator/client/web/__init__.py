"""Routes of jo-client: they parse the request, call a use case, and answer."""
