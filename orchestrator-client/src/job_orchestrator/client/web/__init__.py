"""The HTTP face of the client: parse, call the logic, answer. Errors are translated elsewhere."""
