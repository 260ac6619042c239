"""Why a queued job waits, and for how long."""
