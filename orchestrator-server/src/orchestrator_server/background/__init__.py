"""What the server does by itself: one *pass* each, driven by ``orchestrator_common.loop``."""
