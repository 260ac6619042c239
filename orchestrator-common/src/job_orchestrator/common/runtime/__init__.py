"""Running things: loops, threads, limits, queues, fault injection."""
