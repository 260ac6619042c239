"""Building blocks of a service process: loops, threads, limits, queues, fault injection."""
