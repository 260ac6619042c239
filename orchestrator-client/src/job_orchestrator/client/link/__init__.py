"""The link: the stream of small messages of one server."""
