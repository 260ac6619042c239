"""Registration at a server that the client dials: it listens on no port."""
