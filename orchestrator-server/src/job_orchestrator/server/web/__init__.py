"""The HTTP face of the server: parse, call the logic, answer. Errors are translated elsewhere."""
